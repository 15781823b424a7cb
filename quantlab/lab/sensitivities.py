"""Layer sensitivities of a lab's components."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quantlab.config import SensitivityConfig
from quantlab.errors import unknown
from quantlab.lab.compilation import eager
from quantlab.lab.lab import Lab
from quantlab.lab.measurer import SensitivityMeasurer
from quantlab.lab.placement import check_sensitivities_fit
from quantlab.lab.samples import Sample
from quantlab.outcomes import SensitivityTable
from quantlab.sensitivity.schemes import schemes


def chosen_samples(samples: Sequence[Sample], component: str, count: int | None) -> tuple[Sample, ...]:
    """The first samples of a component, which cover prompts and timesteps evenly; all where there are fewer."""
    return tuple(sample for sample in samples if sample.component == component)[:count]


def measure_sensitivities(
    lab: Lab,
    component: str,
    config: SensitivityConfig,
    identity: Mapping[str, Any],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    resume: bool = True,
) -> SensitivityTable:
    """What every layer alone costs and saves in every scheme; what the cache folder holds is not measured again.

    Args:
        lab: of the model.
        component: whose layers.
        config: schemes and samples.
        identity: what the numbers depend on, as of `quantlab.study.identity`.
        on_progress: called with the layers done and all layers, over all samples.
        resume: start each forward at the block that changed; the results are the same without.

    Raises:
        ConfigError: for a component, a scheme or a number of samples that cannot be, and where something is to be
            measured and the unquantized component does not fit the device.
        OutOfMemoryError: where it does not fit together with its activations and one layer's schemes, or on CUDA with
            all of its layers in one scheme.
        KernelError: where a layer cannot be made or a forward fails.
    """
    if component not in lab.layer_caches:
        raise unknown("component", component, lab.layer_caches)
    wanted = schemes(config, lab.model.dtype.value)
    measurer = SensitivityMeasurer(
        lab.layer_caches[component],
        lab.device,
        chosen_samples(lab.sample_set.samples, component, config.samples),
        wanted,
        identity,
        resume,
        lambda: check_sensitivities_fit(lab.plan, lab.source),
        lab.source.fidelity_is_meaningful,
        any(metric.watched for metric in lab.metrics),
    )
    with eager() if lab.compiler.is_used else contextlib.nullcontext():  # each layer alone would be a layout of its own
        return lab.guard.within_memory(lambda: measurer.run(on_progress))
