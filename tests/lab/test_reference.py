"""What the reference gave is kept; it is made again only where something that it depends on has changed."""

import shutil

import numpy as np
import pytest
import torch

from quantlab import Int8Spec, Lab, ReferenceSpec
from quantlab.lab import probes
from quantlab.lab import reference as references
from quantlab.lab.provenance import provenance
from quantlab.models.load import load_pipeline, text_encoders

CPU = torch.device("cpu")
QUICK = ("score.prompts=1", "score.timesteps=1", "score.images=1", "model.call.num_inference_steps=2")
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

    def without_encoders(model, component=None, without=()):
        assert set(without) == set(ENCODERS)
        return load_pipeline(model, component, without)

    monkeypatch.setattr(probes, "record", fail)
    monkeypatch.setattr(references, "load_pipeline", without_encoders)


@pytest.fixture
def recording_only(monkeypatch):
    """A lab that would record stops there."""

    def stop(*args):
        raise RecordedError

    monkeypatch.setattr(references.Reference, "_record", stop)


def encoders(lab):
    return [getattr(lab._reference._pipeline, name) for name in ENCODERS]


def entry(folder):
    (file,) = (folder / "probes").glob("*.safetensors")
    return file


def test_a_second_lab_records_nothing_and_loads_no_text_encoder(recorded, known, nothing_recorded):
    _, first, row = recorded
    with open_lab() as lab:
        assert lab._reference._pipeline is None
        assert lab.probe_set.fingerprint == first.probe_set.fingerprint
        assert torch.equal(lab.probe_set.images[0], first.probe_set.images[0])
        assert lab.measure(Int8Spec()).output_sha256 == row.output_sha256
        with lab._reference.called(lab.model.prompts[0]) as call:
            call(lab.model.prompts[0], 5, "latent")
        assert encoders(lab) == [None] * 3


@pytest.mark.parametrize("warmup", ["score.warmup=3", "score.warmup=null"])
def test_warm_up_is_no_part_of_what_is_recorded(known, nothing_recorded, warmup):
    with open_lab(warmup):
        pass


@pytest.mark.parametrize(
    "change",
    [
        "model.prompts=[a blue square on grey]",
        "model.call.num_inference_steps=3",
        "model.call.guidance_scale=4.0",
        "+model.call.height=64",
        "model.dtype=float32",
        "score.seed=1",
        "score.prompts=2",
        "score.timesteps=2",
        "score.images=0",
    ],
)
def test_a_change_of_what_is_recorded_makes_another_entry(known, recording_only, change):
    with pytest.raises(RecordedError):
        open_lab(change)
    assert entry(known).exists()


@pytest.mark.parametrize("change", ["versions", "device", "threads"])
def test_other_libraries_or_another_device_make_another_entry(known, recording_only, monkeypatch, change):
    plain = provenance(CPU)
    assert change in plain
    monkeypatch.setattr("quantlab.lab.lab.provenance", lambda device: {**plain, change: "another"})
    with pytest.raises(RecordedError):
        open_lab()


def test_other_weights_make_another_entry(known, recording_only, monkeypatch):
    monkeypatch.setattr(references, "model_fingerprint", lambda model: "another")
    with pytest.raises(RecordedError):
        open_lab()


def test_prompts_that_are_not_used_are_no_part_of_the_entry(known, nothing_recorded):
    with open_lab("model.prompts=[a red circle left of a blue square on grey, another]"):
        pass


@pytest.mark.parametrize("damage", [lambda data: data[:-50], lambda data: b"", lambda data: data[:-1] + b"\x55"])
def test_a_damaged_entry_is_recorded_anew(recorded, known, monkeypatch, damage):
    times = []
    monkeypatch.setattr(references.Reference, "_record", lambda self: times.append(1) or recorded[1].probe_set)
    whole = entry(known).read_bytes()
    entry(known).write_bytes(damage(whole))
    assert entry(known).read_bytes() != whole
    for _ in range(2):
        with open_lab() as lab:
            assert lab.probe_set.fingerprint == recorded[1].probe_set.fingerprint
    assert len(times) == 1


def test_the_study_s_own_file_is_a_copy_of_the_entry(known, nothing_recorded, tmp_path):
    file = tmp_path / "probes.safetensors"
    with open_lab() as lab:
        model, score = lab.model, lab.score
    with Lab(model, score, probes=file):
        pass
    assert file.read_bytes() == entry(known).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_the_study_s_own_file_goes_before_the_cache(recorded, known, nothing_recorded, tmp_path):
    file = tmp_path / "probes.safetensors"
    (probe,) = recorded[1].probe_set.probes
    other = probes.Probe(probe.prompt, probe.step, probe.timestep, probe.inputs, -probe.output)
    probes.save(probes.ProbeSet((other,), probes._fingerprint([other])), file)
    before = file.read_bytes()
    with open_lab() as lab:
        model, score = lab.model, lab.score
    with Lab(model, score, probes=file) as lab:
        assert torch.equal(lab.probe_set.probes[0].output, -probe.output)
        assert lab.probe_set.fingerprint != recorded[1].probe_set.fingerprint
        assert lab.measure(ReferenceSpec()).cosine == pytest.approx(-1)
    assert file.read_bytes() == before


def test_text_encoders_leave_the_pipeline_once_its_prompts_are_embedded(recorded):
    lab = recorded[1]
    assert text_encoders(lab.model) == ENCODERS
    assert encoders(lab) == [None] * 3
    assert lab._reference._pipeline.vae is not None
    assert lab._reference._pipeline.transformer is lab.component


def test_the_reference_s_drawings_come_from_the_probe_set_and_equal_fresh_ones_bit_for_bit(recorded, monkeypatch):
    lab = recorded[1]
    prompt, seed = lab.model.prompts[0], lab.score.seed
    lab.assemble(Int8Spec())
    fresh = lab._draw(ReferenceSpec(), prompt, seed)
    drawn = []
    monkeypatch.setattr(lab, "_draw", lambda *args: drawn.append(args))
    assert np.array_equal(np.asarray(lab.draw(ReferenceSpec(), prompt, seed)), np.asarray(fresh))
    assert drawn == []
    others = [(ReferenceSpec(), prompt, seed + 1), (Int8Spec(), prompt, seed), (ReferenceSpec(), OWN, seed)]
    for other in others:
        lab.draw(*other)
    assert drawn == others


def test_a_prompt_that_was_never_embedded_is_drawn_as_the_pipeline_alone_draws_it(known, monkeypatch):
    with open_lab() as lab:
        image = lab.draw(ReferenceSpec(), OWN, seed=7)
        plain = load_pipeline(lab.model)(OWN, generator=torch.Generator("cpu").manual_seed(7), **lab.model.call)
        assert np.array_equal(np.asarray(image), np.asarray(plain.images[0]))
        assert encoders(lab) == [None] * 3
        monkeypatch.setattr(references, "load_pipeline", lambda *args: pytest.fail("loaded again"))
        with lab._reference.called(OWN):
            pass
