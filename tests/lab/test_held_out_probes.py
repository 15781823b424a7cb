"""The winner is measured on prompts that the probe set does not hold."""

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.errors import ConfigError, MeasurementError
from quantlab.lab import reference as references

QUICK = ("score.prompts=1", "score.timesteps=1", "score.images=0", "model.call.num_inference_steps=2")


def open_lab(*overrides):
    return Lab.open("tiny_sd3", *QUICK, *overrides, device="cpu")


def test_held_out_probes_are_of_the_next_prompts_and_of_the_same_steps(lab):
    seen, unseen = lab.measure(Int8Spec()), lab.confirm(Int8Spec())
    assert {probe["prompt"] for probe in seen.probes} == {0, 1}
    assert {probe["prompt"] for probe in unseen.probes} == {2}
    assert {probe["step"] for probe in unseen.probes} == {probe["step"] for probe in seen.probes}
    assert unseen.snr_db == pytest.approx(seen.snr_db, abs=4)
    assert unseen.snr_db != seen.snr_db
    assert lab.confirm(ReferenceSpec()).snr_db == 100


def test_what_the_search_measures_is_the_same_before_and_after(lab):
    before = lab.measure(Int4Spec("nf4"))
    lab.confirm(Int4Spec("nf4"))
    assert lab.measure(Int4Spec("nf4")).output_sha256 == before.output_sha256


def test_a_held_out_run_is_the_pipelines_own_with_the_next_seed(lab):
    lab.confirm(ReferenceSpec())
    lab.assemble(ReferenceSpec())
    seen = []
    handle = lab.component.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    try:
        with lab._reference.called(lab.model.prompts[2]) as call:
            call(lab.model.prompts[2], lab.score.seed + 2, "latent")
    finally:
        handle.remove()
    for probe in lab._held_out.probes:
        assert torch.equal(probe.inputs["hidden_states"], seen[probe.step]["hidden_states"])


def test_they_are_recorded_once_and_kept_beside_the_probe_set(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    with open_lab("score.held_out=2") as lab:
        assert len(list((tmp_path / "probes").glob("*.safetensors"))) == 1  # only once they are asked for
        first = lab.confirm(Int8Spec())
    monkeypatch.setattr(references.probe_sets, "record", None)
    with open_lab("score.held_out=2") as lab:
        assert lab.confirm(Int8Spec()).output_sha256 == first.output_sha256
        assert len(first.probes) == 2


def test_a_streamed_reference_gives_the_same_held_out_probes(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "one"))
    with open_lab() as lab:
        resident = lab.confirm(Int8Spec())
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "two"))
    with open_lab("lab.residency=stream") as lab:
        before = lab.measure(Int8Spec())
        assert lab.confirm(Int8Spec()).output_sha256 == resident.output_sha256
        assert lab.measure(Int8Spec()).output_sha256 == before.output_sha256


@pytest.mark.parametrize("change", ["score.held_out=0", "score.prompts=8"])
def test_confirming_without_a_held_out_prompt_names_the_fields(change):
    with open_lab(change, "model.call.num_inference_steps=1") as lab, pytest.raises(ConfigError) as error:
        lab.confirm(Int8Spec())
    assert "score.held_out=" in str(error.value)
    assert "score.prompts=" in str(error.value)


def test_random_weights_are_not_confirmed():
    with open_lab("model.weights=random") as lab, pytest.raises(MeasurementError, match="not meaningful"):
        lab.confirm(Int8Spec())


def test_fewer_than_no_held_out_prompts_are_refused():
    with pytest.raises(ConfigError, match=r"score\.held_out=-1 must be at least 0"):
        open_lab("score.held_out=-1")


def test_more_drawings_than_prompts_go_round_with_new_seeds():
    few = ("model.prompts=[a red circle left of a blue square on grey]", "score.images=2")
    with open_lab(*few) as lab:
        one, two = lab.probe_set.images
        assert not torch.equal(one, two)
        drawn = lab.draw(ReferenceSpec(), lab.model.prompts[0], lab.score.seed + 1)
        assert torch.equal(torch.frombuffer(bytearray(drawn.tobytes()), dtype=torch.uint8), two.flatten())
