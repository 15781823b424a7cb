"""Gives the embedded pipeline the outlier channels that large models have, without changing what it computes.

A few channels of each adaptive layer norm's output are multiplied by a factor, and the input columns that read them are
divided by it. The float output stays; the activations that a quantized layer sees do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from quantlab.files import cache_folder

CHANNELS = (7, 38, 69, 100)
FACTOR = 32.0

_WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"


def add_outliers(
    weights: dict[str, torch.Tensor], channels: tuple[int, ...] = CHANNELS, factor: float = FACTOR
) -> None:
    """Rescale the weights of an SD3 transformer in place.

    Args:
        weights: its state dict; the attention and feed-forward inputs of every block's image stream are rescaled.
        channels: indices of the channels that become outliers.
        factor: how much larger they become.
    """
    columns = list(channels)
    for name in [n for n in weights if re.fullmatch(r"transformer_blocks\.\d+\.norm1\.linear\.weight", n)]:
        block = name.removesuffix("norm1.linear.weight")
        width = weights[f"{block}attn.to_q.weight"].shape[1]
        # AdaLN-Zero's six outputs are shift, scale and gate of the attention, then of the feed-forward
        for shift in (0, 3 * width):
            scale = shift + width
            for start in (shift, scale):
                rows = [start + c for c in columns]
                weights[name][rows] *= factor
                weights[f"{block}norm1.linear.bias"][rows] *= factor
            weights[f"{block}norm1.linear.bias"][[scale + c for c in columns]] += factor - 1
        for reader in ("attn.to_q", "attn.to_k", "attn.to_v", "ff.net.0.proj"):
            weights[f"{block}{reader}.weight"][:, columns] /= factor


def outliers_folder(original: Path) -> Path:
    """The rescaled copy of a pipeline's folder, made once in the cache folder (``QUANTLAB_CACHE``).

    Raises:
        ModelError: where the cache folder cannot be written.
    """
    recipe = hashlib.sha256(repr((CHANNELS, FACTOR)).encode() + (original / _WEIGHTS).read_bytes()).hexdigest()[:12]
    cache = cache_folder()
    folder = cache / f"tiny_sd3_outliers-{recipe}"
    if folder.is_dir():
        return folder
    scratch = Path(tempfile.mkdtemp(dir=cache))
    copy = scratch / "pipeline"
    shutil.copytree(original, copy)
    weights = load_file(copy / _WEIGHTS)
    add_outliers(weights)
    save_file(weights, copy / _WEIGHTS, metadata={"format": "pt"})
    with contextlib.suppress(OSError):  # another process may have been first
        copy.rename(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    return folder
