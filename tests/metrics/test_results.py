"""What a pipeline shows, in a file of its kind and back, and how close two of them are."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quantlab.metrics.images import BLANK, image_scores
from quantlab.metrics.results import Audio, frames, is_blank, log_mel_distance, pictured, read_audio, to_file

RATE = 16_000


def pixels(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arrays(image: Image.Image) -> Any:
    return np.stack([np.asarray(frame) for frame in frames(image)])


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE, level: float = 0.5) -> Audio:
    times = np.arange(int(seconds * rate)) / rate
    return Audio(np.asarray(level * np.sin(2 * np.pi * hertz * times), np.float32)[None], rate)


def noisy(sound: Audio, level: float) -> Audio:
    noise = np.random.default_rng(0).standard_normal(sound.samples.shape)
    return Audio(np.asarray(sound.samples + level * noise, np.float32), sound.rate)


def test_an_image_is_its_pixels_before_and_after_its_file() -> None:
    values = pixels(0, 12, 16, 3)
    image = pictured(values)
    content, suffix = to_file(image)
    assert suffix == ".png"
    with Image.open(io.BytesIO(content)) as again:
        assert np.array_equal(arrays(again), values[None])
    assert np.array_equal(arrays(image), values[None])


def test_frames_are_an_animated_png_and_back_bit_for_bit() -> None:
    values = pixels(0, 5, 12, 16, 3)
    image = pictured(values)
    assert np.array_equal(arrays(image), values)
    content, suffix = to_file(image)
    assert (suffix, content[:4]) == (".png", b"\x89PNG")
    with Image.open(io.BytesIO(content)) as again:
        assert again.n_frames == 5  # type: ignore[attr-defined]
        assert np.array_equal(arrays(again), values)
        assert to_file(again) == (content, suffix)


def test_frames_that_change_in_one_place_are_whole_in_each() -> None:
    """Kind: frames of a file that keeps what changed alone."""
    values = np.full((4, 16, 16, 3), 100, np.uint8)
    for index in range(4):
        values[index, 3 * index : 3 * index + 3, 2:5] = 200
    with Image.open(io.BytesIO(to_file(pictured(values))[0])) as again:
        assert np.array_equal(arrays(again), values)


def test_frames_that_equal_the_one_before_are_frames_all_the_same() -> None:
    """Kind: a video that stands still for a moment, whose frames a PNG file takes for one that is shown longer."""
    values = pixels(0, 4, 8, 8, 3)
    values[2] = values[1]
    image = pictured(values)
    assert np.array_equal(arrays(image), values)
    with Image.open(io.BytesIO(to_file(image)[0])) as again:
        assert np.array_equal(arrays(again), values)


def test_a_video_that_stands_still_is_compared_with_one_that_moves() -> None:
    moving = pixels(0, 4, 16, 16, 3)
    still = np.stack([moving[0]] * 4)
    scores, _ = image_scores([pictured(still)], [pictured(moving)])
    assert scores["worst_psnr_db"] < scores["psnr_db"]


@pytest.mark.parametrize("channels", [1, 2])
def test_audio_is_a_wav_file_and_back_but_for_16_bits(channels: int) -> None:
    sound = Audio(np.concatenate([tone(440.0 * (1 + i)).samples for i in range(channels)]), RATE)
    content, suffix = to_file(sound)
    assert (suffix, content[:4]) == (".wav", b"RIFF")
    again = read_audio(content)
    assert (again.rate, again.samples.shape, again.samples.dtype) == (RATE, sound.samples.shape, np.float32)
    assert np.abs(again.samples - sound.samples).max() < 2 / 2**15


def test_audio_beyond_its_bounds_is_cut_off_and_does_not_wrap_round() -> None:
    again = read_audio(to_file(Audio(np.array([[-2.0, -1.0, 1.0, 2.0]], np.float32), RATE))[0])
    assert again.samples[0].tolist() == pytest.approx([-1.0, -1.0, 1.0, 1.0], abs=1e-4)


def test_the_log_mel_distance_is_0_for_itself_and_grows_with_noise() -> None:
    sound = tone(440.0)
    distances = [log_mel_distance(noisy(sound, level), sound) for level in (0.0, 0.001, 0.01, 0.1)]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[1] > 0.1
    assert log_mel_distance(tone(880.0), sound) > 1


def test_a_sound_of_half_the_level_is_6_db_away_where_it_sounds() -> None:
    wide = Audio(np.random.default_rng(1).standard_normal((1, RATE)).astype(np.float32) / 4, RATE)
    half = Audio(wide.samples / 2, RATE)
    assert log_mel_distance(half, wide) == pytest.approx(20 * math.log10(2), rel=1e-3)
    assert log_mel_distance(wide, half) == pytest.approx(20 * math.log10(2), rel=1e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_a_log_mel_distance_is_finite_for_short_sounds_and_at_every_rate(rate: int, seconds: float) -> None:
    sound, silence = tone(300.0, seconds, rate), tone(300.0, seconds, rate, level=0.0)
    for one, other in ((sound, silence), (silence, sound), (silence, silence)):
        assert math.isfinite(log_mel_distance(one, other))
    assert log_mel_distance(silence, sound) > 1


def test_silence_in_both_does_not_count() -> None:
    """Kind: numbers far below what can be heard, whose logarithms differ most of all."""
    sound = tone(440.0)
    hardly = Audio(sound.samples + np.float32(1e-7) * np.arange(sound.samples.shape[1]) % 2, RATE)
    assert log_mel_distance(hardly, sound) < 0.5


def test_audio_is_scored_by_its_spectrogram_alone() -> None:
    sound = tone(440.0)
    scores, missing = image_scores([noisy(sound, 0.01), sound], [sound, sound])
    assert scores == {"log_mel_db": pytest.approx(log_mel_distance(noisy(sound, 0.01), sound) / 2)}
    assert missing == {}


def test_frames_are_scored_on_average_and_at_worst() -> None:
    values = pixels(0, 3, 16, 16, 3)
    other = values.copy()
    other[1] = 255 - other[1]
    each = [image_scores([pictured(b)], [pictured(a)])[0]["psnr_db"] for a, b in zip(values, other, strict=True)]
    scores, _ = image_scores([pictured(other)], [pictured(values)])
    assert scores["psnr_db"] == pytest.approx(sum(each) / 3)
    assert scores["worst_psnr_db"] == pytest.approx(min(each)) == each[1]


def test_an_image_has_no_worst_frame_and_no_spectrogram() -> None:
    image = pictured(pixels(0, 16, 16, 3))
    scores, missing = image_scores([image], [image])
    assert not {"worst_psnr_db", "log_mel_db"} & {*scores, *missing}


def test_what_shows_nothing_is_blank() -> None:
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 7, np.uint8)
    assert is_blank(pictured(black))
    assert is_blank(pictured(np.stack([grey, grey, grey])))
    assert is_blank(tone(440.0, level=0.0))
    assert not is_blank(tone(440.0))
    assert not is_blank(pictured(pixels(0, 8, 8, 3)))
    assert not is_blank(pictured(np.stack([grey, pixels(0, 8, 8, 3)])))


def test_a_silent_reference_scores_nothing_and_says_so() -> None:
    silent = tone(440.0, level=0.0)
    assert image_scores([tone(440.0)], [silent]) == ({}, {"log_mel_db": BLANK})
    scores, missing = image_scores([tone(440.0), tone(440.0)], [silent, tone(440.0)])
    assert (scores, missing) == ({"log_mel_db": 0.0}, {"log_mel_db": BLANK})
