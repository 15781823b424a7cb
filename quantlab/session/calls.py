"""The commands that measure, as calls for a notebook or a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quantlab.config import LimitConfig, StudyConfig
from quantlab.errors import ConfigError, unknown
from quantlab.metrics.registry import Named
from quantlab.pipelines.named import configured
from quantlab.session.events import Event
from quantlab.session.run import run
from quantlab.session.run_sensitivity import run_sensitivity
from quantlab.study.study import Study


def sweep(
    model: str = "tiny_sd3",
    *overrides: str,
    budget: Mapping[str, Mapping[str, Any]] | None = None,
    sampler: str | None = None,
    n_trials: int | None = None,
    metrics: Sequence[Named] = (),
    objectives: Sequence[Named] = (),
    study: str | None = None,
    results_dir: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Study:
    """What ``quantlab sweep model=MODEL`` does: search a model's settings, export the winner and verify it.

    Called again with the same study it goes on where that ended; nothing is measured twice.

    Args:
        model: a name of conf/model, a folder such as ``./FOLDER``, or ``hub:OWNER/NAME``.
        overrides: further options as on the command line, such as ``"sweeps=threshold"`` or ``"evaluation=quick"``.
        budget: limits by metric, such as ``{"memory_bytes": {"max": "2.2GB"}}``.
        sampler: who proposes settings: grid, tpe, gp, nsga2, random or sensitivity.
        n_trials: how many distinct settings the study is to hold.
        metrics: measured besides the usual ones: names, ``module:function``, or functions of an output and the
            reference's.
        objectives: what is optimised, the most important first; likewise.
        study: name of the study.
        results_dir: where studies are kept.
        on_event: called with what happens; see `quantlab.session.events`.
        should_stop: asked before each setting.

    Raises:
        QuantlabError: for what a user can put right.

    Example:
        >>> study = sweep("tiny_sd3", budget={"memory_bytes": {"max": "3MB"}}, n_trials=20)  # doctest: +SKIP
        >>> study.winner.spec["transformer"].to_config()  # doctest: +SKIP
        BitsAndBytesConfig {...}
    """
    given = {"model": model, "sampler": sampler, "sampler.n_trials": n_trials}
    config = configured("sweep", [*_options(given), *overrides])
    return run(_completed(config, study, results_dir, budget, metrics, objectives), on_event, should_stop)


def measure_sensitivities(
    model: str = "tiny_sd3",
    *overrides: str,
    budget: Mapping[str, Mapping[str, Any]] | None = None,
    study: str | None = None,
    results_dir: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Study:
    """What ``quantlab sensitivity model=MODEL`` does: measure every layer alone, and the front that follows from it.

    Arguments and errors are those of `sweep`; ``study.sensitivities`` holds a table for each component.
    """
    config = configured("sensitivity", [f"model={model}", *overrides])
    return run_sensitivity(_completed(config, study, results_dir, budget), on_event, should_stop)


def _options(given: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in given.items() if value is not None]


def _completed(
    config: Any,
    study: str | None,
    results_dir: str | None,
    budget: Mapping[str, Mapping[str, Any]] | None,
    metrics: Sequence[Named] = (),
    objectives: Sequence[Named] = (),
) -> Any:
    """The configuration with what an override cannot say, or would have to quote."""
    assert isinstance(config, StudyConfig)
    config.study = study or config.study
    config.results_dir = str(results_dir or config.results_dir)
    for name, limits in (budget or {}).items():
        if not isinstance(limits, Mapping):
            raise ConfigError(f"budget[{name!r}]={limits!r} must say what it limits, such as {{'max': {limits!r}}}")
        for bound in limits:
            if bound not in ("max", "min"):
                raise unknown(f"budget[{name!r}]", bound, ("max", "min"))
        config.budget[name] = LimitConfig(**limits)
    config.metrics += list(metrics)
    config.objectives = list(objectives) or config.objectives
    return config
