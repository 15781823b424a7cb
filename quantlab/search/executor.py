"""Where settings are measured: one seam, so that the driver need not know how many devices there are."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from quantlab.measurement import Failure, Outcome, Watch
from quantlab.spec import QuantSpec

if TYPE_CHECKING:
    from quantlab.lab import Lab


class Executor(Protocol):
    """Measures specs somewhere."""

    def submit(self, spec: QuantSpec, probes: int | None = None, watch: Watch | None = None) -> Future[Outcome]:
        """Begin to measure a spec; the future holds an outcome, never a trial's error.

        Args:
            spec: the setting.
            probes: measure on so many of the first probes only; None for all.
            watch: may stop the measurement after any probe.
        """
        ...

    def check(self) -> None:
        """See that more can be measured.

        Raises:
            DeviceLostError: where a trial's error has broken the device's context.
        """
        ...


class InProcess:
    """Measures in this process, one setting after another.

    Args:
        lab: where to measure.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def submit(self, spec: QuantSpec, probes: int | None = None, watch: Watch | None = None) -> Future[Outcome]:
        """Measure now; the future is done when it is returned."""
        future: Future[Outcome] = Future()
        start = time.perf_counter()
        try:
            future.set_result(self._lab.measure(spec, probes, watch))
        except Exception as error:  # whatever a kernel raises is this setting's outcome, not the study's end
            reason = " ".join(str(error).split())[:500]
            future.set_result(Failure(spec.key, type(error).__name__, reason, time.perf_counter() - start))
            self._lab.check_device()
        return future

    def check(self) -> None:
        """See that the device still computes."""
        self._lab.require_device()
