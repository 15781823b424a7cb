"""Every exhibit can be made, saved, loaded by the class that its folder names, and run on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from zoo import EXHIBITS, Exhibit
from zoo.inputs import PROMPT, run_model, run_pipeline

QUICK = ("flux", "ddpm", "bert")
MOST_BYTES = 8_000_000


def arrays(result: Any) -> Iterator[np.ndarray]:
    """The numbers in a result, whatever holds them."""
    if isinstance(result, (list, tuple)):
        for part in result:
            yield from arrays(part)
    elif isinstance(result, torch.Tensor):
        yield result.float().numpy()
    else:
        yield np.asarray(result, dtype=np.float32)


def check(exhibit: Exhibit, folder: Path) -> None:
    exhibit.make(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*")) < MOST_BYTES
    numbers = list(arrays((run_pipeline if exhibit.is_pipeline else run_model)(exhibit, folder)))
    assert numbers
    for array in numbers:
        assert array.size
        assert np.isfinite(array).all()
    if exhibit.is_pipeline:
        same, other = (list(arrays(run_pipeline(exhibit, folder, prompt))) for prompt in (PROMPT, "storm at sea"))
        assert equal(numbers, same)
        assert equal(numbers, other) == (not exhibit.has_prompt)


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", QUICK)
def test_a_representative_exhibit_is_made_loaded_and_run(name, tmp_path):
    check(EXHIBITS[name], tmp_path / name)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of diffusers and transformers, one kind for each family
@pytest.mark.parametrize("name", EXHIBITS)
def test_every_exhibit_is_made_loaded_and_run(name, tmp_path):
    check(EXHIBITS[name], tmp_path / name)


def test_the_same_exhibit_is_made_with_the_same_weights(tmp_path):
    for copy in ("first", "second"):
        EXHIBITS["bert"].make(tmp_path / copy)
    first, second = ((tmp_path / copy / "model.safetensors").read_bytes() for copy in ("first", "second"))
    assert first == second


def test_the_zoo_has_many_families():
    models = [exhibit for exhibit in EXHIBITS.values() if not exhibit.is_pipeline]
    pipelines = [exhibit for exhibit in EXHIBITS.values() if exhibit.is_pipeline]
    assert len(models) >= 9
    assert len(pipelines) >= 32
    assert len({exhibit.family for exhibit in pipelines}) >= 24
