from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantlab.metrics import Evidence
from quantlab.metrics.latency import LATENCY_MS
from quantlab.metrics.prediction import COSINE, IDENTICAL_DB, REL_L2, SNR_DB, observe, snr_db

METRICS = (SNR_DB, REL_L2, COSINE)


def measured(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """The metrics of samples, each an output and its reference."""
    observed = [observe((output,), (reference,)) for output, reference in pairs]
    columns = {name: np.array([float(one[name]) for one in observed]) for name in observed[0]}
    evidence = Evidence({}, columns, 0, 0)
    return {metric.name: metric.compute(evidence) for metric in METRICS}


def test_they_are_those_of_all_samples_as_one_vector() -> None:
    torch.manual_seed(0)
    references = [torch.randn(3, 4), torch.randn(3, 4)]
    outputs = [one + 0.1 * torch.randn(3, 4) for one in references]
    found = measured(list(zip(outputs, references, strict=True)))
    out, ref = (torch.cat([one.flatten().double() for one in some]) for some in (outputs, references))
    error = (out - ref).norm() / ref.norm()
    assert found["rel_l2"] == pytest.approx(float(error))
    assert found["snr_db"] == pytest.approx(-20 * math.log10(error))
    assert found["cosine"] == pytest.approx(float(torch.nn.functional.cosine_similarity(out, ref, dim=0)))


def test_equal_outputs_have_the_value_that_stands_for_identical() -> None:
    same = torch.randn(3, 4)
    assert measured([(same, same)]) == {metric.name: pytest.approx(metric.identical) for metric in METRICS}
    assert measured([(same, same)])["snr_db"] == IDENTICAL_DB


def test_nothing_against_nothing_is_identical_and_something_against_nothing_is_not() -> None:
    nothing, something = torch.zeros(4), torch.ones(4)
    assert measured([(nothing, nothing)]) == {"snr_db": IDENTICAL_DB, "rel_l2": 0.0, "cosine": 0.0}
    assert measured([(something, nothing)]) == {"snr_db": -IDENTICAL_DB, "rel_l2": 1.0, "cosine": 0.0}


def test_sums_are_taken_in_float64() -> None:
    reference = torch.full((70_000,), 2.0, dtype=torch.float16)
    assert float(observe((reference,), (reference,))["signal"]) == 280_000  # float16 ends at 65504


def of_all(output: list[torch.Tensor], reference: list[torch.Tensor]) -> dict[str, float]:
    """The metrics of one sample of several tensors."""
    found = {name: np.array([float(value)]) for name, value in observe(output, reference).items()}
    return {metric.name: metric.compute(Evidence({}, found, 0, 0)) for metric in METRICS}


def test_each_of_several_tensors_counts_alike_whatever_its_size_and_scale() -> None:
    """Kind: a video's small audio beside its large frames, of which the error would not show."""
    torch.manual_seed(0)
    small, large = torch.randn(4), 1000 * torch.randn(9, 9)
    alone = [of_all([1.1 * small], [small])["rel_l2"], of_all([1.3 * large], [large])["rel_l2"]]
    assert alone == pytest.approx([0.1, 0.3])
    assert of_all([1.1 * small, large], [small, large])["rel_l2"] == pytest.approx(math.sqrt(0.1**2 / 2))
    both = of_all([1.1 * small, 1.3 * large], [small, large])
    assert both["rel_l2"] == pytest.approx(math.sqrt((0.1**2 + 0.3**2) / 2))
    assert both["snr_db"] == pytest.approx(-20 * math.log10(both["rel_l2"]))


def test_several_tensors_are_scaled_to_the_mean_of_their_signal_powers() -> None:
    found = observe([torch.tensor([1.0, 1.0]), torch.tensor([3.0])], [torch.tensor([1.0, 0.0]), torch.tensor([2.0])])
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"signal": 5.0, "error": 2.5 + 0.625, "power": 5.0 + 5.625, "product": 2.5 + 3.75}
    )


def test_a_tensor_of_zeros_beside_others_stays_as_it_is_and_its_error_counts() -> None:
    nothing, something = torch.zeros(4), torch.tensor([3.0, 4.0])
    assert of_all([nothing, something], [nothing, something])["snr_db"] == IDENTICAL_DB
    found = observe([torch.ones(4), something], [nothing, something])
    assert (float(found["signal"]), float(found["error"])) == (12.5, 4.0)
    assert of_all([nothing, nothing], [nothing, nothing]) == {"snr_db": IDENTICAL_DB, "rel_l2": 0.0, "cosine": 0.0}
    assert of_all([nothing, torch.ones(4)], [nothing, nothing])["snr_db"] == -IDENTICAL_DB


def test_an_output_that_is_not_finite_is_seen_in_whichever_tensor_it_is() -> None:
    broken = observe([torch.ones(2), torch.full((2,), math.nan)], [torch.ones(2), torch.ones(2)])
    assert math.isnan(float(broken["error"]))
    assert math.isnan(float(broken["power"]))


def test_outputs_of_other_tensors_than_the_reference_s_are_no_pair() -> None:
    with pytest.raises(ValueError, match="is longer than"):
        observe([torch.ones(2)], [torch.ones(2), torch.ones(2)])


vectors = arrays(np.float64, 6, elements=st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-3))


@given(vectors, vectors)
def test_they_are_finite_and_within_their_bounds(output: np.ndarray, reference: np.ndarray) -> None:
    found = measured([(torch.from_numpy(output), torch.from_numpy(reference))])
    assert all(map(math.isfinite, found.values()))
    assert found["snr_db"] <= IDENTICAL_DB
    assert found["rel_l2"] >= 0
    assert -1 - 1e-12 <= found["cosine"] <= 1


@given(vectors, vectors, st.floats(0.01, 100))
def test_they_do_not_depend_on_a_common_scale(output: np.ndarray, reference: np.ndarray, scale: float) -> None:
    one = measured([(torch.from_numpy(output), torch.from_numpy(reference))])
    other = measured([(torch.from_numpy(output * scale), torch.from_numpy(reference * scale))])
    assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


def test_the_snr_over_samples_is_that_of_their_sums() -> None:
    columns = {"signal": np.array([1.0, 3.0]), "error": np.array([0.1, 0.1])}
    assert SNR_DB.compute(Evidence({}, columns, 0, 0)) == pytest.approx(snr_db(4.0, 0.2))


def test_a_latency_is_the_median_of_the_samples() -> None:
    assert LATENCY_MS.compute(Evidence({}, {"latency_ms": np.array([1.0, 9.0, 2.0])}, 0, 0)) == 2.0
