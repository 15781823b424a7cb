"""Measures the noise floor: the reference against its own recorded outputs, as it is and in other dtypes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from quantlab.config import Dtype
from quantlab.errors import MeasurementError
from quantlab.lab.adapters import adapted
from quantlab.lab.compilation import eager
from quantlab.lab.lab import Lab
from quantlab.lab.memory import collect
from quantlab.lab.replay import replay
from quantlab.lab.samples import SampleSet
from quantlab.outcomes import NoiseFloor
from quantlab.outcomes.noise_floor import BFLOAT16, COMPILED, FLOAT32, RUN_TWICE
from quantlab.spec import ReferenceSpec

STREAMED = "streamed"
"""Why a reference is not loaded in another dtype: a second one does not fit beside it."""

_DTYPES = {FLOAT32: Dtype.float32, BFLOAT16: Dtype.bfloat16}


def measure_noise_floor(lab: Lab) -> NoiseFloor:
    """Run the references again, uncompiled as well, and in float32 and bfloat16, all on the same samples."""
    found: dict[str, float | None] = dict.fromkeys(
        (RUN_TWICE, *_DTYPES, *((COMPILED,) if lab.compiler.is_used else ()))
    )
    if not lab.source.fidelity_is_meaningful:
        return NoiseFloor(found, dict.fromkeys(found, lab.source.fixed_dtype))  # type: ignore[arg-type]
    reasons: dict[str, str] = {}

    def note(name: str, work: Callable[[], float]) -> None:
        try:
            found[name] = lab.guard.within_memory(work)
        except MeasurementError as error:
            reasons[name] = error.code

    def again() -> float:
        return replay(lab.assemble(ReferenceSpec()), lab.sample_set, lab.device, warmup=1).snr_db

    note(RUN_TWICE, again)
    if lab.compiler.is_used:
        with eager():
            note(COMPILED, again)
    fixed = STREAMED if lab.plan.placement.streamed else lab.source.fixed_dtype
    for name, dtype in _DTYPES.items():
        if dtype is lab.model.dtype:
            found[name] = found[RUN_TWICE]
            reasons |= {name: reasons[RUN_TWICE]} if RUN_TWICE in reasons else {}
        elif fixed:
            reasons[name] = fixed
        else:
            note(name, lambda dtype=dtype: _loaded(lab, dtype))  # type: ignore[misc]
    return NoiseFloor(found, reasons)  # type: ignore[arg-type]


def _loaded(lab: Lab, dtype: Dtype) -> float:
    """SNR in dB of the components loaded in a dtype; their memory is given back."""
    lab.assemble(ReferenceSpec())
    wanted = getattr(torch, dtype.value)
    samples = [dataclasses.replace(s, inputs=cast(s.inputs, wanted)) for s in lab.sample_set.samples]
    loaded: Mapping[str, nn.Module] = {}
    try:
        loaded = {name: lab.source.component(name, lab.device, dtype=dtype) for name in lab.model.components}
        with adapted(loaded, lab.deployment.lora, lab.source), _full_float32():
            return replay(loaded, SampleSet(tuple(samples), ""), lab.device, warmup=1).snr_db
    finally:
        del loaded, samples
        collect(lab.device)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """A call's argument with every floating tensor in it, at any depth, in another dtype."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: cast(item, dtype) for name, item in value.items()}
    return [cast(item, dtype) for item in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Keep convolutions in float32 where they would be rounded to TF32, whose mantissa is no longer than float16's.

    Matrix products are float32 unless a program asks for less, and quantlab does not.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
