"""Which parameter matters for which objective, by Optuna."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from quantlab.report.text import MEANINGLESS, join

if TYPE_CHECKING:
    from quantlab.study.study import Study

LEAST_TRIALS = 4
"""Fewer say nothing."""


def importances(study: Study) -> dict[str, dict[str, float]]:
    """How much each parameter decides whether a trial is among the best tenth, by objective and parameter.

    The shares of an objective add up to 1 (PED-ANOVA; Watanabe et al. 2023, arXiv:2304.10255, Optuna's default). An
    objective that is the same in all trials has none.
    """
    import optuna

    trials = [t for t in study.optuna_study.get_trials(deepcopy=False) if t.values]
    found: dict[str, dict[str, float]] = {}
    for index, metric in enumerate(study.objectives):
        if len({trial.values[index] for trial in trials}) < 2:  # nothing varies, so nothing explains it
            found[metric.name] = {}
            continue
        with warnings.catch_warnings():  # Optuna warns that low values must be good, which the sign sees to
            warnings.simplefilter("ignore")
            found[metric.name] = optuna.importance.get_param_importances(
                study.optuna_study,
                target=lambda trial, index=index, sign=metric.sign: sign * trial.values[index],  # type: ignore[misc]
            )
    return found


def plot_importances(study: Study) -> Figure:
    """Importances as bars, one group an objective; a message where there are too few trials to say."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    varied = [t for t in study.optuna_study.get_trials(deepcopy=False) if t.values]
    if len(varied) < LEAST_TRIALS:
        axes.text(0.5, 0.5, "too few trials to tell", ha="center", transform=axes.transAxes)
        return figure
    found = importances(study)
    first = found[study.objectives[0].name]
    names = sorted({name for shares in found.values() for name in shares}, key=lambda name: first.get(name, 0.0))
    height = 0.8 / len(study.objectives)
    for index, metric in enumerate(study.objectives):
        shares = found[metric.name]
        places = [place + 0.4 - height * (index + 0.5) for place in range(len(names))]
        values = [shares.get(name, 0.0) for name in names]
        axes.barh(places, values, height=0.95 * height, label=metric.label)
    axes.set_yticks(range(len(names)), names)
    figure.set_figheight(max(4.2, 0.9 + 0.18 * len(names) * len(study.objectives)))
    random = [m.label for m in study.objectives if m.fidelity and not study.fidelity_is_meaningful]
    axes.set_xlabel(
        "importance for the best tenth (PED-ANOVA)" + (f"; {join(random)}: {MEANINGLESS}" if random else "")
    )
    axes.legend(fontsize=8)
    return figure
