"""The switch of racing, and what a sweep says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import fake_measurement, with_probes

from quantlab.cli import sweep
from quantlab.compose import compose
from quantlab.config import Sampler, SearchConfig, SweepConfig
from quantlab.errors import ConfigError
from quantlab.measurement import Pruned
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study.rows import Row


def composed(*overrides: str) -> SearchConfig:
    config = compose("sweep", list(overrides))
    assert isinstance(config, SweepConfig)
    return config.search


@pytest.mark.parametrize("sampler", Sampler)
def test_every_search_but_the_grid_races_at_99_percent_and_can_be_told_not_to(sampler: Sampler) -> None:
    search = composed(f"search={sampler.value}")
    assert (search.racing, search.racing_confidence) == (sampler is not Sampler.grid, 0.99)
    assert not composed(f"search={sampler.value}", "search.racing=false").racing
    assert composed(f"search={sampler.value}", "search.racing=true").racing


@pytest.mark.parametrize("confidence", ["0.5", "1", "99", "nan"])
def test_a_confidence_that_is_none_ends_a_sweep_before_anything_is_made(confidence: str, tmp_path: Path) -> None:
    config = compose("sweep", [f"results_dir={tmp_path / 'results'}", f"search.racing_confidence={confidence}"])
    assert isinstance(config, SweepConfig)
    with pytest.raises(ConfigError, match=r"search\.racing_confidence=\S+ must be above 0\.5 and below 1"):
        sweep.main(config)
    assert not (tmp_path / "results").exists()


def test_a_sweep_says_how_many_were_stopped_and_what_that_saved(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(number: int, probes: int) -> Row:
        partial = with_probes(fake_measurement(f"{number}", 20.0, 1000, 10.0), probes)
        return Row(number, Int8Spec(1.0 + number), Pruned("dominated by trial 0 at 99 %", 16, partial))

    whole = Row(0, Int4Spec(), fake_measurement("0", 20.0, 1000, 10.0))
    sweep._say_stopped([whole, stopped(1, 6), stopped(2, 4)])
    assert capsys.readouterr().out == "2 of them stopped early as dominated, which saved 22 of 32 forwards\n"
    sweep._say_stopped([whole])
    assert capsys.readouterr().out == ""
