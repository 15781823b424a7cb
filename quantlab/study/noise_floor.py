"""Whether a setting is closer to the reference than the reference's own rounding."""

from __future__ import annotations

from quantlab.metrics.prediction import SNR_DB
from quantlab.outcomes import Measurement


def indistinguishable(measurement: Measurement, floor_db: float | None) -> bool | None:
    """Whether a setting is no further from the reference than the reference's own rounding is.

    It is where the lower end of its SNR's interval reaches the noise floor, so that chance alone seldom makes it so;
    the SNR itself where a single sample gives no interval. None where there is no noise floor, no SNR, or fidelity
    means nothing.
    """
    if floor_db is None or SNR_DB.name not in measurement.metrics or not measurement.fidelity_is_meaningful:
        return None
    found = measurement.interval(SNR_DB)
    return (measurement.metrics[SNR_DB.name] if found is None else found.low) >= floor_db
