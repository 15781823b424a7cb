"""The reference against itself: figures, what is loaded for them, and what is said where they cannot be had."""

import gc
import weakref

import pytest
import torch

from quantlab import Int8Spec, Lab
from quantlab.lab import floor as floors
from quantlab.lab.floor import STREAMED, cast
from quantlab.measurement import MEANINGLESS

QUICK = ("score.prompts=1", "score.timesteps=1", "score.images=0", "model.call.num_inference_steps=2")


@pytest.fixture
def loaded(monkeypatch):
    """Dtypes that the component is loaded in, with a weak reference to each."""
    found = []
    load = floors.load_component

    def watched(model, *args):
        component = load(model, *args)
        found.append((model.dtype.value, weakref.ref(component)))
        return component

    monkeypatch.setattr(floors, "load_component", watched)
    return found


def test_a_float16_reference_equals_itself_and_is_nearer_to_float32_than_bfloat16_is(lab, loaded):
    before = lab.measure(Int8Spec())
    floor = lab.noise_floor()
    assert floor.run_twice_db == 100
    assert 45 < floor.floor_db == floor.float32_db < 75
    assert 30 < floor.bfloat16_db < floor.float32_db - 10
    assert floor.reasons == {}
    assert [dtype for dtype, _ in loaded] == ["float32", "bfloat16"]
    gc.collect()
    assert [component() for _, component in loaded] == [None, None]
    assert lab.measure(Int8Spec()).output_sha256 == before.output_sha256


def test_the_models_own_dtype_is_not_loaded_again(loaded):
    with Lab.open("tiny_sd3", *QUICK, "model.dtype=float32", device="cpu") as lab:
        floor = lab.noise_floor()
    assert floor.float32_db == floor.run_twice_db == floor.floor_db == 100
    assert floor.bfloat16_db < 50
    assert [dtype for dtype, _ in loaded] == ["bfloat16"]


def test_running_out_of_memory_is_a_reason_and_the_lab_is_whole_after_it(lab, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB. GPU 0 has ...")

    before = lab.measure(Int8Spec())
    monkeypatch.setattr(floors, "load_component", fail)
    floor = lab.noise_floor()
    assert floor.run_twice_db == floor.floor_db == 100
    assert (floor.float32_db, floor.bfloat16_db) == (None, None)
    assert set(floor.reasons) == {"float32", "bfloat16"}
    assert floor.reasons["float32"].startswith("out of memory: CUDA out of memory. Tried to allocate 8 GiB;")
    assert lab.measure(Int8Spec()).output_sha256 == before.output_sha256


def test_a_dtype_that_overflows_is_a_reason(lab, monkeypatch):
    load = floors.load_component

    def broken(*args):
        component = load(*args)
        component.proj_out.weight.data.fill_(float("nan"))
        return component

    monkeypatch.setattr(floors, "load_component", broken)
    assert "NaN or infinity" in lab.noise_floor().reasons["bfloat16"]


def test_a_streamed_reference_is_run_again_and_not_loaded_beside_itself(loaded):
    with Lab.open("tiny_sd3", *QUICK, "lab.residency=stream", device="cpu") as lab:
        floor = lab.noise_floor()
    assert floor.run_twice_db == 100
    assert floor.reasons == {"float32": STREAMED, "bfloat16": STREAMED}
    assert loaded == []


def test_random_weights_have_no_floor(loaded):
    with Lab.open("tiny_sd3", *QUICK, "model.weights=random", device="cpu") as lab:
        floor = lab.noise_floor()
    assert floor.floor_db is None
    assert floor.reasons == dict.fromkeys(floor.figures, MEANINGLESS)
    assert loaded == []


def test_casting_changes_floating_tensors_at_any_depth_and_nothing_else():
    inputs = {"x": torch.ones(2, dtype=torch.float16), "ids": torch.arange(3), "more": [{"y": torch.ones(1)}, 3, None]}
    found = cast(inputs, torch.bfloat16)
    assert found["x"].dtype == found["more"][0]["y"].dtype == torch.bfloat16
    assert found["ids"].dtype == torch.int64
    assert found["more"][1:] == [3, None]
    assert inputs["x"].dtype == torch.float16
