"""The reference against itself: figures, what is loaded for them, and what is said where they cannot be had."""

import gc
import weakref

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from quantlab import Int8Spec, Lab
from quantlab.lab import measure_noise_floor
from quantlab.lab.noise_floor import cast
from quantlab.outcomes.noise_floor import BFLOAT16, FLOAT32, RUN_TWICE
from quantlab.pipelines import checkpoint
from quantlab.tiny_sd3 import pipeline_folder

QUICK = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0", "model.call.num_inference_steps=2")


@pytest.fixture
def loaded(monkeypatch):
    """Dtypes that the component is loaded in, with a weak reference to each."""
    found = []
    load = checkpoint.load_component

    def watched(model, *args):
        component = load(model, *args)
        found.append((model.dtype.value, weakref.ref(component)))
        return component

    monkeypatch.setattr(checkpoint, "load_component", watched)
    return found


def test_a_float16_reference_equals_itself_and_is_nearer_to_float32_than_bfloat16_is(one_sample_lab, loaded):
    before = one_sample_lab.measure(Int8Spec())
    noise_floor = measure_noise_floor(one_sample_lab)
    assert noise_floor.snr_db[RUN_TWICE] == 100
    assert 45 < noise_floor.floor_db == noise_floor.snr_db[FLOAT32] < 75
    assert 30 < noise_floor.snr_db[BFLOAT16] < noise_floor.snr_db[FLOAT32] - 10
    assert noise_floor.reasons == {}
    assert [dtype for dtype, _ in loaded] == ["float32", "bfloat16"]
    gc.collect()
    assert [component() for _, component in loaded] == [None, None]
    assert one_sample_lab.measure(Int8Spec()).output_sha256 == before.output_sha256


def test_the_models_own_dtype_is_not_loaded_again(loaded):
    with Lab.open("tiny_sd3", *QUICK, "model.dtype=float32", device="cpu") as lab:
        loaded.clear()  # the lab's own reference
        noise_floor = measure_noise_floor(lab)
    assert noise_floor.snr_db[FLOAT32] == noise_floor.snr_db[RUN_TWICE] == noise_floor.floor_db == 100
    assert noise_floor.snr_db[BFLOAT16] < 50
    assert [dtype for dtype, _ in loaded] == ["bfloat16"]


def test_running_out_of_memory_is_a_reason_and_the_lab_is_whole_after_it(one_sample_lab, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB. GPU 0 has ...")

    before = one_sample_lab.measure(Int8Spec())
    monkeypatch.setattr(checkpoint, "load_component", fail)
    noise_floor = measure_noise_floor(one_sample_lab)
    assert noise_floor.snr_db[RUN_TWICE] == noise_floor.floor_db == 100
    assert (noise_floor.snr_db[FLOAT32], noise_floor.snr_db[BFLOAT16]) == (None, None)
    assert set(noise_floor.reasons) == {"float32", "bfloat16"}
    assert noise_floor.reasons["float32"] == "out_of_memory"
    assert one_sample_lab.measure(Int8Spec()).output_sha256 == before.output_sha256


def test_a_dtype_that_overflows_is_a_reason(one_sample_lab, monkeypatch):
    load = checkpoint.load_component

    def broken(*args):
        component = load(*args)
        component.proj_out.weight.data.fill_(float("nan"))
        return component

    monkeypatch.setattr(checkpoint, "load_component", broken)
    assert measure_noise_floor(one_sample_lab).reasons == {
        "float32": "non_finite_output",
        "bfloat16": "non_finite_output",
    }


def test_a_streamed_reference_is_run_again_and_not_loaded_beside_itself(loaded):
    with Lab.open("tiny_sd3", *QUICK, "lab.placement=stream", device="cpu") as lab:
        loaded.clear()
        noise_floor = measure_noise_floor(lab)
    assert noise_floor.snr_db[RUN_TWICE] == 100
    assert noise_floor.reasons == {"float32": "streamed", "bfloat16": "streamed"}
    assert loaded == []


def test_random_weights_have_no_noise_floor(loaded):
    with Lab.open("tiny_sd3", *QUICK, "model.weights=random", device="cpu") as lab:
        noise_floor = measure_noise_floor(lab)
    assert noise_floor.floor_db is None
    assert noise_floor.reasons == dict.fromkeys((RUN_TWICE, FLOAT32, BFLOAT16), "random_weights")
    assert loaded == []


def test_a_loaded_pipeline_is_run_again_and_not_loaded(loaded):
    pipe = StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float16)
    with Lab.open(pipe, *QUICK, device="cpu") as lab:
        noise_floor = measure_noise_floor(lab)
    assert noise_floor.snr_db[RUN_TWICE] == 100
    assert noise_floor.reasons == {"float32": "loaded_pipeline", "bfloat16": "loaded_pipeline"}
    assert loaded == []


def test_casting_changes_floating_tensors_at_any_depth_and_nothing_else():
    inputs = {"x": torch.ones(2, dtype=torch.float16), "ids": torch.arange(3), "more": [{"y": torch.ones(1)}, 3, None]}
    found = cast(inputs, torch.bfloat16)
    assert found["x"].dtype == found["more"][0]["y"].dtype == torch.bfloat16
    assert found["ids"].dtype == torch.int64
    assert found["more"][1:] == [3, None]
    assert inputs["x"].dtype == torch.float16
