"""Where the reference's weights stay, by their sizes and what the device has."""

import dataclasses

import pytest
import torch

from quantlab import Int4Spec, Lab
from quantlab.bnb.linear import linear_layers
from quantlab.config import Device, LabConfig, ModelConfig, Placement, SensitivityConfig, Weights
from quantlab.config.compose import compose
from quantlab.errors import ConfigError, OutOfMemoryError
from quantlab.lab import measure_sensitivities, opening, placement
from quantlab.lab.memory import DeviceMemory
from quantlab.lab.offloading import split
from quantlab.lab.placement import ACTIVATIONS, Plan, check_sensitivities_fit, decide
from quantlab.metrics.memory import weight_bytes
from quantlab.outcomes import Placement as Decided
from quantlab.pipelines.load import load_component
from quantlab.pipelines.random import random_component
from quantlab.pipelines.sizes import Sizes
from quantlab.pipelines.source import open_source

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
GB = 10**9
SMALL = Sizes(linear_weights=4 * GB, largest_bytes=0, linear_bytes=8 * GB, other_bytes=2 * GB)
"""10 GB of weights, 4 GB more for int8; with nf4 and double quantization at least 4.06 GB."""

RESIDENT = 10 * GB + 4 * GB + ACTIVATIONS


def model(name, *overrides):
    return compose("run", [f"model={name}", *overrides]).model


class Sized:
    """A source whose components take what the test says."""

    def __init__(self, *sizes):
        self.model = ModelConfig(name="tiny_sd3", components=["transformer", "unet"][: len(sizes)])
        self._sizes = dict(zip(self.model.components, sizes, strict=True))

    def sizes(self, name):
        return self._sizes[name]


@pytest.fixture
def planned(monkeypatch):
    """Decides for 10 GB of weights on a card with so much free."""

    def plan(free, wanted=Placement.auto, other=0, sizes=(SMALL,)):
        memory = DeviceMemory("a card", 100 * GB, int(free), int(other))
        monkeypatch.setattr(placement, "device_memory", lambda device: memory)
        return decide(Sized(*sizes), LabConfig(placement=wanted), CARD)

    return plan


@pytest.mark.parametrize(
    ("free", "streamed", "decision"), [(RESIDENT, False, "fits"), (RESIDENT - 1, True, "too_large")]
)
def test_auto_keeps_the_weights_on_a_card_that_holds_them_with_int8_and_activations(planned, free, streamed, decision):
    assert planned(free).placement == Decided(
        streamed=streamed,
        decision=decision,
        weight_bytes=10 * GB,
        int8_bytes=4 * GB,
        activation_bytes=ACTIVATIONS,
        free_bytes=free,
        total_bytes=100 * GB,
    )


def test_several_components_need_room_together(planned):
    assert not planned(2 * (RESIDENT - ACTIVATIONS) + ACTIVATIONS, sizes=(SMALL, SMALL)).placement.streamed
    assert planned(2 * (RESIDENT - ACTIVATIONS) + ACTIVATIONS - 1, sizes=(SMALL, SMALL)).placement.streamed
    with pytest.raises(OutOfMemoryError, match=r"tiny_sd3\.transformer\+unet needs at least 8\.13 GB"):
        planned(8 * GB, sizes=(SMALL, SMALL))


@pytest.mark.parametrize(("wanted", "streamed"), [(Placement.resident, False), (Placement.stream, True)])
@pytest.mark.parametrize("free", [12 * GB, 50 * GB])
def test_what_is_asked_for_is_done_and_said_with_the_sizes(planned, free, wanted, streamed):
    found = planned(free, wanted).placement
    assert (found.streamed, found.decision) == (streamed, "configured")
    assert (found.weight_bytes, found.free_bytes, found.total_bytes) == (10 * GB, free, 100 * GB)


@pytest.mark.parametrize("wanted", list(Placement))
def test_a_card_too_small_for_any_setting_is_an_error_with_what_is_needed_and_what_there_is(planned, wanted):
    with pytest.raises(OutOfMemoryError) as error:
        planned(4 * GB, wanted, 3.5 * GB)
    assert str(error.value) == (
        "tiny_sd3.transformer needs at least 4.06 GB (nf4 with double quantization, without activations), and a card "
        "has 4 GB free of 100 GB (3.5 GB are held outside this process' tensors)"
    )


def test_a_card_for_the_smallest_setting_alone_is_streamed_to(planned):
    assert planned(4.1 * GB).placement.streamed


def test_resident_on_a_card_too_small_for_the_weights_is_an_error_that_names_the_field(planned):
    with pytest.raises(ConfigError) as error:
        planned(10 * GB - 1, Placement.resident)
    message = str(error.value)
    assert "lab.placement='resident' needs 10 GB for tiny_sd3.transformer in float16" in message
    assert "a card has 10 GB free of 100 GB" in message
    assert "choose auto or stream" in message
    assert not planned(10 * GB, Placement.resident).placement.streamed


@pytest.mark.parametrize("wanted", [Placement.auto, Placement.stream])
def test_a_card_too_small_for_the_unquantized_component_has_no_sensitivities_and_the_error_says_why(planned, wanted):
    plan = planned(10 * GB - 1, wanted)
    assert not plan.sensitivities_fit
    with pytest.raises(ConfigError) as error:
        check_sensitivities_fit(plan, Sized(SMALL))
    assert str(error.value) == (
        "layer sensitivities need the whole of tiny_sd3.transformer unquantized on the device: 10 GB and a layer "
        "beside it, and it has 10 GB free of 100 GB; measure them on a larger card, or do without"
    )
    assert planned(10 * GB, wanted).placement.streamed  # its int8 weights do not fit beside it, but one layer's do
    for free in (10 * GB, 100 * GB):
        assert planned(free, wanted).sensitivities_fit
        check_sensitivities_fit(planned(free, wanted), Sized(SMALL))


@pytest.fixture
def too_small(monkeypatch):
    """Every device is streamed to and too small for layer sensitivities."""
    plan = Plan(Decided(streamed=True, decision="too_large", weight_bytes=2 * GB, free_bytes=GB))
    monkeypatch.setattr(opening, "decide", lambda *args: plan)


def test_sensitivities_that_cannot_be_are_refused_before_anything_is_loaded(too_small, monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(opening, "Reference", lambda *args: pytest.fail("loaded"))
    config = compose("run", ["model=tiny_sd3", "evaluation=quick"])
    with pytest.raises(ConfigError, match="layer sensitivities need the whole of tiny_sd3"):
        Lab(config.model, config.evaluation, Device.cpu, needs_sensitivities=True)


def test_a_lab_on_a_card_too_small_for_sensitivities_measures_and_refuses_them_alone(too_small):
    with Lab.open("tiny_sd3", "evaluation.prompts=1", "evaluation.timesteps=1", device="cpu") as lab:
        with pytest.raises(ConfigError, match="layer sensitivities need the whole of tiny_sd3"):
            measure_sensitivities(lab, "transformer", SensitivityConfig(samples=1), {})
        assert lab.measure(Int4Spec()).snr_db > 10


def test_sensitivities_that_the_cache_holds_are_read_on_any_card(request):
    changes = ("evaluation.prompts=1", "evaluation.timesteps=1")
    schemes = SensitivityConfig(samples=1, llm_int8_threshold=[0], bnb_4bit_quant_type=[])
    with Lab.open("tiny_sd3", *changes, device="cpu") as lab:
        known = measure_sensitivities(lab, "transformer", schemes, {"model": "one that fits"})
    assert known.wall_s > 0
    request.getfixturevalue("too_small")
    config = compose("run", ["model=tiny_sd3", *changes])
    with Lab(config.model, config.evaluation, Device.cpu, needs_sensitivities=True) as lab:
        again = measure_sensitivities(lab, "transformer", schemes, {"model": "one that fits"})
        assert again.table.equals(known.table)
        assert again.wall_s == 0
        with pytest.raises(ConfigError, match="layer sensitivities need the whole of tiny_sd3"):
            measure_sensitivities(lab, "transformer", schemes, {"model": "another"})


@pytest.mark.parametrize(
    ("wanted", "streamed"), [(Placement.auto, False), (Placement.resident, False), (Placement.stream, True)]
)
def test_on_a_cpu_no_size_is_asked_for(wanted, streamed):
    plan = decide(None, LabConfig(placement=wanted), CPU)
    assert plan.placement == Decided(streamed, "configured" if streamed else "host")
    assert plan.sensitivities_fit


@pytest.mark.parametrize(
    ("name", "card_gb", "streamed"),
    [("flux_dev", 24, True), ("flux_dev", 80, False), ("sd3", 24, False), ("sd35_large", 24, True)],
)
def test_known_models_on_known_cards(monkeypatch, name, card_gb, streamed):
    memory = DeviceMemory("a card", card_gb * GB, int(0.98 * card_gb * GB))
    monkeypatch.setattr(placement, "device_memory", lambda device: memory)
    source = open_source(model(name, "model.weights=random"))
    assert decide(source, LabConfig(), CARD).placement.streamed is streamed


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("weights", list(Weights))
def test_sizes_are_what_the_loaded_component_holds(weights, dtype):
    wanted = model("tiny_sd3", f"model.weights={weights.value}", f"model.dtype={dtype}")
    random = weights is Weights.random
    component = random_component(wanted, CPU) if random else load_component(wanted, "transformer", None, CPU)
    layers = linear_layers(component).values()
    sizes = open_source(wanted).sizes("transformer")
    assert sizes.linear_weights == sum(layer.weight.numel() for layer in layers)
    assert sizes.linear_bytes == sum(layer.weight.nbytes for layer in layers)
    assert sizes.whole_bytes == weight_bytes([component])


def test_sizes_of_another_architecture_are_what_it_holds():
    wanted = model("flux_dev", "model.weights=random")
    small = {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
    config = {**wanted.architecture.config, **small, "axes_dims_rope": [4, 4, 8], "joint_attention_dim": 32}
    wanted = dataclasses.replace(wanted, architecture=dataclasses.replace(wanted.architecture, config=config))
    assert open_source(wanted).sizes("transformer").whole_bytes == weight_bytes([random_component(wanted, CPU)])


def test_splitting_moves_all_but_the_weights_of_the_layers():
    component = random_component(model("tiny_sd3", "model.weights=random"), CPU)
    component.pos_embed.register_buffer("none", None)
    layers = linear_layers(component)
    before = {name: tensor.data_ptr() for name, tensor in component.named_parameters()}
    moved = torch.float64  # stands for a device, which `to` takes as well: the CPU is the only one that every test has
    split(component, layers.values(), moved)
    weights = {f"{path}.weight" for path in layers}
    tensors = {**dict(component.named_parameters()), **dict(component.named_buffers())}
    assert {name for name, tensor in tensors.items() if tensor.dtype is not moved} == weights
    assert {f"{path}.bias" for path in layers} & set(tensors)
    assert all(tensors[name].data_ptr() == before[name] for name in weights)
