"""``quantlab run``: one setting, one row."""

from __future__ import annotations

from quantlab.cli.show import console, rows_table
from quantlab.config import QuantConfig, RunConfig
from quantlab.errors import ConfigError, MeasurementError, QuantlabError, unknown
from quantlab.lab import Lab
from quantlab.measurement import MEANINGLESS
from quantlab.spec import METHODS, Int4Spec, Int8Spec, QuantSpec, ReferenceSpec
from quantlab.study.rows import Row


def main(config: RunConfig) -> int:
    """Measure and print."""
    spec = compose_spec(config.quant, _skip(config), config.model.dtype.value)
    with Lab(config.model, config.score, config.device, config.lab) as lab:
        console.print(f"reference {lab.residency}")
        try:
            measurement = lab.measure(spec)
        except RuntimeError as error:  # what torch raises for a setting that a kernel does not take
            if isinstance(error, QuantlabError):
                raise
            raise MeasurementError(f"{spec.key}: {' '.join(str(error).split())[:300]}") from error
        console.print(rows_table([Row(0, spec, measurement)], lambda row: row.spec.key))
        if not measurement.fidelity_is_meaningful:
            console.print(f"note: fidelity is {MEANINGLESS}")
        console.print(
            f"{measurement.layers_quantized} linear layers quantized, {measurement.layers_kept} kept; relative L2 "
            f"{measurement.rel_l2:.4f}, cosine {measurement.cosine:.6f}; peak by {measurement.peak_memory_source}"
        )
        by_timestep = ", ".join(f"{t:.0f}: {snr:.1f}" for t, snr in measurement.snr_db_by_timestep.items())
        console.print(f"SNR in dB by timestep: {by_timestep}")
        console.print(lab.noise_floor().line)
        for note in measurement.notes:
            console.print(f"note: {note}")
    return 0


def compose_spec(quant: QuantConfig, skip: tuple[str, ...], compute_dtype: str = "float16") -> QuantSpec:
    """The spec for a setting in the words of BitsAndBytesConfig; 4-bit computes in ``compute_dtype`` unless it says.

    Raises:
        ConfigError: for an unknown method, and for a field that has no effect under the method.
    """
    if quant.method not in METHODS:
        raise unknown("quant.method", quant.method, METHODS)
    given = {name: value for name, value in vars(quant).items() if name != "method" and value is not None}
    for name in given:
        if not name.startswith(quant.method):
            raise ConfigError(f"quant.{name}={given[name]!r} has no effect with quant.method={quant.method!r}")
    if quant.method == ReferenceSpec.method:
        if skip:
            raise ConfigError(f"skip={list(skip)} has no effect with quant.method='reference'")
        return ReferenceSpec()
    if quant.method == Int8Spec.method:
        fields = {"llm_int8_threshold": "threshold", "llm_int8_has_fp16_weight": "has_fp16_weight"}
        return Int8Spec(skip=skip, **{fields[name]: value for name, value in given.items()})
    fields = {
        "bnb_4bit_quant_type": "quant_type",
        "bnb_4bit_use_double_quant": "double_quant",
        "bnb_4bit_compute_dtype": "compute_dtype",
        "bnb_4bit_quant_storage": "quant_storage",
    }
    given = {"bnb_4bit_compute_dtype": compute_dtype, **given}
    return Int4Spec(skip=skip, **{fields[name]: value for name, value in given.items()})


def _skip(config: RunConfig) -> tuple[str, ...]:
    """A named list of the model, or a list of module names."""
    skip = config.skip
    if skip is None:
        return ()
    if isinstance(skip, str):
        if skip not in config.model.skips:
            raise unknown("skip", skip, [*config.model.skips, "[MODULE,...]"])
        return tuple(config.model.skips[skip])
    if not isinstance(skip, list):
        raise ConfigError(f"skip={skip!r} must be a named list or [MODULE,...]")
    return tuple(skip)
