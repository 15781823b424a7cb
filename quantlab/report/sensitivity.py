"""The sensitivity map: the error that each layer adds alone, in each form."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from quantlab.arrays import Array
from quantlab.profile.table import Profile
from quantlab.report.layer_grid import Panel, caveat, draw_panels, draw_scale, short_form


def plot_sensitivity(profile: Profile) -> Figure:
    """Blocks down, layers across, a panel a form: squared error over signal in dB, on one colour scale.

    A place without a layer is blank; a layer that makes the output infinite or not a number has the colour beyond the
    scale. The lowest values are what any change at all costs there (`Profile.rounding`), not what quantization does.
    """
    levels = {form: errors_db(profile, form) for form in profile.measured_forms}
    known = np.concatenate([values[np.isfinite(values)] for values in levels.values()] or [np.zeros(1)])
    low, high = (float(known.min()), float(known.max())) if known.size else (-1.0, 0.0)
    norm = Normalize(low, max(high, low + 1))
    colours = matplotlib.colormaps["viridis"].with_extremes(over="#d4145a", under="#440154", bad=(0, 0, 0, 0))
    panels = [Panel(short_form(profile, form), _drawn(values, norm), norm, colours) for form, values in levels.items()]
    figure, grid = draw_panels(profile, panels)
    broken = any(np.isposinf(values).any() for values in levels.values())
    label = "squared error that the layer adds alone, over the signal, dB"
    every = [axes for column in grid for axes in column]
    draw_scale(
        figure, every, panels[0], label + ("; red: not finite" if broken else ""), "max" if broken else "neither"
    )
    figure.suptitle(f"Sensitivity of each layer{caveat(profile)}", fontsize=12)
    return figure


def _drawn(values: Array, norm: Normalize) -> Array:
    """Infinite values just beyond the scale: an image would leave them blank, as no layer at all."""
    assert norm.vmin is not None
    assert norm.vmax is not None
    return np.clip(values, norm.vmin, norm.vmax + 1)


def errors_db(profile: Profile, form: str) -> Array:
    """Squared error over signal in dB, a layer each; inf where the output was not finite, -inf where it was equal."""
    errors = profile.column(form, "error")
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(np.where(np.isfinite(errors), errors, np.inf) / profile.signal))
