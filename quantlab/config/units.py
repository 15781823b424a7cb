"""Reads quantities: numbers, or text with a unit. GB is 10^9 bytes and GiB 2^30."""

from __future__ import annotations

import math
import re
from typing import Any

from quantlab.errors import ConfigError

_BYTES: dict[str, float] = {"B": 1, "": 1}
_BYTES |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", start=1)}
_BYTES |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)}
_PREFIXES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_UNITS: dict[str, dict[str, float]] = {"bytes": _BYTES, "ms": {"ms": 1, "s": 1000, "": 1}}


def quantity(value: Any, unit: str, field: str) -> float:
    """A number in a unit.

    Args:
        value: a number, or text such as "2.2GB", "16 GiB" or "150 ms".
        unit: "bytes", "ms", or another that text may only repeat.
        field: what the user set, for errors.

    Raises:
        ConfigError: for anything else, and for NaN.
    """
    factors = _UNITS.get(unit, {unit: 1, "": 1})
    found = re.fullmatch(r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*", str(value))
    if isinstance(value, bool) or (found is None and not isinstance(value, int | float)):
        raise ConfigError(f"{field}={value!r} must be a number{_or_text(unit)}")
    if isinstance(value, int | float):
        number = float(str(value))  # an integer beyond the floats is infinite, as a float of so many digits is
    else:
        assert found is not None
        if found[2] not in factors:
            known = ", ".join(name for name in factors if name)
            raise ConfigError(f"{field}={value!r} has the unit {found[2]!r}; choose from {known}")
        try:
            number = float(found[1]) * factors[found[2]]
        except ValueError:
            raise ConfigError(f"{field}={value!r} must be a number{_or_text(unit)}") from None
    if math.isnan(number):
        raise ConfigError(f"{field}={value!r} must be a number{_or_text(unit)}")
    return number


def _or_text(unit: str) -> str:
    return {"bytes": ", or text such as 2.2GB or 2GiB", "ms": ", or text such as 150ms"}.get(unit, "")


def prefix(size: float) -> tuple[float, str]:
    """The largest unit that a size reaches, in powers of 1000: its bytes and its name, such as ``(1e6, "MB")``."""
    return next(((factor, name) for factor, name in _PREFIXES if abs(size) >= factor), (1.0, "bytes"))


def human_bytes(size: float) -> str:
    """Bytes for people, in powers of 1000: "2.48 MB", "11.9 GB"."""
    factor, name = prefix(float(f"{size:.3g}"))  # as it will be read: 999.9 MB is 1 GB
    return f"{size / factor:.3g} {name}"
