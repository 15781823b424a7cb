"""quantlab finds the best BitsAndBytesConfig for a diffusion model by measuring it.

Example:
    >>> import quantlab
    >>> study = quantlab.sweep("tiny_sd3", budget={"memory_bytes": {"max": "3MB"}})  # doctest: +SKIP
    >>> study.winner.spec["transformer"].to_config()  # doctest: +SKIP
    BitsAndBytesConfig {...}
    >>> with quantlab.Lab.open("tiny_sd3") as lab:  # doctest: +SKIP
    ...     print(lab.measure(quantlab.Int4Spec("nf4")).snr_db)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from quantlab.errors import QuantlabError
from quantlab.metrics import Metric, metric
from quantlab.outcomes import Failure, Measurement, Pruned
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec

if TYPE_CHECKING:
    from quantlab.lab import Lab
    from quantlab.session.calls import measure_sensitivities, sweep
    from quantlab.study.study import Study, open_study

__all__ = [
    "Failure",
    "Int4Spec",
    "Int8Spec",
    "Lab",
    "Measurement",
    "Metric",
    "PipelineSpec",
    "Pruned",
    "QuantSpec",
    "QuantlabError",
    "ReferenceSpec",
    "Study",
    "measure_sensitivities",
    "metric",
    "open_study",
    "sweep",
]

_LATER = {
    "Lab": "quantlab.lab",
    "Study": "quantlab.study.study",
    "measure_sensitivities": "quantlab.session.calls",
    "open_study": "quantlab.study.study",
    "sweep": "quantlab.session.calls",
}


def __getattr__(name: str) -> Any:
    """Import what takes a while only when it is asked for, so that ``--help`` is quick."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'quantlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What the package offers, what is imported later among it."""
    return list(__all__)
