"""Full generations: what a pipeline gives as images, frames or audio."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from quantlab.errors import NonFiniteOutputError
from quantlab.metrics.results import Audio, Result, pictured
from quantlab.pipelines.call import Caller

Image8 = np.ndarray[Any, np.dtype[np.uint8]]

_CHANNELS = (1, 3, 4)
"""Last size of an image: grey, colours, colours with transparency."""


def to_8_bit(image: Any) -> Image8:
    """Values from 0 to 1 as 8-bit integers, three channels: height x width x 3, with the frames before them.

    Raises:
        NonFiniteOutputError: where it holds NaN or infinity.
    """
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise NonFiniteOutputError("the image holds NaN or infinity")
    values = np.repeat(values, 3, axis=-1) if values.shape[-1] == 1 else values[..., :3]
    return (values * 255).round().clip(0, 255).astype(np.uint8)


def result_of(output: Any, rate: int | None) -> Result | None:
    """What the first element of a pipeline's output shows; None where that is no image, frames or audio.

    Args:
        output: an image or a list of frames, as values from 0 to 1 with the channels last or of PIL, or audio: a number
            a sample, or a few channels of them.
        rate: samples a second of audio; None where it can be none.

    Raises:
        NonFiniteOutputError: where it holds NaN or infinity.
    """
    values = _values(output)
    if values is None:
        return None
    if values.ndim in (3, 4) and values.shape[-1] in _CHANNELS and min(values.shape[-3:-1]) > 1:
        return pictured(to_8_bit(values))
    if rate is not None and values.ndim in (1, 2):
        if not np.isfinite(values).all():
            raise NonFiniteOutputError("the audio holds NaN or infinity")
        return Audio(np.asarray(np.atleast_2d(values), np.float32), rate)
    return None


def reference_result(output: Any, rate: int | None) -> Result | None:
    """The same of the reference; one that is not finite is black or silent, so that it scores nothing."""
    try:
        return result_of(output, rate)
    except NonFiniteOutputError:
        return result_of(np.zeros(np.shape(output)), rate)


def sampling_rate(pipeline: Any) -> int | None:
    """Samples a second of the audio that a pipeline gives, by its vocoder or autoencoder; None where it gives none."""
    for name in ("vocoder", "vae"):
        part = getattr(pipeline, name, None)
        for place in (part, getattr(part, "config", None)):
            if rate := getattr(place, "sampling_rate", None):
                return int(rate)
    return None


def _values(output: Any) -> Any:
    """Numbers of an output; None for anything else."""
    if isinstance(output, Image.Image):
        return np.asarray(output.convert("RGB")) / 255
    if isinstance(output, list) and output and isinstance(output[0], Image.Image):
        return np.stack([_values(frame) for frame in output])
    if isinstance(output, torch.Tensor):
        return output.detach().float().cpu().numpy()
    return output if isinstance(output, np.ndarray) and output.dtype.kind == "f" else None


def generated(
    call: Caller, requests: Sequence[tuple[str, int]], on_progress: Callable[[int, int], None]
) -> list[Result]:
    """What a pipeline shows for prompts and seeds, one a call; nothing where it has nothing to show."""
    results: list[Result] = []
    for prompt, seed in requests:
        result = result_of(call(prompt, seed, "np")[0], sampling_rate(call.pipeline))
        if result is None:
            return []
        results.append(result)
        on_progress(len(results), len(requests))
    return results


@contextlib.contextmanager
def decoding_in_float32(pipeline: Any, device: torch.device) -> Iterator[None]:
    """Inside, a 16-bit decoder on a CPU decodes in float32.

    CPUs have no fast 16-bit convolutions: an image of the embedded pipeline takes 2.3 s in float16 and 0.03 s in
    float32, and no pixel differs by more than 1 of 255. The reference's images are decoded the same way. The decoder is
    whatever model of the pipeline has a method ``decode``; between decodings its weights are its own. Where a vocoder
    goes on with what is decoded, it has to have its own dtype.
    """
    parts = [] if device.type != "cpu" or "vocoder" in pipeline.components else pipeline.components.values()
    decoders = [part for part in parts if isinstance(part, nn.Module) and callable(getattr(part, "decode", None))]
    with contextlib.ExitStack() as stack:
        for decoder in decoders:
            stack.enter_context(_in_float32(decoder))
        yield


@contextlib.contextmanager
def _in_float32(decoder: Any) -> Iterator[None]:
    decode = decoder.decode

    def decode_in_float32(*args: Any, **kwargs: Any) -> Any:
        tensors = [*decoder.parameters(), *decoder.buffers()]
        stored = [tensor.data for tensor in tensors]
        try:
            for tensor in tensors:
                tensor.data = _float32(tensor.data)
            return decode(*map(_float32, args), **{name: _float32(value) for name, value in kwargs.items()})
        finally:
            for tensor, data in zip(tensors, stored, strict=True):
                tensor.data = data

    decoder.decode = decode_in_float32
    try:
        yield
    finally:
        del decoder.decode


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
