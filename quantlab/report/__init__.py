"""Looks at a study: plots, and sentences about its data. Reads a `quantlab.study.Study`, never loads a model.

Example:
    >>> study = quantlab.open_study("tiny_sd3-default")  # doctest: +SKIP
    >>> plot_pareto(study)  # doctest: +SKIP
"""

from quantlab.report.deployments import plot_deployments
from quantlab.report.images import plot_images
from quantlab.report.importances import plot_importances
from quantlab.report.kept import plot_kept
from quantlab.report.outliers import plot_outliers
from quantlab.report.pareto import plot_pareto
from quantlab.report.predicted import plot_predicted
from quantlab.report.sensitivity import plot_sensitivity
from quantlab.report.skip_effects import plot_skip_effects
from quantlab.report.thresholds import plot_thresholds
from quantlab.report.timesteps import plot_timesteps
from quantlab.report.write import write_report

__all__ = [
    "plot_deployments",
    "plot_images",
    "plot_importances",
    "plot_kept",
    "plot_outliers",
    "plot_pareto",
    "plot_predicted",
    "plot_sensitivity",
    "plot_skip_effects",
    "plot_thresholds",
    "plot_timesteps",
    "write_report",
]
