"""Layer sensitivities of a lab's components: which schemes and samples are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quantlab.config import SensitivityConfig
from quantlab.errors import ConfigError, unknown
from quantlab.lab.lab import Lab
from quantlab.lab.measurer import SensitivityMeasurer
from quantlab.lab.placement import check_sensitivities_fit
from quantlab.lab.samples import Sample
from quantlab.outcomes import SensitivityTable
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec


def sensitivity_specs(config: SensitivityConfig, compute_dtype: str) -> tuple[list[QuantSpec], list[QuantSpec]]:
    """The schemes whose error is measured, and those of which bytes and latency are enough.

    Raises:
        ConfigError: for a value that no spec accepts, and where nothing is left to measure.
    """
    nested, types = config.bnb_4bit_use_double_quant, config.bnb_4bit_quant_type
    whole: list[QuantSpec] = [Int8Spec(threshold) for threshold in config.llm_int8_threshold]
    whole += [Int4Spec(quant_type, double, compute_dtype) for double in nested for quant_type in types]
    if types and not nested:
        raise ConfigError("sensitivity.bnb_4bit_use_double_quant=[] is empty: give [false], [true] or both")
    if not whole:
        raise ConfigError(
            "sensitivity.llm_int8_threshold and sensitivity.bnb_4bit_quant_type are empty: nothing to measure"
        )
    rest: list[QuantSpec] = [Int4Spec(t, double, compute_dtype) for double in (False, True) for t in types]
    return list(dict.fromkeys(whole)), [spec for spec in dict.fromkeys(rest) if spec not in whole]


def chosen_samples(samples: Sequence[Sample], component: str, count: int | None) -> tuple[Sample, ...]:
    """The first samples of a component, which cover prompts and timesteps evenly; all where there are fewer.

    Raises:
        ConfigError: for fewer than one.
    """
    if count is not None and count < 1:
        raise ConfigError(f"sensitivity.samples={count} must be at least 1, or null for all")
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
        OutOfMemoryError: where its activations and one layer's schemes do not fit beside it.
        KernelError: where a layer cannot be made or a forward fails.
    """
    if component not in lab.layer_caches:
        raise unknown("component", component, lab.layer_caches)
    measurer = SensitivityMeasurer(
        lab.layer_caches[component],
        lab.device,
        chosen_samples(lab.sample_set.samples, component, config.samples),
        sensitivity_specs(config, lab.model.dtype.value),
        identity,
        resume,
        lambda: check_sensitivities_fit(lab.plan, lab.source),
        lab.source.fidelity_is_meaningful,
    )
    return lab.guard.within_memory(lambda: measurer.run(on_progress))
