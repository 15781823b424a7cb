"""Full generations: decoded latents as 8-bit images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from quantlab.errors import ConfigError, NonFiniteOutputError
from quantlab.pipelines.call import Caller

Image8 = np.ndarray[Any, np.dtype[np.uint8]]


def to_8_bit(image: Any) -> Image8:
    """An image with values from 0 to 1, height x width x channels, as 8-bit integers.

    Raises:
        ConfigError: for what is no image, such as a video.
        NonFiniteOutputError: where it holds NaN or infinity.
    """
    values = np.asarray(image)
    if values.ndim != 3:
        raise ConfigError(
            f"the pipeline generates no image but an array of shape {values.shape}; set evaluation.images=0"
        )
    if not np.isfinite(values).all():
        raise NonFiniteOutputError("the image holds NaN or infinity")
    return (values * 255).round().clip(0, 255).astype(np.uint8)


def reference_to_8_bit(image: Any) -> Image8:
    """The same of a reference image; one that is not finite is black, so that it scores nothing."""
    try:
        return to_8_bit(image)
    except NonFiniteOutputError:
        return np.zeros(np.shape(image), np.uint8)


def generated(
    call: Caller, requests: Sequence[tuple[str, int]], on_progress: Callable[[int, int], None]
) -> list[Image.Image]:
    """The images of prompts and seeds, one a call."""
    images = []
    for prompt, seed in requests:
        images.append(Image.fromarray(to_8_bit(call(prompt, seed, "np")[0])))
        on_progress(len(images), len(requests))
    return images


@contextlib.contextmanager
def decoding_in_float32(parts: list[nn.Module], device: torch.device) -> Iterator[None]:
    """Inside, a 16-bit decoder on a CPU decodes in float32.

    CPUs have no fast 16-bit convolutions: an image of the embedded pipeline takes 2.3 s in float16 and 0.03 s in
    float32, and no pixel differs by more than 1 of 255. The reference's images are decoded the same way. The decoder is
    whatever part of the pipeline has a method ``decode``; between decodings its weights are its own.
    """
    decoders = [part for part in parts if device.type == "cpu" and callable(getattr(part, "decode", None))]
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
