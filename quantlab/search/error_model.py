"""What predictions miss, as a Gaussian process over settings (Rasmussen and Williams 2006, chapter 2).

Settings of one scheme err alike, the more so the nearer their thresholds and kept shares are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from quantlab.arrays import Array
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec
from quantlab.spec.quant import COMPUTE_DTYPES, QUANT_TYPES

THRESHOLD_SCALE = 0.7
"""Natural logarithms of thresholds that are this far apart err half alike."""

SHARE_SCALE = 0.2
"""Shares of kept parameters that are this far apart err half alike."""

DOUBLE_QUANT_CORRELATION = 0.98
"""Between a setting with double quantization and the same one without."""

FEATURES = 5
"""Numbers that say what a setting errs like."""

SHARE = FEATURES - 1
"""Index of the share of parameters kept among them."""


@dataclass(frozen=True)
class ErrorModel:
    """Variances of what the predictions of one metric miss.

    Attributes:
        common: shared by all settings.
        family: shared by the settings of one method and type.
        threshold, share: a family's curve over thresholds, and over shares of kept parameters.
        detail: a family's own surface over both.
        noise: of a measurement.
        other_dtype: correlation between two compute dtypes.
        log: whether ratios are meant, and all variances are of their logarithms.
        known: standard deviation to which a family's curve over thresholds is learned first, on settings that keep
            least; None where it is not.
    """

    common: float
    family: float
    threshold: float
    share: float
    detail: float
    noise: float
    other_dtype: float
    log: bool = False
    known: float | None = None

    @property
    def prior(self) -> float:
        """Variance of a setting that nothing is known of."""
        return self.common + self.family + self.threshold + self.share + self.detail

    def is_possible(self, value: float) -> bool:
        """Whether a measured value can be learned from."""
        return value > 0 or not self.log

    def missed(self, measured: Array, predicted: Array) -> Array:
        """What predictions missed."""
        return np.log(measured / predicted) if self.log else measured - predicted

    def corrected(self, predicted: Array, missed: Array) -> Array:
        """Predictions that make up for what they are expected to miss."""
        return predicted * np.exp(missed) if self.log else predicted + missed

    def posterior(self, seen: Array, missed: Array, wanted: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of what predictions miss, given what some of them missed.

        Args:
            seen: features of those, one line a setting.
            missed: what they missed, one value a setting.
            wanted: features of the settings to tell of.
        """
        if not len(seen):
            return np.zeros(len(wanted)), np.full(len(wanted), self.prior**0.5)
        factor = cho_factor(self._covariance(seen, seen) + self.noise * np.eye(len(seen)))
        cross = self._covariance(wanted, seen)
        mean = cross @ cho_solve(factor, missed)
        variance = self.prior - np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
        return mean, np.sqrt(np.maximum(variance, 0))

    def _covariance(self, one: Array, other: Array) -> Array:
        a, b = one[:, None, :], other[None, :, :]
        alike = (a[..., 0] == b[..., 0]) * np.where(a[..., 1] == b[..., 1], 1.0, self.other_dtype)
        thresholds = np.exp(-np.log(2) * ((a[..., 3] - b[..., 3]) / THRESHOLD_SCALE) ** 2)
        shares = np.exp(-np.log(2) * ((a[..., SHARE] - b[..., SHARE]) / SHARE_SCALE) ** 2)
        alike *= np.where(a[..., 2] == b[..., 2], 1.0, DOUBLE_QUANT_CORRELATION)
        curves = self.threshold * thresholds + self.share * shares + self.detail * thresholds * shares
        return np.asarray(self.common + alike * (self.family + curves))


ERROR_MODELS = {
    "snr_db": ErrorModel(
        common=0.3**2,
        family=0.7**2,
        threshold=2.5**2,
        share=1.0**2,
        detail=0.4**2,
        noise=0.1**2,
        other_dtype=0.99,
        known=1.0,
    ),
    "latency_ms": ErrorModel(
        common=0.1**2,
        family=0.15**2,
        threshold=0.2**2,
        share=0.1**2,
        detail=0.03**2,
        noise=0.1**2,
        other_dtype=0.7,
        log=True,
    ),
    "device_ms": ErrorModel(
        common=0.01**2,
        family=0.05**2,
        threshold=0.1**2,
        share=0.02**2,
        detail=0.01**2,
        noise=0.005**2,
        other_dtype=0.3,
        log=True,
    ),
}
"""By metric; the predictions of a metric that is not here are exact."""


def features(bare: QuantSpec, share: float) -> tuple[float, ...]:
    """What a setting errs like: family, compute dtype, double quantization, logarithm of the threshold, share kept.

    Args:
        bare: the setting; its own skip list is not looked at.
        share: of the parameters that it keeps, from 0 to 1.
    """
    if isinstance(bare, Int8Spec):
        return float(bare.threshold > 0), 0.0, 0.0, float(np.log(bare.threshold or 1.0)), share
    assert isinstance(bare, Int4Spec)
    family = 2.0 + QUANT_TYPES.index(bare.quant_type)  # after int8 without and with outliers
    return family, float(COMPUTE_DTYPES.index(bare.compute_dtype)), float(bare.double_quant), 0.0, share
