"""What a pipeline has to show: an image, frames, audio. Each is kept in a file of its kind.

An image and frames are a `PIL.Image.Image`; frames are one that has several (``n_frames``), kept as an animated PNG.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageSequence

from quantlab.arrays import Array


@dataclass(frozen=True, eq=False)
class Audio:
    """Sound.

    Attributes:
        samples: channels x samples, from -1 to 1.
        rate: samples a second.
    """

    samples: Array
    rate: int


Result: TypeAlias = Image.Image | Audio
"""What is shown, saved and scored."""

IMAGE_SUFFIX, AUDIO_SUFFIX = ".png", ".wav"

_BANDS = 80
"""Bands of a mel spectrogram."""

FRAME_MS = 125
"""How long a frame is shown."""


def pictured(values: Any) -> Image.Image:
    """8-bit values as an image (height x width x 3) or as frames (frames x height x width x 3)."""
    if values.ndim == 3:
        return Image.fromarray(values)
    return Image.open(io.BytesIO(_png([Image.fromarray(frame) for frame in values])))


def frames(image: Image.Image) -> list[Image.Image]:
    """The frames of an image, in RGB; an image that stands still is one."""
    found = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    image.seek(0)
    return found


def _png(images: Sequence[Image.Image]) -> bytes:
    """The content of a PNG file, an animated one for several frames."""
    stream, (first, *rest) = io.BytesIO(), images
    if rest:  # frames that differ in how they are blended stay apart, also where they are equal
        blend = [index % 2 for index in range(len(images))]
        first.save(stream, format="PNG", save_all=True, append_images=rest, duration=FRAME_MS, loop=0, blend=blend)
    else:
        first.save(stream, format="PNG")
    return stream.getvalue()


def to_file(result: Result) -> tuple[bytes, str]:
    """The content of a result's file, and the suffix of its name."""
    stream = io.BytesIO()
    if isinstance(result, Audio):
        with wave.open(stream, "wb") as sound:
            sound.setnchannels(len(result.samples))
            sound.setsampwidth(2)
            sound.setframerate(result.rate)
            sound.writeframes(
                (result.samples.T * (2**15 - 1)).round().clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()
            )
        return stream.getvalue(), AUDIO_SUFFIX
    return _png(frames(result) if getattr(result, "n_frames", 1) > 1 else [result]), IMAGE_SUFFIX


def read_audio(content: bytes) -> Audio:
    """What `to_file` wrote of audio, rounded to 16 bits."""
    with wave.open(io.BytesIO(content)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, sound.getnchannels())
        return Audio(np.asarray(samples.T / 2**15, np.float32), sound.getframerate())


def log_mel_distance(audio: Audio, reference: Audio) -> float:
    """Mean absolute difference in dB of two log-mel spectrograms with 80 bands of windows of 1024 samples.

    Both are cut off 80 dB below the reference's maximum, so that silence does not count.
    """
    one, other = (_mel_power(sound) for sound in (audio, reference))
    least = max(float(other.max()) * 1e-8, 1e-20)
    return float(np.abs(10 * np.log10(np.maximum(one, least) / np.maximum(other, least))).mean())


def _mel_power(sound: Audio) -> Array:
    """Power of each mel band in each window, of all channels beside each other."""
    size, hop = 1024, 256
    weights, window = _mel_weights(size // 2 + 1, sound.rate), np.hanning(size)
    found = []
    for channel in sound.samples.astype(np.float64):
        padded = np.pad(channel, (0, max(size - len(channel), 0)))
        pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
        found.append(weights @ (np.abs(np.fft.rfft(pieces * window)) ** 2).T)
    return np.concatenate(found, axis=1)


def _mel_weights(frequencies: int, rate: int) -> Array:
    """Bands x frequencies: triangles at even distances on the scale 2595 log10(1 + Hz / 700)."""
    hertz = np.linspace(0, rate / 2, frequencies)
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 1400), _BANDS + 2)
    corners = (700 * (10 ** (mel / 2595) - 1))[:, None]
    up = (hertz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    down = (corners[2:] - hertz) / (corners[2:] - corners[1:-1])
    return np.asarray(np.maximum(0, np.minimum(up, down)))


def is_blank(result: Result) -> bool:
    """Whether a result shows nothing: a single colour in all frames, or silence."""
    if isinstance(result, Audio):
        return float(np.ptp(result.samples)) == 0.0
    extrema: Sequence[Any] = [frame.getextrema() for frame in frames(result)]
    return all(least == most for bands in extrema for least, most in bands)
