"""The proof: what a config that was loaded the documented way gave."""

from __future__ import annotations

from dataclasses import dataclass

from quantlab.spec import PipelineSpec


@dataclass(frozen=True)
class Verification:
    """A setting, loaded by ``from_pretrained`` and run on the study's samples.

    Attributes:
        spec: the setting.
        equal: whether all outputs equal the measured ones, bit for bit.
        snr_db: of what was loaded, against the reference.
        output_sha256: digest of its outputs.
    """

    spec: PipelineSpec
    equal: bool
    snr_db: float
    output_sha256: str
