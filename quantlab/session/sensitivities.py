"""Layer sensitivities of a study: read where it holds them, else measured and kept."""

from __future__ import annotations

from quantlab.config import SweepConfig, Weights
from quantlab.errors import ConfigError, StudyError
from quantlab.executors import MeasureSensitivities
from quantlab.frozen import FrozenDict
from quantlab.outcomes import Failure, SensitivityTable
from quantlab.sensitivity.schemes import schemes
from quantlab.session.estimates import sensitivities_s
from quantlab.session.events import Phase, SensitivitiesMeasured
from quantlab.session.session import Session
from quantlab.spec import Int4Spec, Int8Spec
from quantlab.study import sensitivities as files
from quantlab.study.sensitivities import sensitivity_path
from quantlab.study.store import study_folder


def check_sensitivities(config: SweepConfig) -> None:
    """See that layer sensitivities can serve a sweep's space, before anything is measured.

    Raises:
        ConfigError: for random weights, and for a scheme of the space that would not be measured.
    """
    if config.model.weights is Weights.random:
        raise ConfigError(
            f"sampler.name={config.sampler.name.value!r} with space.skip={list(config.space.skip)} chooses layers by "
            "their errors, and the weights are random, so fidelity means nothing"
        )
    whole, _ = schemes(config.sensitivity, config.model.dtype.value)
    types = {spec.quant_type for spec in whole if isinstance(spec, Int4Spec)}
    space = config.space
    lacking = [t for t in space.bnb_4bit_quant_type if t not in types and Int4Spec.method in space.method]
    if lacking:
        raise ConfigError(f"sensitivity.bnb_4bit_quant_type={sorted(types)} lacks {lacking}, which the space holds")
    if Int8Spec.method in space.method and not config.sensitivity.llm_int8_threshold:
        raise ConfigError("sensitivity.llm_int8_threshold=[] is empty, and the space holds llm_int8")


def known_sensitivities(config: SweepConfig) -> bool:
    """Whether the study holds the layer sensitivities of every component."""
    folder = study_folder(config.results_dir, config.study)
    return all(sensitivity_path(folder, component).exists() for component in config.model.components)


def measured_sensitivities(session: Session) -> dict[str, SensitivityTable]:
    """The sensitivities of every component's layers; what is known of them is not measured again.

    Raises:
        StudyError: where the study holds sensitivities of something else, or measured in another way.
        MeasurementError: where the device's memory does not suffice.
    """
    return {component: _of_component(session, component) for component in session.config.model.components}


def _of_component(session: Session, component: str) -> SensitivityTable:
    file = sensitivity_path(session.store.folder, component)
    config, description = session.config.sensitivity, session.description
    whole, rest = schemes(config, session.config.model.dtype.value)
    samples = description.samples if config.samples is None else min(config.samples, description.samples)
    identity = session.identity | {"component": component}
    damaged = False
    if file.exists():
        try:
            known = files.load(file)
        except files.DamagedTableError:
            damaged = True
        else:
            known.check(identity)
            if (set(known.measured_specs), set(known.specs)) == (
                set(whole),
                {*whole, *rest},
            ) and known.samples == samples:
                return known
            before, now = (", ".join(spec.key for spec in specs) for specs in (known.measured_specs, whole))
            raise StudyError(
                f"study={session.store.folder.name!r} holds sensitivities of {before} on {known.samples} samples, now "
                f"it is {now} on {samples}; choose another study=NAME or restore sensitivity."
            )
    layers = sum(not layer.always_kept for layer in description.layers[component])
    estimate_s = sensitivities_s(session.config, description, layers * samples * len(whole))
    with session.phase(Phase.sensitivities, layers * samples, estimate_s):
        outcome = session.do(MeasureSensitivities(component, config, FrozenDict(identity)))
    if isinstance(outcome, Failure):
        raise StudyError(f"layer sensitivities cannot be measured here: {outcome.message}")
    assert isinstance(outcome, SensitivityTable)
    session.store.claim({f"sensitivities of {component}": outcome.fingerprint})
    files.save(outcome, file)
    session.on_event(SensitivitiesMeasured(outcome, damaged))
    return outcome
