"""Values for the further arguments of a call, by the words that exhibits use."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image
from zoo.exhibit import Exhibit

PROMPT = "a red circle above a blue square"


def image(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def value(word: str, width: int = 32, height: int = 32) -> Any:
    """A value of the kind that `word` names: "image", "mask", "video 5" (images), "tensor 1 4 8 8" (shape) and others.

    Args:
        word: the kind, and sizes where it has them.
        width: of images, in pixels.
        height: of images, in pixels.
    """
    kind, *rest = word.split()
    shape = [int(size) for size in rest if size.isdigit()]
    match kind:
        case "image":
            return image(width, height)
        case "mask":
            half = np.zeros((height, width), dtype=np.uint8)
            half[: height // 2] = 255
            return Image.fromarray(half)
        case "video":
            return [image(width, height, seed) for seed in range(shape[0])]
        case "text":
            return PROMPT if not rest else f"<image> {PROMPT}"
        case "audio":
            return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        case "tokens":
            return torch.randint(2, 100, shape, generator=torch.Generator().manual_seed(0))
        case "tensor":
            return torch.randn(shape, generator=torch.Generator().manual_seed(0))
    raise KeyError(word)


def arguments(exhibit: Exhibit, prompt: str = PROMPT) -> dict[str, Any]:
    """Everything that a call of the exhibit takes, but for the generator."""
    given: dict[str, Any] = {"prompt": prompt} if exhibit.has_prompt else {}
    width, height = exhibit.call.get("width", 32), exhibit.call.get("height", 32)
    return given | exhibit.call | {name: value(word, width, height) for name, word in exhibit.inputs.items()}


def run_pipeline(exhibit: Exhibit, folder: Path, prompt: str = PROMPT) -> Any:
    """The result of the pipeline in the folder, loaded by the class that its index names."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    named = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    assert type(pipeline).__name__ == named
    pipeline.set_progress_bar_config(disable=True)
    given = arguments(exhibit, prompt)
    if "generator" in inspect.signature(pipeline.__call__).parameters:
        given["generator"] = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # some pipelines draw from torch's own generator, whatever they are given
    result = pipeline(**given)
    return result[0] if isinstance(result, (tuple, diffusers.utils.BaseOutput)) else result


@torch.no_grad()
def run_model(exhibit: Exhibit, folder: Path) -> Any:
    """The first output of the model in the folder, loaded by the class that its configuration names."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    given = {name: value(word) for name, word in exhibit.inputs.items()}
    if "audio" in given:
        given = {"audio": given["audio"], "sampling_rate": 16000}
    inputs = processor(**given, return_tensors="pt")
    return model(**inputs, **{name: torch.tensor(value) for name, value in exhibit.call.items()})[0]
