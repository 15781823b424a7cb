"""The winner is measured on prompts that the sample set does not hold."""

import contextlib

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.errors import ConfigError
from quantlab.lab import samples

QUICK = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0", "model.call.num_inference_steps=2")


def open_lab(*overrides):
    return Lab.open("tiny_sd3", *QUICK, *overrides, device="cpu")


def test_held_out_samples_are_of_the_next_prompts_and_of_the_same_steps(lab):
    seen, unseen = lab.measure(Int8Spec()), lab.evaluate_held_out(Int8Spec())
    assert {sample.prompt for sample in seen.samples} == {0, 1}
    assert {sample.prompt for sample in unseen.samples} == {2}
    assert {sample.step for sample in unseen.samples} == {sample.step for sample in seen.samples}
    assert unseen.snr_db == pytest.approx(seen.snr_db, abs=4)
    assert unseen.snr_db != seen.snr_db
    assert lab.evaluate_held_out(ReferenceSpec()).snr_db == 100


def test_what_the_search_measures_is_the_same_before_and_after(lab):
    before = lab.measure(Int4Spec("nf4"))
    lab.evaluate_held_out(Int4Spec("nf4"))
    assert lab.measure(Int4Spec("nf4")).output_sha256 == before.output_sha256


def test_a_held_out_run_is_the_pipelines_own_with_the_next_seed(lab):
    component = lab.assemble(ReferenceSpec())["transformer"]
    own, given = [], []
    with watched(component, own), lab.reference.called(lab.model.prompts[2]) as call:
        call(lab.model.prompts[2], lab.evaluation.seed + 2, "latent")
    lab.evaluate_held_out(ReferenceSpec())
    with watched(component, given):
        rows = lab.evaluate_held_out(ReferenceSpec()).samples
    for sample, inputs in zip(rows, given[1:], strict=True):  # after the warm-up
        assert torch.equal(inputs["hidden_states"], own[sample.step]["hidden_states"])


@contextlib.contextmanager
def watched(component, seen):
    handle = component.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def test_they_are_recorded_once_and_kept_beside_the_sample_set(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    with open_lab("evaluation.held_out=2") as lab:
        assert len(list((tmp_path / "samples").glob("*.safetensors"))) == 1  # only once they are asked for
        first = lab.evaluate_held_out(Int8Spec())
    monkeypatch.setattr(samples, "record", None)
    with open_lab("evaluation.held_out=2") as lab:
        assert lab.evaluate_held_out(Int8Spec()).output_sha256 == first.output_sha256
        assert len(first.samples) == 2


def test_a_streamed_reference_gives_the_same_held_out_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "one"))
    with open_lab() as lab:
        resident = lab.evaluate_held_out(Int8Spec())
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "two"))
    with open_lab("lab.placement=stream") as lab:
        before = lab.measure(Int8Spec())
        assert lab.evaluate_held_out(Int8Spec()).output_sha256 == resident.output_sha256
        assert lab.measure(Int8Spec()).output_sha256 == before.output_sha256


@pytest.mark.parametrize("change", ["evaluation.held_out=0", "evaluation.prompts=8"])
def test_confirming_without_a_held_out_prompt_names_the_fields(change):
    with open_lab(change, "model.call.num_inference_steps=1") as lab, pytest.raises(ConfigError) as error:
        lab.evaluate_held_out(Int8Spec())
    assert "evaluation.held_out=" in str(error.value)
    assert "evaluation.prompts=" in str(error.value)


def test_random_weights_are_not_confirmed():
    with open_lab("model.weights=random") as lab, pytest.raises(ConfigError, match="the weights are random"):
        lab.evaluate_held_out(Int8Spec())


def test_fewer_than_no_held_out_prompts_are_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.held_out=-1 must be at least 0"):
        open_lab("evaluation.held_out=-1")


def test_more_images_than_prompts_go_round_with_new_seeds():
    few = ("model.prompts=[a red circle left of a blue square on grey]", "evaluation.images=2")
    with open_lab(*few) as lab:
        one, two = lab.sample_set.images
        assert one.tobytes() != two.tobytes()
        assert [image.tobytes() for image in lab.generate(ReferenceSpec())] == [one.tobytes(), two.tobytes()]
