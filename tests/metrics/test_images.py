from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quantlab.metrics import images as scoring
from quantlab.metrics import lpips
from quantlab.metrics.images import BLANK, SCALE_WEIGHTS, TOO_SMALL, image_scores, scale_weights
from quantlab.report.text import unavailable_lines

NO_LPIPS = {} if lpips.unavailable() is None else {"lpips": lpips.unavailable()}


def picture(side: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side // 4 + 1, side // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR)


def noisy(image: Image.Image, amplitude: int) -> Image.Image:
    values = np.asarray(image).astype(int)
    noise = np.random.default_rng(1).integers(-amplitude, amplitude + 1, values.shape)
    return Image.fromarray((values + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("side", "scales"), [(10, 0), (11, 1), (22, 2), (64, 3), (99, 4), (176, 5), (1024, 5)])
def test_an_image_has_as_many_scales_as_it_is_large(side: int, scales: int) -> None:
    assert len(scale_weights(side)) == scales


@pytest.mark.parametrize("side", [11, 21, 22, 43, 44, 98, 99, 175, 176])
def test_every_size_has_scales_that_torchmetrics_takes_and_weights_that_add_up_to_one(side: int) -> None:
    weights = scale_weights(side)
    assert math.isclose(sum(weights), 1.0, abs_tol=1e-3)
    assert math.isclose(weights[0] / weights[-1], SCALE_WEIGHTS[0] / SCALE_WEIGHTS[len(weights) - 1])
    image = picture(side)
    assert image_scores([image], [image])[0]["ms_ssim"] == pytest.approx(1.0)


def test_every_score_falls_as_an_image_gets_worse() -> None:
    image = picture(64)
    slightly, badly = (image_scores([noisy(image, amplitude)], [image])[0] for amplitude in (4, 40))
    for name in ("psnr_db", "ssim", "ms_ssim"):
        assert badly[name] < slightly[name]


def test_scores_are_means_over_the_pairs() -> None:
    image = picture(64)
    one, two = noisy(image, 4), noisy(image, 40)
    both, _ = image_scores([one, two], [image, image])
    for name, value in both.items():
        assert value == pytest.approx(
            (image_scores([one], [image])[0][name] + image_scores([two], [image])[0][name]) / 2
        )


def test_lpips_is_told_to_be_missing_where_torchvision_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "_has_torchvision", lambda: False)
    scores, unavailable = image_scores([picture(16)], [picture(16)])
    assert "lpips" not in scores
    assert unavailable == {"lpips": lpips.NO_TORCHVISION}


def test_a_metric_whose_window_does_not_fit_the_images_is_told_to_be_missing() -> None:
    scores, unavailable = image_scores([picture(8)], [picture(8)])
    assert unavailable["ms_ssim"] == TOO_SMALL
    assert scores["psnr_db"] == 100
    assert image_scores([], []) == ({}, {})


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As if torchvision were installed, with an empty hub folder; the place of the backbone's weights."""
    monkeypatch.setattr(lpips, "_has_torchvision", lambda: True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / lpips.BACKBONE


def test_lpips_is_told_to_be_missing_where_its_backbone_is_and_nothing_is_fetched(
    torchvision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    assert lpips.unavailable() == lpips.NO_WEIGHTS
    assert not torchvision.exists()


def test_a_backbone_that_holds_more_than_tensors_is_not_used(torchvision: Path) -> None:
    torch.save({"weight": Path}, torchvision)
    assert lpips.unavailable() == lpips.UNREADABLE
    torchvision.write_bytes(b"no weights")
    assert lpips.unavailable() == lpips.UNREADABLE


def test_lpips_is_among_the_scores_where_it_can_be_computed(torchvision: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.ones(1)}, torchvision)
    assert lpips.unavailable() is None
    fake = dataclasses.replace(scoring.LPIPS, score=lambda a, b: float((a - b).abs().mean()))
    monkeypatch.setitem(scoring.IMAGE_METRICS, "lpips", fake)
    assert image_scores([picture(16)], [picture(16)])[0]["lpips"] == 0


def test_a_reference_image_of_a_single_colour_scores_nothing_and_says_so() -> None:
    """Kind: images that mean nothing and equal each other: a VAE that gives NaN, a safety checker that blanks all."""
    blank, image = Image.new("RGB", (64, 64)), picture(64)
    assert image_scores([blank, blank], [blank, blank]) == (
        {},
        {"psnr_db": BLANK, "ssim": BLANK, "ms_ssim": BLANK} | NO_LPIPS,
    )
    alone = image_scores([noisy(image, 4)], [image])[0]
    scores, missing = image_scores([blank, noisy(image, 4)], [blank, image])
    assert scores == alone
    assert missing == {"psnr_db": BLANK, "ssim": BLANK, "ms_ssim": BLANK} | NO_LPIPS
    lines = unavailable_lines(missing)
    assert sum("blank score nothing" in line for line in lines) == 1


def test_an_image_of_a_single_colour_has_a_score_where_the_reference_shows_something() -> None:
    scores, missing = image_scores([Image.new("RGB", (64, 64))], [picture(64)])
    assert scores["psnr_db"] < 20
    assert "psnr_db" not in missing
