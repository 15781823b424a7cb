"""A file that was damaged is answered in one line that names it, or is made again; nothing that is whole is lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import sensitivities
from faults.rules import answered, nothing_half_written
from typed import Quantlab

from quantlab.spec import Int8Spec
from quantlab.study.sensitivities import save, sensitivity_path

Damage = Callable[[bytes, random.Random], bytes | None]

DAMAGES: dict[str, Damage] = {
    "cut": lambda data, chance: data[: chance.randrange(max(len(data), 1))],
    "flipped": lambda data, chance: _flipped(data, chance.randrange(len(data))),
    "empty": lambda data, chance: b"",
    "gone": lambda data, chance: None,
    "noise": lambda data, chance: chance.randbytes(200),
    "deep": lambda data, chance: b"[" * 100_000,
    **{text: (lambda data, chance, text=text: text.encode()) for text in ("[]", "{}", '"text"', "3", "null", "{")},
}
"""What a file becomes; None for one that is removed."""

STUDY = {
    "journal.log": ("export", "trial=1"),
    "config.yaml": ("export", "trial=1"),
    "winner/export.json": ("verify",),
    "winner/quantization_config.json": ("verify",),
    "samples.safetensors": ("verify",),
    "sensitivity-transformer.parquet": ("export", "trial=1"),
}
"""A study's files, each with a command that reads it."""

MODEL = (
    *("model_index.json", "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"),
    *("scheduler/scheduler_config.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
    *("text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"),
    *("tokenizer/tokenizer_config.json", "tokenizer_3/tokenizer.json"),
)
"""A model's files, of each kind."""

RUN = ("run", "model=tiny_sd3", "quant=nf4", "evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.warmup=1")


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def damage(file: Path, kind: str, seed: int) -> None:
    data = DAMAGES[kind](file.read_bytes(), random.Random(f"{file.name} {kind} {seed}"))
    file.unlink()
    if data is not None:
        file.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def try_study(quantlab: Quantlab, study: Path, file: str, kind: str, seed: int = 0) -> None:
    """Damage a copy of a study, and see that a command that reads it is answered and changes none of its files."""
    copy = shutil.copytree(study, Path("results") / study.name)
    damage(copy / file, kind, seed)
    before = contents(copy)
    command, *options = STUDY[file]
    answered(quantlab(command, f"study={study.name}", *options), 1)
    nothing_half_written(copy)
    after = contents(copy)
    assert {name: after.get(name) for name in before} == before
    shutil.rmtree(copy)


def try_model(quantlab: Quantlab, model: Path, file: str, kind: str, seed: int = 0) -> None:
    """Damage a copy of a model, and see that measuring a setting of it is answered and leaves the copy as it is."""
    copy = shutil.copytree(model, Path("model"))
    damage(copy / file, kind, seed)
    before = contents(copy)
    answered(quantlab(*RUN, f"model.path={copy}", "model.call.num_inference_steps=2"))
    assert contents(copy) == before
    shutil.rmtree(copy)


@pytest.fixture(scope="module")
def whole_study(small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with layer sensitivities."""
    copy = shutil.copytree(small_study, tmp_path_factory.mktemp("whole") / "small")
    save(sensitivities({Int8Spec(): [1.0, 4.0]}, [100, 200]), sensitivity_path(copy, "transformer"))
    return copy


@pytest.mark.parametrize("kind", ["cut", "gone", "deep", "[]"])
def test_a_damaged_study_is_answered(kind: str, quantlab: Quantlab, whole_study: Path) -> None:
    for file in ("journal.log", "config.yaml", "sensitivity-transformer.parquet"):
        try_study(quantlab, whole_study, file, kind)


@pytest.mark.parametrize(
    "kind", ["cut", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("flipped", "noise", "empty", "[]"))]
)
def test_a_damaged_cache_is_made_again(
    kind: str, quantlab: Quantlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: what could be made again, but is read where it is there."""
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    run = (*RUN, "model.call.num_inference_steps=2", "evaluation.images=0")
    whole = quantlab(*run)
    answered(whole)
    kept = sorted(file for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert len(kept) > 1
    for seed, file in enumerate(kept):
        damage(file, kind, seed)
    again = quantlab(*run)
    answered(again)
    before, after = ([line for line in one.out.splitlines() if "SNR" in line] for one in (whole, again))
    assert before == after != []
    nothing_half_written(tmp_path)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        *(("winner/export.json", kind) for kind in ("[]", "gone")),
        *(("winner/quantization_config.json", kind) for kind in ("{", "noise")),
        *(("samples.safetensors", kind) for kind in ("cut", "flipped")),
    ],
)
def test_a_damaged_export_or_sample_set_is_answered(
    file: str, kind: str, quantlab: Quantlab, whole_study: Path
) -> None:
    try_study(quantlab, whole_study, file, kind)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        *(("model_index.json", "[]"), ("transformer/config.json", "cut"), ("scheduler/scheduler_config.json", "gone")),
        *(("transformer/diffusion_pytorch_model.safetensors", "cut"), ("text_encoder/model.safetensors", "gone")),
        ("tokenizer/tokenizer.json", "[]"),
    ],
)
def test_a_damaged_model_is_answered(file: str, kind: str, quantlab: Quantlab, random_sd3: Path) -> None:
    try_model(quantlab, random_sd3, file, kind)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("file", [*STUDY, *MODEL])
def test_a_file_that_is_damaged_in_many_places_is_answered(
    file: str, kind: str, quantlab: Quantlab, whole_study: Path, random_sd3: Path
) -> None:
    for seed in range(8 if kind in ("cut", "flipped", "noise") else 1):
        if file in STUDY:
            try_study(quantlab, whole_study, file, kind, seed)
        else:
            try_model(quantlab, random_sd3, file, kind, seed)
