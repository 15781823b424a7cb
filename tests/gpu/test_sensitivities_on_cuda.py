"""A sensitivities on CUDA: block resume, bytes, and automatic lists that load."""

import pytest
import torch
from lab.parity_cases import documented, in_memory

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.config import BudgetConfig, SensitivityConfig
from quantlab.sensitivity.auto import AutoSkip, with_skip
from quantlab.sensitivity.front import best_within
from quantlab.sensitivity.predict import Predictor
from quantlab.study.identity import identity

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CONFIG = SensitivityConfig(samples=1, llm_int8_threshold=[0.0, 6.0], bnb_4bit_quant_type=["nf4"])
FORMS = [Int8Spec(0.0), Int8Spec(6.0), Int4Spec("nf4"), Int4Spec("nf4", double_quant=True)]


@pytest.fixture(scope="module")
def with_sensitivities():
    with Lab.open("tiny_sd3_outliers", "evaluation.prompts=1", "evaluation.timesteps=2", device="cuda") as lab:
        identity = identity(lab.model, lab.evaluation, lab.fingerprint, lab.sample_set.fingerprint, lab.provenance)
        yield lab, lab.sensitivities(CONFIG, identity), lab.sensitivities(CONFIG, identity, resume=False)


def test_block_resume_finds_the_errors_of_whole_forwards_bit_for_bit(with_sensitivities):
    _, resumed, whole = with_sensitivities
    assert resumed.table["error"].equals(whole.table["error"])
    assert (resumed.table["error"].dropna() > 0).any()


def test_bytes_of_layers_add_up_to_what_settings_hold(with_sensitivities):
    lab, sensitivities, _ = with_sensitivities
    predictor = Predictor(sensitivities)
    for form in FORMS:
        for share in (0.0, 0.1, 0.4):
            spec = with_skip(form, AutoSkip(sensitivities).skip(form, share))
            assert predictor.predict(spec).memory_bytes == lab.measure(spec).memory_bytes


def test_an_automatic_list_loads_as_documented_to_the_measured_outputs(with_sensitivities):
    lab, sensitivities, _ = with_sensitivities
    for form in FORMS:
        spec = with_skip(form, AutoSkip(sensitivities).skip(form, 0.2))
        assert in_memory(lab, spec) == documented(lab, spec)


def test_the_best_within_a_budget_keeps_its_memory_and_beats_the_plain_form(with_sensitivities):
    lab, sensitivities, _ = with_sensitivities
    plain = lab.measure(Int4Spec("nf4"))
    candidate = best_within(Predictor(sensitivities), FORMS[2:3], BudgetConfig(memory_mb=1.3 * plain.memory_bytes / 1e6))
    best = lab.measure(candidate.spec)
    assert best.memory_bytes <= 1.3 * plain.memory_bytes
    assert best.snr_db > plain.snr_db + 3


def test_the_component_is_the_reference_again_after_a_sensitivities(with_sensitivities):
    lab, _, _ = with_sensitivities
    assert lab.measure(ReferenceSpec()).snr_db == 100
