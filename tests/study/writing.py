"""Writes a study without a search: the settings of a list, one trial each, as a session does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fakes import OBJECTIVES, numbers, pipeline
from optuna.distributions import CategoricalDistribution

from quantlab.metrics.metric import Metric
from quantlab.outcomes import Evaluated
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.spec.setting import Setting
from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore

BASELINES: tuple[QuantSpec, ...] = (ReferenceSpec(), Int8Spec(), Int4Spec())
SETTINGS: tuple[QuantSpec, ...] = (
    *(Int8Spec(threshold, skip) for threshold in (0.0, 3.0, 6.0) for skip in ((), ("attn",))),
    *(Int4Spec(kind, skip=skip) for kind in ("nf4", "fp4") for skip in ((), ("attn",))),
)
ALL = {pipeline(spec) for spec in (*BASELINES, *SETTINGS)}


def setting(spec: QuantSpec | PipelineSpec, name: str = "") -> Setting:
    """A setting that is called as it is written."""
    return Setting(pipeline(spec), name or pipeline(spec).key)


def write(
    folder: Path,
    act: Callable[[PipelineSpec], Evaluated | None] = lambda spec: None,
    count: int | None = None,
    objectives: Sequence[Metric] = OBJECTIVES,
) -> list[PipelineSpec]:
    """Measure what a study lacks, at most ``count`` settings; gives what was measured now.

    Baselines are recorded; the others are trials, those first that a kill interrupted. What is known already is a
    trial that repeats it.
    """
    measured: list[PipelineSpec] = []

    def outcome(spec: PipelineSpec) -> Evaluated:
        measured.append(spec)
        return act(spec) or numbers(spec)

    choice = CategoricalDistribution(list(range(len(SETTINGS))))
    with StudyStore(folder, objectives) as store:

        def run_trial() -> None:
            trial = store.optuna_study.ask({"setting": choice})
            wanted = setting(SETTINGS[trial.params["setting"]])
            store.begin(trial, wanted)
            earlier = store.known().get(wanted.spec)
            found = earlier.outcome if earlier else outcome(wanted.spec)
            store.finish(trial, found, earlier.number if earlier else None, {})

        again = [params["setting"] for params in store.interrupted()]
        while store.has_waiting and len(measured) != count:
            run_trial()
        for spec in BASELINES:
            if pipeline(spec) not in store.known() and len(measured) != count:
                store.record(setting(spec), outcome(pipeline(spec)), Source.baseline)
        tried = {row.spec for row in store.rows() if row.source is Source.search and row.is_conclusive}
        for index in dict.fromkeys([*again, *range(len(SETTINGS))]):
            if pipeline(SETTINGS[index]) not in tried and len(measured) != count:
                store.optuna_study.enqueue_trial({"setting": index})
                run_trial()
    return measured


def read(folder: Path) -> list[Row]:
    """The rows of a study."""
    with StudyStore(folder, read_only=True) as store:
        return store.rows()


def main(folder: str, pause_s: str) -> None:
    """A slow study in a process of its own, for tests that kill it."""

    def pause(spec: PipelineSpec) -> None:
        time.sleep(float(pause_s))

    write(Path(folder), pause)


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
