"""How close the predictions are to the reference's: signal-to-noise ratio, relative L2 error and cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quantlab.arrays import Array
from quantlab.metrics.metric import Columns, Evidence, Metric, Paired, from_samples

IDENTICAL_DB = 100.0
"""Stands for an error of nothing: SNR and PSNR are cut off here, so that every number in a study is finite."""

_LEAST = 10 ** (-IDENTICAL_DB / 10)


def snr_db(signal: float, error: float) -> float:
    """10 log10(signal / error) in dB, at most `IDENTICAL_DB`, and its negative where nothing of the signal is left."""
    if error <= signal * _LEAST:
        return IDENTICAL_DB
    return 10 * math.log10(signal / error) if signal > 0 and error < math.inf else -IDENTICAL_DB


def observe(output: Sequence[Any], reference: Sequence[Any]) -> Mapping[str, Any]:
    """Sums over a sample's elements in float64: ref^2, (out - ref)^2, out^2 and out ref.

    Where a component gives several tensors, each counts alike: it is scaled to the mean of their signal powers.

    Args:
        output: tensors of the output.
        reference: the same of the reference's.
    """
    pairs = [(out.double(), ref.double()) for out, ref in zip(output, reference, strict=True)]
    sums = [(r.square().sum(), (o - r).square().sum(), o.square().sum(), (o * r).sum()) for o, r in pairs]
    if len(sums) > 1:
        mean = sum(signal for signal, *_ in sums) / len(sums)
        sums = [tuple(value * _scale(mean, one[0]) for value in one) for one in sums]
    return {name: sum(one[place] for one in sums) for place, name in enumerate(("signal", "error", "power", "product"))}


def _scale(mean: Any, signal: Any) -> Any:
    """What brings a tensor's signal power to the mean; a tensor of zeros stays as it is."""
    return (mean / signal.where(signal > 0, mean)).nan_to_num(1.0)


def _powers(columns: Columns, weights: Array) -> Array:
    """Weighted sums of signal and error, by one product: two of a column each round otherwise."""
    return (weights @ np.column_stack([columns["signal"], columns["error"]])).T


def _snr(columns: Columns, weights: Array) -> Array:
    signal, error = _powers(columns, weights)
    # a draw may hold none of the samples where not every prompt has every timestep: it says nothing
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 10 * np.log10(signal / np.maximum(error, signal * _LEAST))
    found = np.where(error == math.inf, -IDENTICAL_DB, found)
    return np.asarray(np.where(signal > 0, found, np.where(error > 0, -IDENTICAL_DB, IDENTICAL_DB)))


def _rel_l2(columns: Columns, weights: Array) -> Array:
    signal, error = _powers(columns, weights)
    return np.asarray(np.where(signal > 0, np.sqrt(error / np.where(signal > 0, signal, 1)), error > 0))


def _cosine(columns: Columns, weights: Array) -> Array:
    norm = np.sqrt((weights @ columns["signal"]) * (weights @ columns["power"]))
    product = weights @ columns["product"]
    return np.asarray(np.minimum(np.where(norm > 0, product / np.where(norm > 0, norm, 1), 0.0), 1.0))


_SQUARED_ERROR = Paired("error", log=True, floor=("signal", _LEAST), weighted=True)

SNR_DB = from_samples(
    "snr_db", "dB", "maximize", "prediction SNR", observe, _snr, _SQUARED_ERROR, identical=IDENTICAL_DB
)
"""10 log10(sum ref^2 / sum (out - ref)^2) over all samples; 100 dB stands for identical."""

REL_L2 = from_samples("rel_l2", "", "minimize", "relative L2 error", observe, _rel_l2, _SQUARED_ERROR, 0.0, 4)
"""||out - ref|| / ||ref|| over all samples."""

COSINE = from_samples("cosine", "", "maximize", "cosine", observe, _cosine, _SQUARED_ERROR, 1.0, 6)
"""Cosine of the angle between all outputs and all references."""


def _final(evidence: Evidence) -> float:
    assert evidence.final_snr_db is not None, "a lab always gives it"
    return evidence.final_snr_db()


FINAL_SNR_DB = Metric(
    name="final_snr_db",
    unit="dB",
    direction="maximize",
    label="SNR of the denoiser behind it",
    compute=_final,
    fidelity=True,
    identical=IDENTICAL_DB,
)
"""Of a text encoder: SNR of the unquantized denoiser's first prediction, from what the encoder gives it."""
