"""The benchmark of ranking: SNR over a few samples beside the images of full runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import sample

from quantlab.errors import ConfigError
from tests.benchmarks import ranking
from tests.benchmarks.config import compose
from tests.benchmarks.ranking_figures import plot_ranking, ranking_figures
from tests.benchmarks.results import table

LINE = {"rho": 0.9, "low": 0.8, "high": 0.95}
NONE = {"rho": None, "low": None, "high": None}
RESULT: dict[str, Any] = {
    "settings": 60,
    "images": 8,
    "failed": [],
    "samples_s": 100.0,
    "images_s": 900.0,
    "correlations": [
        {"samples": 1, "psnr_db": {**LINE, "rho": 0.7, "low": 0.5, "high": 0.8}, "ssim": NONE},
        {"samples": 2, "psnr_db": LINE, "ssim": {"rho": 1.0, "low": None, "high": None}},
    ],
    "rows": [],
}


def setting(psnr_db: float, *errors: float) -> ranking.Setting:
    samples = tuple(sample(0, step, error) for step, error in enumerate(errors))
    return ranking.Setting(f"{psnr_db}", samples, {"psnr_db": psnr_db, "ssim": psnr_db / 100}, 1.0, 2.0)


def test_the_ranks_are_those_of_snr_over_the_first_samples() -> None:
    settings = [
        setting(10, 0.1, 0.9),
        setting(20, 0.2, 0.3),
        setting(30, 0.3, 0.1),
    ]  # the first sample alone ranks them backwards
    found = ranking.correlations(settings)
    assert [line["samples"] for line in found] == [1, 2]
    assert [line["psnr_db"]["rho"] for line in found] == pytest.approx([-1.0, 1.0])
    assert [line["ssim"]["rho"] for line in found] == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_samples_double_up_to_all_of_them(most: int, counts: list[int]) -> None:
    assert ranking.counts(most) == counts


def test_every_number_of_samples_has_its_line_with_its_interval() -> None:
    lines = list(table({"ranking": RESULT}).itertuples(index=False, name=None))
    assert ("ranking", "8 images of 60 settings", 900.0, "s") in lines
    with_psnr = "SNR over 2 samples with PSNR of 8 images"
    assert ("ranking", with_psnr, "0.900 [0.800, 0.950]", "rank correlation") in lines
    assert ("ranking", "SNR over 1 samples with SSIM of 8 images", "not defined", "rank correlation") in lines
    assert ("ranking", "SNR over 2 samples with SSIM of 8 images", "1.000", "rank correlation") in lines


def test_settings_that_were_left_out_are_counted() -> None:
    failed = [{"key": "nf4", "reason": "the output holds NaN"}]
    names = [line[0] for line in ranking_figures({**RESULT, "failed": failed})]
    assert "settings left out, no measurement" in names
    assert "settings left out, no measurement" not in [line[0] for line in ranking_figures(RESULT)]


def test_the_plot_has_a_line_with_a_band_for_each_score_over_doubling_samples(tmp_path: Path) -> None:
    figure = plot_ranking(RESULT, "tiny_sd3")
    figure.savefig(tmp_path / "ranking.png")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert list(axes.lines[0].get_ydata()) == [0.7, 0.9]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2"]
    assert len(axes.collections) == 2


@pytest.mark.parametrize(
    ("override", "said"), [("model.weights=random", "random weights"), ("generations=0", "at least 1")]
)
def test_what_generates_nothing_is_refused_in_one_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        ranking.run(compose(["device=cpu", override], ranking.BENCHMARK.defaults))
    assert "\n" not in str(refused.value)


def test_settings_are_measured_generated_and_ranked() -> None:
    config = compose(
        [
            *("device=cpu", "evaluation.prompts=1", "evaluation.timesteps=2", "generations=1", "space=threshold"),
            *("model.call.num_inference_steps=2", "space.llm_int8_threshold=[0,2,6]", "evaluation.warmup=1"),
        ],
    )
    result = ranking.run(config)
    assert (result["settings"], result["images"], result["failed"]) == (3, 1, [])
    assert [line["samples"] for line in result["correlations"]] == [1, 2]
    assert all(line["psnr_db"]["rho"] is not None for line in result["correlations"])
    assert {"key", "snr_db", "psnr_db", "ssim"} <= result["rows"][0].keys()
