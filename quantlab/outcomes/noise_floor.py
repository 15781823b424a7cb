"""The noise floor: what the reference's own rounding costs, beside which every SNR is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantlab.frozen import FrozenDict

RUN_TWICE, FLOAT32, BFLOAT16, COMPILED = "run twice", "float32", "bfloat16", "compiled"


@dataclass(frozen=True)
class NoiseFloor:
    """SNR in dB of the reference against itself on the sample set; 100 stands for identical.

    Attributes:
        snr_db: by how it was run: again as it is, loaded in float32 with its inputs cast to it, and likewise in
            bfloat16. The model's own dtype has the figure of "run twice". In a deployment that compiles, "compiled"
            is the uncompiled reference beside the compiled one. None where it was not measured.
        reasons: why a figure is None: "random_weights", "streamed", "loaded_pipeline", or the name of an
            `quantlab.outcomes.ErrorType`.
    """

    snr_db: FrozenDict[str, float | None]
    reasons: FrozenDict[str, str] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "snr_db", FrozenDict(self.snr_db))
        object.__setattr__(self, "reasons", FrozenDict(self.reasons))

    @property
    def floor_db(self) -> float | None:
        """The lowest of "run twice", "float32" and "compiled": what the reference's own rounding already costs.

        Bfloat16 is there for comparison: it is another dtype's rounding.
        """
        known = (self.snr_db.get(name) for name in (RUN_TWICE, FLOAT32, COMPILED))
        return min((db for db in known if db is not None), default=None)
