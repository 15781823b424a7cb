"""Which parameter matters for which objective, by Optuna."""

from __future__ import annotations

import optuna
from matplotlib.figure import Figure

from quantlab.errors import QuantlabError
from quantlab.measurement import MEANINGLESS
from quantlab.report.view import StudyView
from quantlab.study.journal import METRICS


def importances(study: StudyView) -> dict[str, dict[str, float]]:
    """Share of each objective's variance that each parameter explains (fANOVA; Hutter et al. 2014).

    An objective that is the same in all trials has none.

    Raises:
        QuantlabError: where scikit-learn, which Optuna uses for it, is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise QuantlabError("importances need scikit-learn: pip install 'quantlab[importance]'") from error
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found: dict[str, dict[str, float]] = {}
    trials = [t for t in study.optuna_study.get_trials(deepcopy=False) if t.values]
    for index, metric in enumerate(METRICS):
        if len({trial.values[index] for trial in trials}) < 2:  # nothing varies, so nothing explains it
            found[metric] = {}
            continue
        found[metric] = optuna.importance.get_param_importances(
            study.optuna_study,
            evaluator=evaluator,
            target=lambda trial, index=index: trial.values[index],  # type: ignore[misc]
        )
    return found


def plot_importances(study: StudyView) -> Figure:
    """Importances as bars, one group an objective; a message where there are too few trials to say."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    varied = [t for t in study.optuna_study.get_trials(deepcopy=False) if t.values]
    if len(varied) < 4:
        axes.text(0.5, 0.5, "too few trials to say", ha="center", transform=axes.transAxes)
        return figure
    found = importances(study)
    names = sorted({name for shares in found.values() for name in shares}, key=lambda n: found["snr_db"].get(n, 0))
    for index, (metric, shares) in enumerate(found.items()):
        places = [i + 0.25 * (1 - index) for i in range(len(names))]
        axes.barh(places, [shares.get(name, 0.0) for name in names], height=0.24, label=metric)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("importance (fANOVA)" + ("" if study.fidelity_is_meaningful else f"; snr_db is {MEANINGLESS}"))
    axes.legend(fontsize=8)
    return figure
