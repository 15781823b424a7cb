from __future__ import annotations

import dataclasses

from fakes import measurement, pipeline, sample

from quantlab.outcomes import Measurement
from quantlab.spec import Int8Spec
from quantlab.study.noise_floor import indistinguishable

SPEC = pipeline(Int8Spec())


def with_errors(*errors: float) -> Measurement:
    samples = tuple(sample(index // 2, index % 2, error) for index, error in enumerate(errors))
    return dataclasses.replace(measurement(SPEC, 60.0), samples=samples)


def test_a_setting_is_indistinguishable_only_where_its_interval_reaches_the_noise_floor() -> None:
    even = with_errors(1e-6, 1e-6, 1e-6, 1e-6)  # 60 dB on any resample
    assert indistinguishable(even, 59.9) is True
    assert indistinguishable(even, 60.1) is False
    uneven = with_errors(4e-9, 4e-9, 2e-6, 2e-6)  # about 60 dB, and 57 where the second prompt is resampled twice
    assert indistinguishable(uneven, 59.0) is False


def test_with_a_single_sample_the_snr_itself_is_compared() -> None:
    single = measurement(SPEC, 60.0)
    assert indistinguishable(single, 59.9) is True
    assert indistinguishable(single, 60.1) is False


def test_without_a_noise_floor_an_snr_or_weights_of_its_own_nothing_is_claimed() -> None:
    m = measurement(SPEC, 60.0)
    assert indistinguishable(m, None) is None
    assert indistinguishable(dataclasses.replace(m, fidelity_is_meaningful=False), 10.0) is None
    assert indistinguishable(dataclasses.replace(m, metrics={"latency_ms": 1.0}), 10.0) is None
