"""The benchmark of ranking: SNR over a few probes beside the images of full runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantlab.bench import ranking
from quantlab.bench.curves import plot_ranking, ranking_figures
from quantlab.bench.results import figures
from quantlab.compose import compose
from quantlab.errors import ConfigError

LINE = {"rho": 0.9, "low": 0.8, "high": 0.95}
NONE = {"rho": None, "low": None, "high": None}
RESULT: dict[str, Any] = {
    "settings": 60,
    "drawings": 8,
    "failed": [],
    "probes_s": 100.0,
    "drawings_s": 900.0,
    "correlations": [
        {"probes": 1, "psnr": {**LINE, "rho": 0.7, "low": 0.5, "high": 0.8}, "ssim": NONE},
        {"probes": 2, "psnr": LINE, "ssim": {"rho": 1.0, "low": None, "high": None}},
    ],
    "rows": [],
}


def row(psnr_db: float, *errors: float) -> dict[str, Any]:
    return {"psnr_db": psnr_db, "ssim": psnr_db / 100, "probes": [{"signal": 1.0, "error": error} for error in errors]}


def test_the_ranks_are_those_of_snr_over_the_first_probes() -> None:
    rows = [row(10, 0.1, 0.9), row(20, 0.2, 0.3), row(30, 0.3, 0.1)]  # the first probe alone ranks them backwards
    found = ranking.correlations(rows)
    assert [line["probes"] for line in found] == [1, 2]
    assert [line["psnr"]["rho"] for line in found] == pytest.approx([-1.0, 1.0])
    assert [line["ssim"]["rho"] for line in found] == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_probes_double_up_to_all_of_them(most: int, counts: list[int]) -> None:
    assert ranking._counts(most) == counts


def test_every_number_of_probes_has_its_line_with_its_interval() -> None:
    lines = list(figures({"ranking": RESULT}).itertuples(index=False, name=None))
    assert ("ranking", "8 drawings of 60 settings", 900.0, "s") in lines
    with_psnr = "SNR over 2 probes with PSNR of 8 drawings"
    assert ("ranking", with_psnr, "0.900 [0.800, 0.950]", "rank correlation") in lines
    assert ("ranking", "SNR over 1 probes with SSIM of 8 drawings", "not defined", "rank correlation") in lines
    assert ("ranking", "SNR over 2 probes with SSIM of 8 drawings", "1.000", "rank correlation") in lines


def test_settings_that_were_left_out_are_counted() -> None:
    failed = [{"key": "nf4", "reason": "the output holds NaN"}]
    names = [line[1] for line in ranking_figures({**RESULT, "failed": failed})]
    assert "settings left out, no measurement" in names
    assert "settings left out, no measurement" not in [line[1] for line in ranking_figures(RESULT)]


def test_the_plot_has_a_line_with_a_band_for_each_score_over_doubling_probes(tmp_path: Path) -> None:
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
def test_what_draws_nothing_is_refused_in_one_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        ranking.run(compose("bench", ["device=cpu", override]))
    assert "\n" not in str(refused.value)


def test_settings_are_measured_drawn_and_ranked() -> None:
    config = compose(
        "bench",
        [
            *("device=cpu", "score.prompts=1", "score.timesteps=2", "generations=1", "space=threshold"),
            *("model.call.num_inference_steps=2", "space.llm_int8_threshold=[0,2,6]", "score.warmup=1"),
        ],
    )
    result = ranking.run(config)
    assert (result["settings"], result["drawings"], result["failed"]) == (3, 1, [])
    assert [line["probes"] for line in result["correlations"]] == [1, 2]
    assert all(line["psnr"]["rho"] is not None for line in result["correlations"])
    assert {"key", "snr_db", "psnr_db", "ssim"} <= result["rows"][0].keys()
