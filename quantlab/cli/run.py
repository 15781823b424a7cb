"""``quantlab run``: one setting, measured and printed."""

from __future__ import annotations

from pathlib import Path

from quantlab.cli.console import console
from quantlab.config import QuantConfig, RunConfig
from quantlab.config.ranges import check_components
from quantlab.errors import ConfigError, MeasurementError, unknown
from quantlab.executors import Describe, Evaluate, LabSetup, MeasureNoiseFloor, open_executor
from quantlab.metrics.registry import portable, resolve
from quantlab.outcomes import Failure, LabDescription
from quantlab.report.text import (
    MEANINGLESS,
    count,
    failure_line,
    large_skip_entry_line,
    noise_floor_line,
    placement_line,
)
from quantlab.report.text.given import assumed_words, inert_lines
from quantlab.report.text.host_bound import HOST_BOUND
from quantlab.report.text.values import measured
from quantlab.session.given import matching
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.spec.config_file import Inert, read_quantization
from quantlab.spec.names import plain_name
from quantlab.spec.quant import METHODS

_FIELDS = {
    "llm_int8_threshold": "threshold",
    "llm_int8_has_fp16_weight": "has_fp16_weight",
    "bnb_4bit_quant_type": "quant_type",
    "bnb_4bit_use_double_quant": "double_quant",
    "bnb_4bit_compute_dtype": "compute_dtype",
    "bnb_4bit_quant_storage": "quant_storage",
}
"""What a spec calls the fields of BitsAndBytesConfig."""

_OF_METHOD = {
    Int8Spec.method: ("llm_int8_threshold", "llm_int8_has_fp16_weight"),
    Int4Spec.method: tuple(name for name in _FIELDS if name not in ("llm_int8_threshold", "llm_int8_has_fp16_weight")),
    ReferenceSpec.method: (),
}
"""The fields that act under a method."""


def main(config: RunConfig) -> int:
    """Measure one setting, every component alike, and print it."""
    model = config.model
    resolve(config.metrics)  # what is no metric ends before anything is opened
    check_components(model.components)
    spec, inert = _spec(config)
    named = portable(config.metrics, ())
    setup = LabSetup(model, config.evaluation, config.device, config.lab, named, deployment=config.deployment)
    with open_executor(setup, config.executor) as executor:
        metrics = resolve(config.metrics, device=executor.device)
        description = executor.submit(Describe()).result()
        assert isinstance(description, LabDescription)
        console.print(placement_line(description.placement))
        if description.assumed:
            console.print(f"not given, so taken: {assumed_words(description.assumed)}")
        if config.quant.file is not None:
            spec, unmatched = matching(spec, description.layers)
            for line in inert_lines([tuple(vars(one).values()) for one in inert], unmatched):
                console.print(f"note: {line}")
        name = plain_name(spec, model.dtype.value, model.skips)
        measurement = executor.submit(Evaluate(spec)).result()
        if isinstance(measurement, Failure):
            raise MeasurementError(f"{name}: {failure_line(measurement)}")
        floor = executor.submit(MeasureNoiseFloor()).result()
    console.print(f"\n{name}")
    for metric in metrics:
        meaning = f" ({MEANINGLESS})" if metric.fidelity and not measurement.fidelity_is_meaningful else ""
        console.print(f"  {metric.label:<26} {measured(metric, measurement)}{meaning}")
    by_timestep = [f"{snr:.1f} at {timestep:.0f}" for timestep, snr in measurement.snr_db_by_timestep.items()]
    if len(by_timestep) > 1:
        console.print(f"  {'SNR in dB by timestep':<26} {', '.join(by_timestep)}")
    console.print()
    layers = count(measurement.layers_quantized, "linear layer")
    console.print(
        f"{layers} quantized, {measurement.layers_kept} kept; peak memory by {measurement.peak_memory_source}"
    )
    if measurement.is_host_bound:
        console.print(f"host-bound: {HOST_BOUND}")
    console.print(noise_floor_line(floor))
    for note in measurement.notes:
        console.print(f"note: {large_skip_entry_line(note)}")
    if not measurement.fidelity_is_meaningful:
        console.print(f"note: fidelity is {MEANINGLESS}")
    return 0


def _spec(config: RunConfig) -> tuple[PipelineSpec, tuple[Inert, ...]]:
    """The setting, and what in a file of it does nothing."""
    model, quant = config.model, config.quant
    if quant.file is None:
        one = compose_spec(quant, _skip(config), model.dtype.value)
        return PipelineSpec.everywhere(one, model.components), ()
    spec, inert = read_quantization(Path(quant.file).expanduser(), model.components)
    if config.skip is not None:
        raise ConfigError(f"skip={config.skip!r} has no effect with quant={quant.file!r}, which has its own list")
    return spec, inert


def compose_spec(quant: QuantConfig, skip: tuple[str, ...], compute_dtype: str = "float16") -> QuantSpec:
    """The spec for a setting in the words of BitsAndBytesConfig; 4-bit computes in ``compute_dtype`` unless it says.

    Raises:
        ConfigError: for an unknown method, and for a field that has no effect under the method.
    """
    if quant.method not in METHODS:
        raise unknown("quant.method", quant.method, METHODS)
    given = {name: value for name, value in vars(quant).items() if name != "method" and value is not None}
    for name, value in given.items():
        if name not in _OF_METHOD[quant.method]:
            raise ConfigError(f"quant.{name}={value!r} has no effect with quant.method={quant.method!r}")
    fields = {_FIELDS[name]: value for name, value in given.items()}
    if quant.method == Int8Spec.method:
        return Int8Spec(skip=skip, **fields)
    if quant.method == Int4Spec.method:
        return Int4Spec(skip=skip, **{"compute_dtype": compute_dtype, **fields})
    if skip:
        raise ConfigError(f"skip={list(skip)} has no effect with quant.method='reference'")
    return ReferenceSpec()


def _skip(config: RunConfig) -> tuple[str, ...]:
    """A named list of the model, or a list of module names."""
    skip = config.skip
    if skip is None:
        return ()
    if isinstance(skip, str):
        if skip not in config.model.skip_lists:
            raise unknown("skip", skip, [*config.model.skip_lists, "[MODULE,...]"])
        return tuple(config.model.skip_lists[skip])
    if not isinstance(skip, list):
        raise ConfigError(f"skip={skip!r} must be a named list or [MODULE,...]")
    return tuple(skip)
