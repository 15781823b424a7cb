"""Layer sensitivities on CUDA: block resume, bytes, and automatic lists that load."""

import pytest
import torch
from lab.parity_cases import documented, in_memory

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.config import SensitivityConfig
from quantlab.lab import measure_sensitivities
from quantlab.metrics.budget import Budget, Limit
from quantlab.metrics.memory import MEMORY_BYTES
from quantlab.metrics.prediction import SNR_DB
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.front import best_within
from quantlab.sensitivity.predict import Predictor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CONFIG = SensitivityConfig(samples=1, llm_int8_threshold=[0.0, 6.0], bnb_4bit_quant_type=["nf4"])
SCHEMES = [Int8Spec(0.0), Int8Spec(6.0), Int4Spec("nf4"), Int4Spec("nf4", double_quant=True)]


@pytest.fixture(scope="module")
def measured():
    """The lab, and its sensitivities by blocks and by whole forwards."""
    with Lab.open("tiny_sd3_outliers", "evaluation.prompts=1", "evaluation.timesteps=2", device="cuda") as lab:
        identity = {"model": lab.source.fingerprint, "sample set": lab.sample_set.fingerprint}
        resumed, whole = (
            measure_sensitivities(lab, "transformer", CONFIG, identity, resume=resume) for resume in (True, False)
        )
        yield lab, resumed, whole


def test_block_resume_finds_the_errors_of_whole_forwards_bit_for_bit(measured):
    _, resumed, whole = measured
    assert resumed.table["error"].equals(whole.table["error"])
    assert (resumed.table["error"].dropna() > 0).any()


def test_bytes_of_layers_add_up_to_what_settings_hold(measured):
    lab, sensitivities, _ = measured
    predictor = Predictor(sensitivities)
    for scheme in SCHEMES:
        for share in (0.0, 0.1, 0.4):
            spec = scheme.with_skip(AutoSkip(sensitivities).skip(scheme, share))
            assert predictor.predict(spec).metrics["memory_bytes"] == lab.measure(spec).memory_bytes


def test_an_automatic_list_loads_as_documented_to_the_measured_outputs(measured):
    lab, sensitivities, _ = measured
    for scheme in SCHEMES:
        spec = scheme.with_skip(AutoSkip(sensitivities).skip(scheme, 0.2))
        assert in_memory(lab, spec) == documented(lab, spec)


def test_the_best_within_a_budget_keeps_its_memory_and_beats_the_plain_scheme(measured):
    lab, sensitivities, _ = measured
    plain = lab.measure(Int4Spec("nf4"))
    budget = Budget((Limit("memory_bytes", "max", 1.3 * plain.memory_bytes),))
    candidate = best_within(Predictor(sensitivities), SCHEMES[2:3], budget, (SNR_DB, MEMORY_BYTES))
    best = lab.measure(candidate.spec)
    assert best.memory_bytes <= 1.3 * plain.memory_bytes
    assert best.snr_db > plain.snr_db + 3


def test_the_component_is_the_reference_again_afterwards(measured):
    lab, _, _ = measured
    assert lab.measure(ReferenceSpec()).snr_db == 100
