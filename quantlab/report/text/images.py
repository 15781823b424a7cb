"""Images in words: how well their scores agree with the search, and what was not computed or generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantlab.metrics.images import BLANK, IMAGE_METRICS, TOO_SMALL
from quantlab.metrics.lpips import NO_TORCHVISION, NO_WEIGHTS, UNREADABLE, backbone_file
from quantlab.metrics.metric import Metric
from quantlab.outcomes import ErrorType
from quantlab.report.text.outcomes import ERRORS
from quantlab.report.text.values import INTERVALS, count

if TYPE_CHECKING:
    from quantlab.study.rank_correlation import RankCorrelation

_FETCH = "import torchvision as t; t.models.alexnet(weights='IMAGENET1K_V1')"

_SKIPPED = {
    "random_weights": "the weights are random",
    "none_asked": "evaluation.images=0",
    **{error.value: ERRORS[error] for error in ErrorType},
}


def correlations_line(metric: Metric, correlations: Mapping[str, RankCorrelation]) -> str:
    """How alike a metric and the image metrics rank the settings that generated images; empty where none did.

    Args:
        metric: what the search follows.
        correlations: by the image metric's name.
    """
    if not correlations:
        return ""
    settings = next(iter(correlations.values())).count
    found = ", ".join(f"{IMAGE_METRICS[name].label} {_rho(one)}" for name, one in correlations.items())
    return (
        f"rank correlation of {metric.label} with the images of {count(settings, 'setting')} (Spearman, "
        f"{INTERVALS['bootstrap']}): {found}"
    )


def unavailable_lines(unavailable: Mapping[str, str]) -> list[str]:
    """Why image metrics were not computed, or not of every image, a line each.

    Args:
        unavailable: a code of `quantlab.metrics` by the image metric's name.
    """
    lines = [
        f"{IMAGE_METRICS[name].label} was not computed: {_reason(code)}"
        for name, code in unavailable.items()
        if code != BLANK
    ]
    if BLANK in unavailable.values():
        lines.append(
            "reference images that are blank score nothing: they are not finite or of a single colour, as from a VAE "
            "that overflows in this dtype, or from a safety checker"
        )
    return lines


def images_skipped_line(name: str, reason: str, message: str = "") -> str:
    """Why a setting, or with an empty name every setting, has no images.

    Args:
        name: what the setting is called.
        reason: a code of `quantlab.session.events.ImagesSkipped`.
        message: what was raised, where something was.
    """
    subject = f"no images of {name}" if name else "no images are generated"
    return f"{subject}: {_SKIPPED.get(reason, reason)}" + (f" ({message})" if message else "")


def _reason(code: str) -> str:
    if code == NO_TORCHVISION:
        return "torchvision is not installed; install the lpips extra"
    if code == NO_WEIGHTS:
        return f"{backbone_file()} is missing and quantlab downloads nothing; fetch it with python -c {_FETCH!r}"
    if code == UNREADABLE:
        return f"{backbone_file()} cannot be read; fetch it again with python -c {_FETCH!r}"
    return "the images are too small" if code == TOO_SMALL else code


def _rho(correlation: RankCorrelation) -> str:
    if correlation.rho is None:
        return "undefined"
    if correlation.low is None:
        return f"{correlation.rho:.2f}"
    return f"{correlation.rho:.2f} [{correlation.low:.2f}, {correlation.high:.2f}]"
