"""Kernels have a time of their own on CUDA, whatever the host does, and settings are compared by it."""

import time

import pytest
import torch
from lab.parity_cases import save_medium_sd3

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec, sweep
from quantlab.config import LATENCIES, SensitivityConfig
from quantlab.errors import ConfigError
from quantlab.lab import evaluate
from quantlab.lab.kernel_times import kernel_times
from quantlab.lab.sensitivities import measure_sensitivities
from quantlab.metrics.latency import DEVICE_MS
from quantlab.sensitivity.predict import Predictor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("medium_sd3")
    save_medium_sd3(folder)
    overrides = (f"model.path={folder}", "evaluation.prompts=1", "evaluation.timesteps=4")
    with Lab.open("tiny_sd3", *overrides, device="cuda") as lab:
        yield lab


@pytest.fixture
def product():
    a = torch.randn(4096, 4096, device=CUDA, dtype=torch.float16)
    a @ a
    return lambda: a @ a


def test_a_stretch_holds_its_own_kernels_and_no_waiting_of_the_host(product):
    with kernel_times(CUDA) as times:
        product()
        with times.stretch():
            product()
            torch.cuda.synchronize()
            time.sleep(0.2)
        with times.stretch():
            pass
        with times.stretch():
            for _ in range(3):
                product()
    one, none, three = times.ms
    assert none == 0
    assert 0 < one < 100
    assert 2 < three / one < 4
    assert times.all_ms > one + three


def test_what_a_stretch_raises_goes_through_and_the_next_one_is_watched(product):
    with pytest.raises(RuntimeError, match="the setting's own"), kernel_times(CUDA) as times, times.stretch():
        raise RuntimeError("the setting's own")
    with kernel_times(CUDA) as times, times.stretch():
        product()
    assert times.ms[0] > 0


def test_kernels_that_the_profiler_does_not_see_are_an_answer_that_names_the_way_out(product, monkeypatch):
    monkeypatch.setattr("quantlab.lab.kernel_times._MARKER", "no such kernel")
    refused = pytest.raises(ConfigError, match=r"saw 0 of 2 kernels.* name latency_ms")
    with refused, kernel_times(CUDA) as times, times.stretch():
        product()


@pytest.mark.parametrize("spec", [ReferenceSpec(), Int8Spec(0.0), Int8Spec(6.0), Int4Spec()], ids=lambda spec: spec.key)
def test_a_setting_has_device_host_and_clock_time_with_their_spread(lab, spec):
    row = lab.measure(spec)
    assert set(LATENCIES) <= set(row.metrics)
    assert len(row.watched) == evaluate.WATCHED
    assert 0 < row.device_ms <= row.latency_ms
    assert 0 < row.host_ms <= 1.1 * row.latency_ms
    assert row.is_host_bound is (row.latency_ms > 1.1 * row.device_ms)
    found = row.interval(DEVICE_MS)
    assert found.low <= row.device_ms <= found.high


def test_watching_kernels_changes_no_output(lab):
    with_it = lab.measure(Int8Spec(6.0))
    lab.metrics, before = tuple(metric for metric in lab.metrics if not metric.watched), lab.metrics
    try:
        without = lab.measure(Int8Spec(6.0))
    finally:
        lab.metrics = before
    assert without.output_sha256 == with_it.output_sha256
    assert without.watched == ()


def test_a_study_on_cuda_is_compared_by_device_time(tmp_path):
    overrides = ("sweeps=threshold", "evaluation=quick", "evaluation.images=0", "space.llm_int8_threshold=[0,6]")
    study = sweep("tiny_sd3", *overrides, "device=cuda", results_dir=tmp_path, study="s")
    assert [metric.name for metric in study.objectives] == ["snr_db", "memory_bytes", "device_ms"]
    assert {"device_ms", "device_ms_low", "host_ms", "latency_ms", "host_bound"} <= set(study.table.columns)
    assert study.distinct["host_bound"].notna().all()
    assert {check.metric for check in study.drift} == {"device_ms"}


def test_layers_kernels_add_up_to_the_forward_and_predict_a_mixed_setting(lab):
    wanted = SensitivityConfig(samples=1)
    table = measure_sensitivities(lab, "transformer", wanted, {})
    reference = lab.measure(ReferenceSpec())
    assert table.has_device_times
    first = table.specs[0]
    layers = (table.column(first, "device_ms") - table.column(first, "device_change_ms")).sum()
    assert 0.2 * table.reference_device_ms < layers < table.reference_device_ms
    assert table.reference_device_ms == pytest.approx(reference.device_ms, rel=0.1)
    mixed = Int4Spec(skip=("attn",))
    predicted = Predictor(table).predict(mixed).device_ms
    assert predicted == pytest.approx(lab.measure(mixed).device_ms, rel=0.1)
