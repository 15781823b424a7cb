"""What a person's own configuration holds that does nothing here, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quantlab.metrics.pareto import costs
from quantlab.report.text.outcomes import row_figures
from quantlab.spec import PipelineSpec
from quantlab.study.front import compared, measured

if TYPE_CHECKING:
    from quantlab.study.study import Study

_REASONS = {
    "method": "has no effect under its method",
    "placement": "says where modules may stay, and is not measured here",
    "unknown": "is no field of BitsAndBytesConfig",
}


def assumed_words(assumed: Mapping[str, Any]) -> str:
    """What a pipeline is called with that nobody gave, as of `quantlab.outcomes.LabDescription`."""
    return ", ".join(
        f"{name}={value} (the pipeline's own)" if isinstance(value, int) else f"model.inputs.{name}={value} (drawn)"
        for name, value in assumed.items()
    )


def accelerator_line(name: str, is_supported: bool) -> str:
    """That the machine has an accelerator on which nothing is measured."""
    runs = "runs" if is_supported else "does not run"
    where = "quantlab measures on CUDA, ROCm and CPUs"
    return f"this machine's {name.upper()} is not used: {where} (bitsandbytes {runs} on it)"


def inert_lines(inert: Iterable[Sequence[Any]], unmatched: Iterable[str]) -> list[str]:
    """A line for each field and skip entry that does nothing.

    Args:
        inert: component, field, value and reason of each, as of `quantlab.spec.config_file.Inert`.
        unmatched: skip entries that match no linear layer.
    """
    lines = []
    for component, field, value, reason in inert:
        if reason == "component":
            lines.append(f"{component or field} of the file is not quantized here")
        else:
            lines.append(f"{component}: {field}={value!r} of the file {_REASONS[reason]}")
    return [*lines, *(f"skip entry {entry!r} of the file matches no linear layer" for entry in unmatched)]


def standing_line(study: Study) -> str:
    """Whether a person's own configuration is on the front, and what beats it where it is not; empty without one."""
    quant = study.config.own_quant
    pairs = measured(study.rows, study.objectives)
    own = next(((r, m) for r, m in pairs if quant and r.spec == PipelineSpec.from_dict(quant["setting"])), None)
    if own is None:
        return ""
    row, measurement = own
    name = f"{quant['file']} (trial {row.number}, {row.name})"
    if row.number in {member.number for member in study.front_rows}:
        return f"{name} is on the front"
    by = compared(pairs, study.objectives)
    (mine,) = costs([measurement.metrics], by)
    for member in study.front_rows:
        other = member.measurement
        if other is not None and (costs([other.metrics], by)[0] <= mine).all():
            figures = f"{row_figures(other, by)}, against {row_figures(measurement, by)}"
            return f"{name} is not on the front: trial {member.number}, {member.name}, beats it ({figures})"
    return f"{name} is not on the front"
