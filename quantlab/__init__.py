"""quantlab finds the best BitsAndBytesConfig for a diffusion model by measuring it.

Example:
    >>> import quantlab
    >>> with quantlab.Lab.open("tiny_sd3") as lab:  # doctest: +SKIP
    ...     row = lab.measure(quantlab.Int4Spec(quant_type="nf4"))
    ...     print(row.snr_db, row.memory_bytes, row.latency_ms)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.errors import QuantlabError
from quantlab.measurement import Failure, Measurement, Pruned
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

if TYPE_CHECKING:
    from quantlab.lab import Lab
    from quantlab.report import open_study

__all__ = [
    "Failure",
    "Int4Spec",
    "Int8Spec",
    "Lab",
    "Measurement",
    "Pruned",
    "QuantSpec",
    "QuantlabError",
    "ReferenceSpec",
    "open_study",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for, so that ``--help`` is quick."""
    if name == "Lab":
        from quantlab.lab import Lab

        return Lab
    if name == "open_study":
        from quantlab.report import open_study

        return open_study
    raise AttributeError(f"module 'quantlab' has no attribute {name!r}")
