"""What a pipeline is given for an example: its prompt, and whatever else its ``__call__`` takes.

``model.inputs`` has a value for each example, or one for all: text and numbers as they are, files of images, frames,
audio and arrays, and the names of test inputs that are drawn here.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from quantlab.arrays import Array
from quantlab.config import ModelConfig
from quantlab.errors import ConfigError

SIDE = 512
"""Pixels of a drawn input's side, where neither ``model.call`` nor the pipeline has a height and width."""

RATE = 16_000
"""Samples a second of drawn audio."""

FRAMES = 9
"""Of a drawn video, where ``model.call`` has no num_frames."""

STEPS = "num_inference_steps"
"""What pipelines call the number of denoising steps."""

IMAGE, MASK, VIDEO, AUDIO = "image", "mask", "video", "audio"
"""Names of what is drawn."""

WANTED = {
    **dict.fromkeys(("image", "control_image", "source_image", "reference_image"), IMAGE),
    **dict.fromkeys(("mask_image", "mask"), MASK),
    **dict.fromkeys(("video", "source_video"), VIDEO),
    **dict.fromkeys(("audio", "src_audio"), AUDIO),
}
"""Arguments that a pipeline may ask for beside a prompt, each with what is drawn for it where nothing is given."""


def example(model: ModelConfig, pipeline: Any, prompt: str, seed: int) -> dict[str, Any]:
    """The arguments of one example's call that are its own.

    Args:
        model: whose inputs these are.
        pipeline: that takes them; its signature says what it takes of a prompt and of what has to be drawn.
        prompt: of the example.
        seed: of the example; it takes the entry of that number of each list in ``model.inputs``, round and round.

    Raises:
        ConfigError: for a file that cannot be read.
    """
    given = {"prompt": prompt} if "prompt" in parameters(pipeline) else {}
    wanted = {**drawn_for(model, pipeline), **model.inputs}
    return {**given, **{name: _value(model, pipeline, name, _of(value, seed)) for name, value in wanted.items()}}


def parameters(pipeline: Any) -> Mapping[str, inspect.Parameter]:
    """What the ``__call__`` of a pipeline, or of a class of them, takes, by name."""
    cls = pipeline if isinstance(pipeline, type) else type(pipeline)
    return inspect.signature(cls.__call__).parameters


def assumed(model: ModelConfig, cls: type) -> dict[str, Any]:
    """What a pipeline's call has that nobody gave: its own number of steps, and what is drawn."""
    steps = parameters(cls).get(STEPS)
    own = {} if steps is None or STEPS in model.call or steps.default is steps.empty else {STEPS: steps.default}
    return own | drawn_for(model, cls)


def drawn_for(model: ModelConfig, pipeline: Any) -> dict[str, str]:
    """Arguments that a pipeline needs and nobody gives, each with the name of what is drawn for it."""
    given = {*model.inputs, *model.call}
    if isinstance(needs := getattr(pipeline, "needs", None), tuple):  # a transformers model knows them
        return {name: WANTED[name] for name in needs if name not in given}
    return {
        name: WANTED[name]
        for name, parameter in parameters(pipeline).items()
        if name in WANTED and name not in given and not _is_optional(parameter)
    }


def _is_optional(parameter: inspect.Parameter) -> bool:
    return any(word in str(parameter.annotation) for word in ("None", "Optional"))


def digest(model: ModelConfig) -> str:
    """Of everything in ``model.inputs``, the content of files included; empty where there is nothing."""
    if not model.inputs:
        return ""
    sha = hashlib.sha256(json.dumps(model.inputs, sort_keys=True, default=str).encode())
    for value in model.inputs.values():
        for entry in value if isinstance(value, list) else [value]:
            if (
                isinstance(entry, str)
                and (file := Path(entry).expanduser()).suffix.lower() in _READERS
                and file.is_file()
            ):
                sha.update(file.read_bytes())
    return sha.hexdigest()


def _of(value: Any, seed: int) -> Any:
    return value[seed % len(value)] if isinstance(value, list) and value else value


def _value(model: ModelConfig, pipeline: Any, name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if name in WANTED and value in _DRAWN:
        return _DRAWN[value]({**_own_size(pipeline), **model.call})
    file = Path(value).expanduser()
    if file.suffix.lower() not in _READERS:
        if name in WANTED:
            names = ", ".join(_DRAWN)
            raise ConfigError(f"model.inputs.{name}={value!r} is no file of a known kind; give one, or of {names}")
        return value
    try:
        return _READERS[file.suffix.lower()](file)
    except (OSError, ValueError, EOFError, wave.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"model.inputs.{name}={value!r} cannot be read: {why}") from None


def _own_size(pipeline: Any) -> dict[str, int]:
    """Width and height in pixels of what a pipeline generates by itself, where its denoiser says so."""
    parts = [getattr(pipeline, name, None) for name in ("unet", "transformer")]
    sizes = [getattr(getattr(part, "config", None), "sample_size", None) for part in parts]
    side = next((size for size in sizes if isinstance(size, int)), 0) * int(getattr(pipeline, "vae_scale_factor", 1))
    return {"width": side, "height": side} if side else {}


def _size(call: Mapping[str, Any]) -> tuple[int, int]:
    return int(call.get("width") or SIDE), int(call.get("height") or SIDE)


@functools.lru_cache(maxsize=8)
def _scene(width: int, height: int, shift: float = 0.0) -> Image.Image:
    """A lit ball over a ground with stripes: smooth and sharp parts, all colours."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    sky = np.stack([0.4 + 0.3 * y, 0.6 + 0.2 * x, 0.9 - 0.3 * y], -1)
    stripes = (np.floor(12 * (x + shift)) % 2)[..., None]
    ground = stripes * [0.75, 0.55, 0.3] + (1 - stripes) * [0.3, 0.45, 0.2]
    scene = np.where((y > 0.62 * height / max(width, height))[..., None], ground, sky)
    across, down = x - 0.5 * width / max(width, height) - shift, y - 0.45 * height / max(width, height)
    inside = np.maximum(0.0, 1 - (across**2 + down**2) / 0.05)
    light = np.clip(0.25 + np.sqrt(inside) - across - down, 0, 1)[..., None] * [0.95, 0.2, 0.15]
    scene = np.where((inside > 0)[..., None], light, scene)
    return Image.fromarray((255 * np.clip(scene, 0, 1)).round().astype(np.uint8))


def _drawn_image(call: Mapping[str, Any]) -> Image.Image:
    return _scene(*_size(call))


def _drawn_mask(call: Mapping[str, Any]) -> Image.Image:
    """White, to be painted anew, in the middle."""
    width, height = _size(call)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    return Image.fromarray(mask)


def _drawn_video(call: Mapping[str, Any]) -> list[Image.Image]:
    """The scene, its ball moving."""
    count = int(call.get("num_frames") or FRAMES)
    return [_scene(*_size(call), shift=0.2 * index / count) for index in range(count)]


def _drawn_audio(call: Mapping[str, Any]) -> Array:
    """Two seconds of a chord that fades."""
    t = np.arange(2 * RATE) / RATE
    return np.asarray(sum(np.sin(2 * np.pi * hertz * t) for hertz in (220, 277, 330)) * np.exp(-t) / 4, np.float32)


_DRAWN: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    IMAGE: _drawn_image,
    MASK: _drawn_mask,
    VIDEO: _drawn_video,
    AUDIO: _drawn_audio,
}


def _read_image(file: Path) -> Any:
    """An image, or the list of a moving one's frames."""
    with Image.open(file) as image:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    return frames if len(frames) > 1 else frames[0]


def _read_audio(file: Path) -> Array:
    """Samples from -1 to 1, channels mixed."""
    with wave.open(str(file)) as stream:
        width, channels = stream.getsampwidth(), stream.getnchannels()
        if width != 2:
            raise ValueError(f"it has {8 * width} bits a sample; give 16")
        samples = np.frombuffer(stream.readframes(stream.getnframes()), np.int16).reshape(-1, channels)
    return np.asarray(samples.mean(1) / 2**15, np.float32)


def _read_array(file: Path) -> Any:
    import torch

    return torch.from_numpy(np.load(file, allow_pickle=False))


_READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".apng"), _read_image),
    ".wav": _read_audio,
    ".npy": _read_array,
}
