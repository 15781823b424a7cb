"""Measures the noise floor: the reference against its own recorded outputs, as it is and in other dtypes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from quantlab.config import Dtype, ModelConfig, Weights
from quantlab.errors import NonFiniteOutputError, OutOfMemoryError
from quantlab.floor import NoiseFloor
from quantlab.lab.memory import collect
from quantlab.lab.probes import ProbeSet
from quantlab.lab.replay import replay
from quantlab.measurement import MEANINGLESS, snr_db
from quantlab.models.load import component_class, load_component, torch_dtype

_NAMES = {"run twice": None, "float32": Dtype.float32, "bfloat16": Dtype.bfloat16}

STREAMED = "the reference is streamed: a second one does not fit beside it"


def noise_floor(
    model: ModelConfig,
    probe_set: ProbeSet,
    device: torch.device,
    reference: Callable[[], nn.Module],
    within_memory: Callable[[Callable[[], float]], float],
    streamed: bool = False,
) -> NoiseFloor:
    """Run the reference again, and load it in float32 and in bfloat16, all on the same probes.

    Args:
        model: the model.
        probe_set: on the device.
        device: where it runs.
        reference: gives the reference, ready to run.
        within_memory: does a piece of work and is whole after running out of memory, which it says in one line.
        streamed: whether the reference does not stay on the device.
    """
    found: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, dtype in _NAMES.items():
        found[name] = None
        if model.weights is Weights.random:
            reasons[name] = MEANINGLESS
        elif dtype is model.dtype:
            found[name] = found["run twice"]
            if "run twice" in reasons:
                reasons[name] = reasons["run twice"]
        elif dtype is not None and streamed:
            reasons[name] = STREAMED
        else:
            try:
                if dtype is None:
                    found[name] = within_memory(lambda: _compared(reference(), probe_set, device))
                else:
                    other = dataclasses.replace(model, dtype=dtype)
                    found[name] = within_memory(lambda other=other: _loaded(other, probe_set, device))  # type: ignore[misc]
            except (OutOfMemoryError, NonFiniteOutputError) as error:
                reasons[name] = str(error)
    return NoiseFloor(found["run twice"], found["float32"], found["bfloat16"], reasons)


def _loaded(model: ModelConfig, probe_set: ProbeSet, device: torch.device) -> float:
    """SNR in dB of the component loaded by `from_pretrained` in the model's dtype; its memory is given back."""
    dtype = torch_dtype(model)
    probes = tuple(dataclasses.replace(probe, inputs=cast(probe.inputs, dtype)) for probe in probe_set.probes)
    component = None
    try:
        component = load_component(model, component_class(model), None, device)
        with _full_float32():
            return _compared(component, dataclasses.replace(probe_set, probes=probes), device)
    finally:
        del component, probes
        collect(device)


def _compared(component: nn.Module, probe_set: ProbeSet, device: torch.device) -> float:
    result = replay(component, probe_set, device, warmup=1)
    return snr_db(result.signal, result.error)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """A call's argument with every floating tensor in it, at any depth, in another dtype."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: cast(item, dtype) for name, item in value.items()}
    return [cast(item, dtype) for item in value] if isinstance(value, list) else value


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
