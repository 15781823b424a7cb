"""The settings that the sensitivity sampler may propose, with what is predicted of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantlab.arrays import Array, Mask
from quantlab.search.component_space import ComponentSpace
from quantlab.search.error_model import FEATURES, features
from quantlab.search.parameters import Params
from quantlab.sensitivity.predict import PREDICTED, Predictor
from quantlab.spec import QuantSpec

PER_RANGE = 25
"""Values of a continuous parameter that are candidates."""

_LEAST = 1e-6
"""A sum of small differences may fall below nothing; no prediction does."""


class Candidates:
    """Every setting of a component that may be proposed, with what is predicted of it and what it errs like.

    Args:
        space: of the component, with ``auto`` resolved.
        predictor: from its layer sensitivities.

    Attributes:
        params: of each candidate.
        features: one line a candidate, as of `quantlab.search.error_model.features`.
        predicted: one line a candidate, one column a metric of `quantlab.sensitivity.predict.PREDICTED`.
    """

    def __init__(self, space: ComponentSpace, predictor: Predictor) -> None:
        self._space, self._predictor = space, predictor
        self._found: dict[tuple[Any, ...], tuple[int | None, Array]] = {}
        self._index: dict[tuple[QuantSpec, bytes], int] = {}
        self.params: list[Params] = []
        lines: list[Array] = []
        for params in space.points(PER_RANGE):
            bare, kept = space.bare_and_kept(params)
            if not kept.all() and self._index.setdefault((bare, kept.tobytes()), len(lines)) == len(lines):
                self.params.append(params)
                lines.append(self._line(bare, kept))
        self.features, self.predicted = _parts(np.array(lines))

    def index(self, params: Params) -> int | None:
        """Which candidate parameters stand for; None where it is none."""
        return self._find(params)[0]

    def lines(self, some: list[Params]) -> tuple[Array, Array]:
        """Features and predictions of any settings, candidates or not."""
        return _parts(np.array([self._find(params)[1] for params in some]))

    def _find(self, params: Params) -> tuple[int | None, Array]:
        key = tuple(params[name] for name in self._space.distributions)
        if key not in self._found:
            bare, kept = self._space.bare_and_kept(params)
            self._found[key] = self._index.get((bare, kept.tobytes())), self._line(bare, kept)
        return self._found[key]

    def _line(self, bare: QuantSpec, kept: Mask) -> Array:
        predicted = dict.fromkeys(PREDICTED, np.nan) | self._predictor.predict_kept(bare, kept).metrics
        for name in ("latency_ms", "device_ms"):
            predicted[name] = np.maximum(predicted[name], _LEAST)  # which keeps NaN
        parameters = self._predictor.table.parameters
        share = float(parameters[kept].sum() / parameters.sum())
        return np.array([*features(bare, share), *(predicted[name] for name in PREDICTED)])


def _parts(lines: Array) -> tuple[Array, Array]:
    lines = lines.reshape(-1, FEATURES + len(PREDICTED))
    return lines[:, :FEATURES], lines[:, FEATURES:]
