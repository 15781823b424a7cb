"""Studies of made-up numbers for the tests of reports, through a real journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fakes
from fakes import METRICS, MODEL, numbers, pipeline, small_space, sweep_config
from optuna.distributions import CategoricalDistribution

from quantlab.config import ModelConfig
from quantlab.metrics.metric import Metric
from quantlab.outcomes import Evaluated, Measurement, SensitivityTable
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec
from quantlab.spec.names import plain_name
from quantlab.spec.setting import Setting
from quantlab.study import sensitivities as sensitivity_files
from quantlab.study.baselines import baselines
from quantlab.study.config_file import write_config
from quantlab.study.rows import Source
from quantlab.study.store import StudyStore
from quantlab.study.study import Study, load_view

Act = Callable[[PipelineSpec], Evaluated]


def grid() -> list[QuantSpec]:
    """The settings of `fakes.small_space`."""
    space = small_space()
    skips = [tuple(MODEL.skips[name]) for name in space.skip]
    int8 = [Int8Spec(threshold, skip) for threshold in space.llm_int8_threshold for skip in skips]
    int4 = [Int4Spec(q, d, skip=skip) for q in ("nf4", "fp4") for d in (False, True) for skip in skips]
    return [*int8, *int4]


def study(
    folder: Path,
    act: Act = numbers,
    objectives: tuple[Metric, ...] = fakes.OBJECTIVES,
    specs: Iterable[QuantSpec | PipelineSpec] | None = None,
    model: ModelConfig = MODEL,
    metrics: tuple[Metric, ...] = METRICS,
    fill: Callable[[StudyStore], None] = lambda store: None,
    tables: Iterable[SensitivityTable] = (),
    **config: Any,
) -> Study:
    """A study of the baselines and some settings, closed and read again.

    Args:
        folder: of the study.
        act: what comes of a setting.
        objectives: of the study.
        specs: settings beside the baselines, as a search proposes them; `grid` by default.
        model: that is measured.
        metrics: that are measured.
        fill: records what else the study holds.
        tables: layer sensitivities.
        config: of `fakes.sweep_config`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with StudyStore(folder, objectives) as store:
        store.claim({"device": "a device", "dtype": model.dtype.value}, metrics)
        searched = list(map(pipeline, grid() if specs is None else specs))
        for setting in baselines(model):
            if setting.spec not in searched:
                store.record(setting, act(setting.spec), Source.baseline)
        parameters = {spec: _parameters(spec) for spec in searched}
        names = sorted({name for values in parameters.values() for name in values})
        known = {name: {values.get(name, "") for values in parameters.values()} for name in names}
        choices = {name: CategoricalDistribution(sorted(values)) for name, values in known.items()}
        for spec in searched:
            store.optuna_study.enqueue_trial(parameters[spec])
            trial = store.optuna_study.ask(choices)
            store.begin(trial, Setting(spec, plain_name(spec, model.dtype.value, model.skips)))
            store.finish(trial, act(spec), None, {})
        fill(store)
    for table in tables:
        sensitivity_files.save(table, sensitivity_files.sensitivity_path(folder, table.component))
    given = {"model": model, "objectives": [metric.name for metric in objectives]}
    write_config(sweep_config(folder, **(given | config)), folder)
    with StudyStore(folder, read_only=True) as store:
        return load_view(store)


def _parameters(spec: PipelineSpec) -> dict[str, str]:
    """A setting as a search's parameters."""
    found = {f"{component}.family": one.family for component, one in spec.items()}
    return found | {f"{component}.skip": ",".join(one.skip) for component, one in spec.items()}


def measured(study: Study) -> dict[PipelineSpec, Measurement]:
    """The measurements by setting."""
    return {row.spec: row.measurement for row in study.rows if row.measurement is not None}
