"""The proof: a config loaded the documented way gives the outputs that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from quantlab.config import Device
from quantlab.errors import StudyError
from quantlab.lab.memory import limit_memory, out_of_memory_explained
from quantlab.lab.probes import load as load_probes
from quantlab.lab.provenance import provenance, set_threads
from quantlab.lab.replay import replay
from quantlab.measurement import Pruned, snr_db
from quantlab.models.load import component_class, load_component, resolve_device
from quantlab.models.random import on_disk
from quantlab.report.view import StudyView
from quantlab.study.identity import check_identity, identity
from quantlab.study.rows import Row

if TYPE_CHECKING:
    from diffusers import BitsAndBytesConfig


@dataclass(frozen=True)
class Proof:
    """What loading a config the documented way gave.

    Attributes:
        row: the row it is compared with.
        equal: whether all outputs equal the measured ones, bit for bit.
        snr_db: SNR of the loaded component, in dB.
    """

    row: Row
    equal: bool
    snr_db: float


def verify(study: StudyView, row: Row, config: BitsAndBytesConfig | None, device: Device = Device.auto) -> Proof:
    """Load the component by ``from_pretrained`` under a config, run the probe set, and compare.

    Random weights are written to the cache folder for the while, to be loaded from there.

    Args:
        study: the study that measured the row.
        row: what was measured.
        config: what was exported; None for the unquantized reference.
        device: where; it must be what the study was measured on.

    Raises:
        StudyError: where the row has no measurement, or this device or these libraries are not the study's.
    """
    m = row.measurement
    if isinstance(row.outcome, Pruned):
        raise StudyError(f"trial={row.number} was {row.outcome}; there is nothing to verify")
    if m is None:
        raise StudyError(f"trial={row.number} failed, so there is nothing to verify")
    where = resolve_device(device)
    set_threads(m.provenance.get("threads"))
    check_identity(study.name, study.identity, _here(study, where))
    probe_set = load_probes(study.folder / "probes.safetensors", where)
    lift_limit = limit_memory(where, study.config.lab.limit_gb)
    component = None
    try:
        with out_of_memory_explained(where, f"verifying {row.spec.key}"):
            with on_disk(study.model, where) as model:
                component = load_component(model, component_class(model), config, where)
            result = replay(component, probe_set, where)
    finally:
        component = None
        lift_limit()
        if where.type == "cuda":
            torch.cuda.empty_cache()
    return Proof(row, result.output_sha256 == m.output_sha256, snr_db(result.signal, result.error))


def _here(study: StudyView, device: torch.device) -> dict[str, str]:
    """The part of the identity that this machine decides."""
    current = identity(study.model, study.config.score, "", "", provenance(device))
    return {name: current[name] for name in ("device", "libraries")}
