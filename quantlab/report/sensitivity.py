"""The sensitivity map: the error that each layer adds alone, in each scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from quantlab.arrays import Array
from quantlab.outcomes import SensitivityTable
from quantlab.report.layer_grid import Panel, caveat, draw_panels, draw_scale, scheme_name
from quantlab.report.tables import table_of
from quantlab.spec import QuantSpec

if TYPE_CHECKING:
    from quantlab.study.study import Study


def plot_sensitivity(study: Study | SensitivityTable, component: str | None = None) -> Figure:
    """Blocks down, layers across, a panel a scheme: squared error over signal in dB, on one colour scale.

    A place without a layer is blank; a layer that makes the output infinite or not a number has the colour beyond the
    scale. The lowest values are what any change at all costs there (`SensitivityTable.rounding`), not what quantization
    does.

    Args:
        study: a study with layer sensitivities, or a table of them.
        component: whose layers; the first one by default.

    Raises:
        StudyError: where the component has no layer sensitivities.
    """
    table = table_of(study, component)
    levels = [(spec, errors_db(table, spec)) for spec in table.measured_specs]
    known = np.concatenate([values[np.isfinite(values)] for _, values in levels] or [np.zeros(1)])
    low, high = (float(known.min()), float(known.max())) if known.size else (-1.0, 0.0)
    norm = Normalize(low, max(high, low + 1))
    colours = matplotlib.colormaps["viridis"].with_extremes(over="#d4145a", under="#440154", bad=(0, 0, 0, 0))
    panels = [Panel(scheme_name(table, spec), _drawn(values, norm), norm, colours) for spec, values in levels]
    figure, grid = draw_panels(table, panels)
    broken = any(np.isposinf(values).any() for _, values in levels)
    label = "squared error that the layer adds alone, over the signal, dB"
    every = [axes for column in grid for axes in column]
    draw_scale(
        figure, every, panels[0], label + ("; red: not finite" if broken else ""), "max" if broken else "neither"
    )
    figure.suptitle(f"Sensitivity of each layer of {table.component}{caveat(table)}", fontsize=12)
    return figure


def _drawn(values: Array, norm: Normalize) -> Array:
    """Infinite values just beyond the scale: an image would leave them blank, as no layer at all."""
    assert norm.vmin is not None
    assert norm.vmax is not None
    return np.clip(values, norm.vmin, norm.vmax + 1)


def errors_db(table: SensitivityTable, spec: QuantSpec) -> Array:
    """Squared error over signal in dB, a layer each; inf where the output was not finite, -inf where it was equal."""
    errors = table.column(spec, "error")
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(np.where(np.isfinite(errors), errors, np.inf) / table.signal))
