"""On CUDA, models of every kind are measured as ``from_pretrained`` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from zoo import EXHIBITS
from zoo.measured import measured

from quantlab.config import Device

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
    pytest.mark.filterwarnings("ignore"),  # of libraries, about models that are this small
]

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "video": ("ltx", {}),
    "two-stage video": ("wan_two_stage", {"components": ["transformer", "transformer_2"]}),
    "audio": ("stable_audio", {}),
    "lists of tensors": ("z_image", {}),
    "UNet": ("sdxl", {}),
    "text encoder": ("sd3", {"components": ["text_encoder_3"]}),
    "language model": ("llama", {}),
    "tied weights": ("qwen2_tied", {}),
    "Conv1D": ("gpt2", {}),
    "encoder-decoder": ("t5", {}),
    "speech": ("whisper", {}),
    "vision": ("vit", {}),
    "vision and text": ("clip", {}),
}
"""Exhibits, with the components where they are not the usual ones."""


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_any_kind_is_measured_as_from_pretrained_runs_it(kind: str, tmp_path: Path) -> None:
    name, fields = MODELS[kind]
    found = measured(EXHIBITS[name], tmp_path / name, Device.cuda, **fields)
    for setting in (found.int8, found.nf4):
        assert setting.equal, setting.error
