"""The plots of a study as its methods. matplotlib is loaded when the first one is asked for.

This is the one place below `quantlab.report` that names it: a person who holds a study should find its plots there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class StudyPlots:
    """Each method draws as the function of its name in `quantlab.report` does, and takes the same options."""

    def plot_pareto(self, **options: Any) -> Figure:
        """The objectives against each other, with intervals, baselines and the winner."""
        return _plot("plot_pareto", self, options)

    def plot_images(self, **options: Any) -> Figure:
        """The images of the winner and the baselines beside the reference's."""
        return _plot("plot_images", self, options)

    def plot_deployments(self, **options: Any) -> Figure:
        """Seconds an image and peak memory of each setting, from one deployment to the next."""
        return _plot("plot_deployments", self, options)

    def plot_thresholds(self, **options: Any) -> Figure:
        """What the threshold of LLM.int8() changes."""
        return _plot("plot_thresholds", self, options)

    def plot_skip_effects(self, **options: Any) -> Figure:
        """What each skip list gains and costs."""
        return _plot("plot_skip_effects", self, options)

    def plot_timesteps(self, **options: Any) -> Figure:
        """Fidelity by denoising timestep."""
        return _plot("plot_timesteps", self, options)

    def plot_importances(self, **options: Any) -> Figure:
        """How much each parameter of the search matters for each objective."""
        return _plot("plot_importances", self, options)

    def plot_sensitivity(self, **options: Any) -> Figure:
        """The error that each layer adds, by scheme."""
        return _plot("plot_sensitivity", self, options)

    def plot_outliers(self, **options: Any) -> Figure:
        """The largest activation and the share of outliers that each layer is given."""
        return _plot("plot_outliers", self, options)

    def plot_kept(self, **options: Any) -> Figure:
        """What keeping the most sensitive layers gains, beside the named skip lists."""
        return _plot("plot_kept", self, options)

    def plot_predicted(self, **options: Any) -> Figure:
        """What was predicted from single layers against what was measured."""
        return _plot("plot_predicted", self, options)


def _plot(name: str, study: StudyPlots, options: dict[str, Any]) -> Figure:
    from quantlab import report

    return getattr(report, name)(study, **options)
