"""What the reference gave is kept; it is made again only where something that it depends on has changed."""

import contextlib
import dataclasses
import shutil

import numpy as np
import pytest
import torch

from quantlab import Int8Spec, Lab, ReferenceSpec
from quantlab.config.prompts import image_requests
from quantlab.errors import OutOfMemoryError as QuantlabOutOfMemoryError
from quantlab.lab import opening, samples
from quantlab.lab.images import generated
from quantlab.lab.provenance import provenance
from quantlab.pipelines import checkpoint
from quantlab.pipelines.load import load_pipeline, text_encoders

CPU = torch.device("cpu")
QUICK = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=1", "model.call.num_inference_steps=2")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
OWN = "a green square above a red circle on white"


def open_lab(*overrides):
    return Lab.open("tiny_sd3", *QUICK, *overrides, device="cpu")


class RecordedError(Exception):
    pass


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A cache folder in which one lab has recorded, the lab, and a row of it."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTLAB_CACHE", str(folder))
        with open_lab() as lab:
            yield folder, lab, lab.measure(Int8Spec())


@pytest.fixture
def known(recorded, monkeypatch, tmp_path):
    """A copy of that folder as the cache."""
    folder = tmp_path / "cache"
    shutil.copytree(recorded[0], folder)
    monkeypatch.setenv("QUANTLAB_CACHE", str(folder))
    return folder


@pytest.fixture
def nothing_recorded(monkeypatch):
    """Recording is an error, and so is loading a pipeline with text encoders."""

    def fail(*args, **kwargs):
        raise RecordedError

    def without_encoders(model, components=None, without=()):
        assert set(without) == set(ENCODERS)
        return load_pipeline(model, components, without)

    monkeypatch.setattr(samples, "record", fail)
    monkeypatch.setattr(checkpoint, "load_pipeline", without_encoders)


@pytest.fixture
def recording_only(monkeypatch):
    """A lab that would record stops there."""

    def stop(*args):
        raise RecordedError

    monkeypatch.setattr(samples, "record", stop)


def pipeline(lab, *prompts):
    """The pipeline around the component, ready for the prompts."""
    with lab.reference.called(*prompts) as call:
        return call.pipeline


def encoders(lab):
    return [getattr(pipeline(lab), name) for name in ENCODERS]


def entry(folder):
    (file,) = (folder / "samples").glob("*.safetensors")
    return file


def test_a_second_lab_records_nothing_and_loads_no_text_encoder(recorded, known, nothing_recorded):
    _, first, row = recorded
    with open_lab() as lab:
        assert lab.sample_set.fingerprint == first.sample_set.fingerprint
        assert lab.sample_set.images[0].tobytes() == first.sample_set.images[0].tobytes()
        assert lab.measure(Int8Spec()).output_sha256 == row.output_sha256
        with lab.reference.called(lab.model.prompts[0]) as call:
            call(lab.model.prompts[0], 5, "latent")
        assert encoders(lab) == [None] * 3


@pytest.mark.parametrize("warmup", ["evaluation.warmup=3", "evaluation.warmup=null"])
def test_warm_up_is_no_part_of_what_is_recorded(known, nothing_recorded, warmup):
    with open_lab(warmup):
        pass


@pytest.mark.parametrize(
    "change",
    [
        "model.prompts=[a blue square on grey]",
        "model.call.guidance_scale=4.0",
        "model.dtype=float32",
        "evaluation.timesteps=2",
        "evaluation.images=0",
        pytest.param("model.call.num_inference_steps=3", marks=pytest.mark.long),
        pytest.param("+model.call.height=64", marks=pytest.mark.long),
        pytest.param("evaluation.seed=1", marks=pytest.mark.long),
        pytest.param("evaluation.prompts=2", marks=pytest.mark.long),
    ],
)
def test_a_change_of_what_is_recorded_makes_another_entry(known, recording_only, change):
    with pytest.raises(RecordedError):
        open_lab(change)
    assert entry(known).exists()


@pytest.mark.parametrize(
    "change", ["versions", *(pytest.param(one, marks=pytest.mark.long) for one in ("device", "threads"))]
)
def test_other_libraries_or_another_device_make_another_entry(known, recording_only, monkeypatch, change):
    plain = provenance(CPU)
    assert change in plain
    monkeypatch.setattr(opening, "provenance", lambda device: {**plain, change: "another"})
    with pytest.raises(RecordedError):
        open_lab()


def test_other_weights_make_another_entry(known, recording_only, monkeypatch):
    monkeypatch.setattr(checkpoint, "folder_fingerprint", lambda folder, variant: "another")
    with pytest.raises(RecordedError):
        open_lab()


def test_prompts_that_are_not_used_are_no_part_of_the_entry(known, nothing_recorded):
    with open_lab("model.prompts=[a red circle left of a blue square on grey, another]"):
        pass


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-50],
        lambda data: data[:-1] + b"\x55",
        pytest.param(lambda data: b"", marks=pytest.mark.long),
    ],
)
def test_a_damaged_entry_is_recorded_anew(recorded, known, monkeypatch, damage):
    times = []
    monkeypatch.setattr(samples, "record", lambda *args: times.append(1) or recorded[1].sample_set)
    whole = entry(known).read_bytes()
    entry(known).write_bytes(damage(whole))
    assert entry(known).read_bytes() != whole
    for _ in range(2):
        with open_lab() as lab:
            assert lab.sample_set.fingerprint == recorded[1].sample_set.fingerprint
    assert len(times) == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), NameError("a bug")])
def test_an_entry_that_memory_or_a_bug_keeps_from_being_read_stays(known, nothing_recorded, monkeypatch, error):
    def fail(*args):
        raise error

    whole = entry(known).read_bytes()
    monkeypatch.setattr(samples.tensors, "load", fail)
    with pytest.raises((QuantlabOutOfMemoryError, NameError), match=str(error)):
        open_lab()
    assert entry(known).read_bytes() == whole


def test_the_study_s_own_file_is_a_copy_of_the_entry(known, nothing_recorded, tmp_path):
    file = tmp_path / "samples.safetensors"
    with open_lab() as lab:
        model, evaluation = lab.model, lab.evaluation
    with Lab(model, evaluation, samples_file=file):
        pass
    assert file.read_bytes() == entry(known).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_the_study_s_own_file_goes_before_the_cache(recorded, known, nothing_recorded, tmp_path):
    file = tmp_path / "samples.safetensors"
    (sample,) = recorded[1].sample_set.samples
    other = dataclasses.replace(sample, output=tuple(-tensor for tensor in sample.output))
    samples.save(samples.sample_set([other], reference_ms={"transformer": 1.0}), file)
    before = file.read_bytes()
    with open_lab() as lab:
        model, evaluation = lab.model, lab.evaluation
    with Lab(model, evaluation, samples_file=file) as lab:
        assert torch.equal(lab.sample_set.samples[0].output[0], -sample.output[0])
        assert lab.sample_set.fingerprint != recorded[1].sample_set.fingerprint
        assert lab.measure(ReferenceSpec()).cosine == pytest.approx(-1)
    assert file.read_bytes() == before


def test_text_encoders_leave_the_pipeline_once_its_prompts_are_embedded(recorded):
    lab = recorded[1]
    assert text_encoders(lab.model) == ENCODERS
    assert encoders(lab) == [None] * 3
    assert pipeline(lab).vae is not None
    assert pipeline(lab).transformer is lab.layer_caches["transformer"].component


def test_the_reference_s_images_come_from_the_sample_set_and_equal_fresh_ones_bit_for_bit(recorded):
    lab = recorded[1]
    lab.assemble(Int8Spec())
    seen = []
    with counted_forwards(lab, seen):
        known = lab.generate(ReferenceSpec())
    assert seen == []
    ((prompt, seed),) = image_requests(lab.model, lab.evaluation)
    lab.assemble(ReferenceSpec())
    with counted_forwards(lab, seen), lab.reference.called(prompt) as call:
        (fresh,) = generated(call, [(prompt, seed)], lambda done, total: None)
    assert len(seen) == lab.model.call["num_inference_steps"]
    assert np.array_equal(np.asarray(known[0]), np.asarray(fresh))
    with counted_forwards(lab, seen):
        assert not np.array_equal(np.asarray(lab.generate(Int8Spec())[0]), np.asarray(fresh))
    assert len(seen) == 2 * lab.model.call["num_inference_steps"]


@contextlib.contextmanager
def counted_forwards(lab, seen):
    component = lab.layer_caches["transformer"].component
    handle = component.register_forward_pre_hook(lambda module, args: seen.append(1))
    try:
        yield
    finally:
        handle.remove()


def test_a_prompt_that_was_never_embedded_is_generated_as_the_pipeline_alone_does_it(known, monkeypatch):
    """The pipeline alone decodes in float16, quantlab on a CPU in float32: no value differs by more than 1 of 255."""
    with open_lab() as lab:
        with lab.reference.called(OWN) as call:
            (image,) = generated(call, [(OWN, 7)], lambda done, total: None)
            latents = call(OWN, 7, "latent")
        alone, generator = load_pipeline(lab.model), torch.Generator("cpu").manual_seed(7)
        plain = alone(OWN, generator=generator, **lab.model.call).images[0]
        difference = np.asarray(image).astype(int) - np.asarray(plain)
        assert np.abs(difference).max() <= 1
        generator = torch.Generator("cpu").manual_seed(7)
        assert torch.equal(latents, alone(OWN, generator=generator, output_type="latent", **lab.model.call).images)
        assert encoders(lab) == [None] * 3
        monkeypatch.setattr(checkpoint, "load_pipeline", lambda *args: pytest.fail("loaded again"))
        with lab.reference.called(OWN):
            pass


def test_a_decoder_is_its_own_again_after_it_decoded_in_float32(recorded):
    lab = recorded[1]
    lab.generate(Int8Spec())
    vae = pipeline(lab).vae
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float16}
    assert "decode" not in vars(vae)
