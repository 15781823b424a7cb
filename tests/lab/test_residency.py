import dataclasses

import pytest
import torch

from quantlab import Int4Spec, Lab
from quantlab.compose import compose
from quantlab.config import Device, LabConfig, ProfileConfig, Residency, Weights
from quantlab.errors import ConfigError, OutOfMemoryError
from quantlab.lab import reference, residency
from quantlab.lab.memory import DeviceMemory, held_bytes
from quantlab.lab.residency import ACTIVATIONS, Plan, Sizes, component_sizes, decide, split
from quantlab.lab.skip import linear_layers
from quantlab.models.load import component_class, load_component
from quantlab.models.random import random_component

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
GB = 10**9
SMALL = Sizes(linear_weights=4 * GB, largest_bytes=0, linear_bytes=8 * GB, other_bytes=2 * GB)
"""10 GB of weights, 4 GB more for int8; with nf4 and double quantization at least 4.06 GB."""

RESIDENT = 10 * GB + 4 * GB + ACTIVATIONS


def model(name, *overrides):
    return compose("run", [f"model={name}", *overrides]).model


@pytest.fixture
def planned(monkeypatch):
    """Decides for 10 GB of weights on a card with so much free."""

    def plan(free, wanted=Residency.auto, others=""):
        monkeypatch.setattr(residency, "component_sizes", lambda model, cls: SMALL)
        monkeypatch.setattr(
            residency, "device_memory", lambda device: DeviceMemory("a card", 100 * GB, int(free), others)
        )
        return decide(model("tiny_sd3"), object, LabConfig(residency=wanted), CARD)

    return plan


def test_auto_keeps_the_weights_on_a_card_that_holds_them_with_int8_and_activations(planned):
    plan = planned(RESIDENT)
    assert not plan.streamed
    assert plan.reason == (
        "resident: 10.0 GB of weights, 4.0 GB for their int8 form and 2.1 GB for activations are no more than the "
        "16.1 GB free of 100.0 GB"
    )


def test_auto_streams_to_a_card_that_is_one_byte_too_small(planned):
    plan = planned(RESIDENT - 1)
    assert plan.streamed
    assert plan.reason == (
        "stream: 10.0 GB of weights, 4.0 GB for their int8 form and 2.1 GB for activations are more than the "
        "16.1 GB free of 100.0 GB"
    )


@pytest.mark.parametrize(("wanted", "streamed"), [(Residency.resident, False), (Residency.stream, True)])
@pytest.mark.parametrize("free", [12 * GB, 50 * GB])
def test_what_is_asked_for_is_done_and_said_with_the_sizes(planned, free, wanted, streamed):
    plan = planned(free, wanted)
    assert plan.streamed is streamed
    assert plan.reason == f"{wanted.value}: as asked; 10.0 GB of weights, {free / GB:.1f} GB free of 100.0 GB"


@pytest.mark.parametrize("wanted", list(Residency))
def test_a_card_too_small_for_any_setting_is_an_error_with_what_is_needed_and_what_there_is(planned, wanted):
    with pytest.raises(OutOfMemoryError) as error:
        planned(4 * GB, wanted, " (3.5 GB are held outside this process' tensors)")
    assert str(error.value) == (
        "tiny_sd3.transformer needs at least 4.1 GB (nf4 with double quantization, without activations), and a card "
        "has 4.0 GB free of 100.0 GB (3.5 GB are held outside this process' tensors)"
    )


def test_a_card_for_the_smallest_setting_alone_is_streamed_to(planned):
    assert planned(4.1 * GB).streamed


def test_resident_on_a_card_too_small_for_the_weights_is_an_error_that_names_the_field(planned):
    with pytest.raises(ConfigError) as error:
        planned(10 * GB - 1, Residency.resident)
    message = str(error.value)
    assert "lab.residency='resident' needs 10.0 GB for tiny_sd3.transformer in float16" in message
    assert "a card has 10.0 GB free of 100.0 GB" in message
    assert "choose auto or stream" in message
    assert not planned(10 * GB, Residency.resident).streamed


@pytest.mark.parametrize("wanted", [Residency.auto, Residency.stream])
def test_a_card_too_small_for_the_unquantized_component_has_no_profile_and_says_why(planned, wanted):
    told = planned(10 * GB - 1, wanted).no_profile
    assert told.startswith(
        "a profile needs the whole of tiny_sd3.transformer unquantized on the device: 10.0 GB and a layer beside it, "
        "and a card has 10.0 GB free of 100.0 GB; profile on a larger card, or sweep without a profile"
    )
    assert planned(10 * GB, wanted).streamed  # its int8 form does not fit beside it, but one layer's does
    assert planned(10 * GB, wanted).no_profile is None
    assert planned(100 * GB, wanted).no_profile is None


@pytest.fixture
def too_small(monkeypatch):
    """Every device is streamed to and too small for a profile."""
    plan = Plan(True, "stream: as the card is too small", "a profile needs a larger card")
    monkeypatch.setattr(reference, "decide", lambda *args: plan)


def test_a_profile_that_cannot_be_is_refused_before_anything_is_loaded(too_small, monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(reference, "load_component", lambda *args: pytest.fail("loaded"))
    config = compose("run", ["model=tiny_sd3", "score=quick"])
    with pytest.raises(ConfigError, match="a profile needs a larger card"):
        Lab(config.model, config.score, Device.cpu, profiled=True)


def test_a_lab_on_a_card_too_small_for_a_profile_measures_and_refuses_the_profile_alone(too_small):
    with Lab.open("tiny_sd3", "score.prompts=1", "score.timesteps=1", device="cpu") as lab:
        with pytest.raises(ConfigError, match="a profile needs a larger card"):
            lab.profile(ProfileConfig(probes=1), {})
        assert lab.measure(Int4Spec()).snr_db > 10


def test_a_profile_that_the_cache_holds_is_read_on_any_card(monkeypatch):
    changes = ("score.prompts=1", "score.timesteps=1")
    forms = ProfileConfig(probes=1, llm_int8_threshold=[0], bnb_4bit_quant_type=[])
    with Lab.open("tiny_sd3", *changes, device="cpu") as lab:
        known = lab.profile(forms, {"model": "one that fits"})
    plan = Plan(False, "resident: as it was", "a profile needs a larger card")
    monkeypatch.setattr(reference, "decide", lambda *args: plan)
    config = compose("run", ["model=tiny_sd3", *changes])
    with Lab(config.model, config.score, Device.cpu, profiled=True) as lab:
        assert lab.profile(forms, {"model": "one that fits"}).table.equals(known.table)
        with pytest.raises(ConfigError, match="a profile needs a larger card"):
            lab.profile(forms, {"model": "another"})


@pytest.mark.parametrize(
    ("wanted", "streamed"), [(Residency.auto, False), (Residency.resident, False), (Residency.stream, True)]
)
def test_on_a_cpu_no_size_is_asked_for(monkeypatch, wanted, streamed):
    monkeypatch.setattr(residency, "component_sizes", lambda *args: pytest.fail("asked"))
    assert decide(model("tiny_sd3"), object, LabConfig(residency=wanted), CPU).streamed is streamed


@pytest.mark.parametrize(
    ("name", "card_gb", "streamed"),
    [("flux_dev", 24, True), ("flux_dev", 80, False), ("sd3", 24, False), ("sd35_large", 24, True)],
)
def test_known_models_on_known_cards(monkeypatch, name, card_gb, streamed):
    memory = DeviceMemory("a card", card_gb * GB, int(0.98 * card_gb * GB))
    monkeypatch.setattr(residency, "device_memory", lambda device: memory)
    wanted = model(name, "model.weights=random")
    assert decide(wanted, component_class(wanted), LabConfig(), CARD).streamed is streamed


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("weights", list(Weights))
def test_sizes_are_what_the_loaded_component_holds(weights, dtype):
    wanted = model("tiny_sd3", f"model.weights={weights.value}", f"model.dtype={dtype}")
    cls = component_class(wanted)
    random = weights is Weights.random
    component = random_component(wanted, CPU) if random else load_component(wanted, cls, None, CPU)
    layers = linear_layers(component).values()
    sizes = component_sizes(wanted, cls)
    assert sizes.linear_weights == sum(layer.weight.numel() for layer in layers)
    assert sizes.linear_bytes == sum(layer.weight.nbytes for layer in layers)
    assert sizes.linear_bytes + sizes.other_bytes == held_bytes(component)


def test_sizes_of_another_architecture_are_what_it_holds():
    wanted = model("flux_dev", "model.weights=random")
    small = {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
    config = {**wanted.architecture.config, **small, "axes_dims_rope": [4, 4, 8], "joint_attention_dim": 32}
    wanted = dataclasses.replace(wanted, architecture=dataclasses.replace(wanted.architecture, config=config))
    sizes = component_sizes(wanted, component_class(wanted))
    assert sizes.linear_bytes + sizes.other_bytes == held_bytes(random_component(wanted, CPU))


def test_splitting_moves_all_but_the_weights_of_the_layers():
    component = random_component(model("tiny_sd3", "model.weights=random"), CPU)
    component.pos_embed.register_buffer("none", None)
    layers = linear_layers(component)
    before = {name: tensor.data_ptr() for name, tensor in component.named_parameters()}
    moved = torch.float64  # stands for a device, which `to` takes as well: the CPU is the only one that every test has
    split(component, layers, moved)
    weights = {f"{path}.weight" for path in layers}
    tensors = {**dict(component.named_parameters()), **dict(component.named_buffers())}
    assert {name for name, tensor in tensors.items() if tensor.dtype is not moved} == weights
    assert {f"{path}.bias" for path in layers} & set(tensors)
    assert all(tensors[name].data_ptr() == before[name] for name in weights)
