"""Every call of a component with its arguments, and which of them belong to a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from quantlab.errors import ConfigError
from quantlab.lab.recorder import Call, by_step, recorder


def call(component: str, timestep: object = None, name: str = "timestep") -> Call:
    return Call(component, {} if timestep is None else {name: timestep}, {(0,): torch.zeros(1)}, None)


def grouped(calls: list[Call], steps: int) -> tuple[list[list[str]], list[str]]:
    """The names of each step, and of those apart."""
    groups, apart = by_step(calls, steps)
    return [[one.component for one in group] for group in groups], [one.component for one in apart]


def test_two_stages_take_their_steps_in_turn() -> None:
    calls = [*(call("high", t) for t in (900.0, 700.0)), *(call("low", t) for t in (400.0, 100.0))]
    assert grouped(calls, 4) == ([["high"], ["high"], ["low"], ["low"]], [])


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_calls_of_several_guidance_branches_are_one_step(branches: int) -> None:
    calls = [call("unet", timestep) for timestep in (900.0, 500.0) for _ in range(branches)]
    assert grouped(calls, 2) == ([["unet"] * branches] * 2, [])


def test_components_of_one_step_are_told_the_same_timestep() -> None:
    calls = [one for timestep in (900.0, 500.0) for one in (call("controlnet", timestep), call("unet", timestep))]
    assert grouped(calls, 2) == ([["controlnet", "unet"]] * 2, [])


def test_a_timestep_that_comes_back_later_is_another_step() -> None:
    """Kind: a scheduler of second order, which visits timesteps again."""
    calls = [call("unet", timestep) for timestep in (900.0, 500.0, 900.0)]
    assert grouped(calls, 3) == ([["unet"]] * 3, [])


def test_a_text_encoder_is_called_apart_from_the_steps() -> None:
    calls = [call("text_encoder"), *(call("unet", timestep) for timestep in (900.0, 500.0, 100.0))]
    assert grouped(calls, 3) == ([["unet"]] * 3, ["text_encoder"])
    assert grouped([call("text_encoder"), call("text_encoder")], 1) == ([], ["text_encoder"] * 2)


def test_a_component_without_a_timestep_that_is_called_in_every_step_is_of_the_steps() -> None:
    calls = [one for t in (900.0, 500.0) for one in (call("image_proj"), call("image_proj"), call("unet", t))]
    assert grouped(calls, 2) == ([["image_proj", "image_proj", "unet"]] * 2, [])
    assert grouped([call("prior") for _ in range(6)], 3) == ([["prior"] * 2] * 3, [])


def test_one_step_takes_nothing_that_is_told_no_timestep() -> None:
    assert grouped([call("text_encoder"), call("unet", 900.0)], 1) == ([["unet"]], ["text_encoder"])


@pytest.mark.parametrize("name", ["timestep", "timesteps", "t", "timestep_ratio"])
@pytest.mark.parametrize("value", [7.0, 7, torch.tensor(7), torch.tensor([7.0, 7.0]).half(), torch.full((2, 3), 7.0)])
def test_a_timestep_is_found_under_each_of_its_names(name: str, value: object) -> None:
    assert call("unet", value, name).timestep == 7.0


@pytest.mark.parametrize("value", [None, torch.zeros(0), "7"])
def test_what_is_no_number_is_no_timestep(value: object) -> None:
    assert call("unet", value).timestep is None


class Component(nn.Module):
    """Gives what it is told, or something of what it is given."""

    def __init__(self, give: Any = None) -> None:
        super().__init__()
        self.give = give

    def forward(self, hidden: torch.Tensor, scale: float = 1.0, *, extra: Any = None, **more: Any) -> Any:
        return self.give if self.give is not None else (hidden, [hidden + 1])


def test_a_call_is_kept_as_it_was_with_every_argument_by_its_name() -> None:
    component, hidden = Component(), torch.ones(2)
    given = {"a": [torch.ones(1), 3], "b": (torch.zeros(1), None)}
    with recorder({"unet": component}) as calls:
        component(hidden, 3.0, extra=given, other="x")
    component(torch.ones(1))  # no longer watched
    (one,) = calls
    assert (one.component, list(one.inputs)) == ("unet", ["hidden", "scale", "extra", "other"])
    assert type(one.inputs["extra"]["a"]) is list
    assert type(one.inputs["extra"]["b"]) is tuple
    assert list(one.output) == [(0,), (1, 0)]
    hidden.zero_()  # as a pipeline does that denoises in place
    assert one.inputs["hidden"].tolist() == one.output[(0,)].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("give", [torch.arange(3), (None, "text")], ids=["integers", "nothing"])
def test_an_output_without_a_tensor_to_compare_ends_the_recording(give: object) -> None:
    component = Component(give)
    kind = type(give).__name__
    message = rf"component='unet' gives a {kind} without a floating tensor, nothing to compare"
    with recorder({"unet": component}), pytest.raises(ConfigError, match=message):
        component(torch.ones(1))


@pytest.mark.parametrize(
    ("dtype", "wish"), [(torch.float16, "bfloat16"), (torch.bfloat16, "float32"), (torch.float32, "")]
)
def test_an_output_that_is_not_finite_in_any_tensor_ends_the_recording(dtype: torch.dtype, wish: str) -> None:
    component = Component((torch.ones(2), torch.tensor([1.0, float("inf")], dtype=dtype)))
    with recorder({"unet": component}), pytest.raises(ConfigError) as error:
        component(torch.ones(1))
    end = f"; try model.dtype={wish}" if wish else ""
    assert str(error.value) == f"component='unet' gives NaN or infinity without any quantization in {dtype}{end}"


def test_the_hidden_states_that_a_pipeline_takes_are_compared_and_no_others() -> None:
    states = tuple(torch.full((2,), float(i)) for i in range(4))
    component = Component(BaseModelOutput(last_hidden_state=torch.ones(2), hidden_states=states))
    with recorder({"text_encoder": component}) as calls:
        output = component(torch.ones(1))
        assert torch.equal(output.hidden_states[-2], states[2])
    (one,) = calls
    assert list(one.compared) == [("last_hidden_state",), ("hidden_states", -2)]
    assert torch.equal(one.compared[("hidden_states", -2)], states[2])


def test_a_component_is_no_longer_watched_after_an_error() -> None:
    component = Component()
    with pytest.raises(KeyboardInterrupt), recorder({"unet": component}):
        raise KeyboardInterrupt
    assert not component._forward_hooks
