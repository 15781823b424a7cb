"""A pruner on a measurement: it is told what was measured, and may end it."""

import time
from dataclasses import dataclass, field

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, PipelineSpec, Pruned, ReferenceSpec
from quantlab.lab.replay import replay
from quantlab.lab.samples import Sample, SampleSet
from quantlab.outcomes import Measurement

CPU = torch.device("cpu")
SAMPLES = SampleSet(
    tuple(Sample("unet", 0, i, 10.0 * i, {"x": torch.full((4,), 1.0 + i)}, (torch.ones(4),)) for i in range(3)), ""
)


@dataclass
class After:
    """Says that row 7 beats a setting once so many samples are there; keeps what it was told."""

    count: int | None
    confidence: float = 0.9
    seen: list = field(default_factory=list)

    def dominated_by(self, samples, metrics):
        self.seen.append((len(samples), dict(metrics)))
        return 7 if len(samples) == self.count else None


def powers(samples):
    return [(sample.prompt, sample.step, sample["signal"], sample["error"]) for sample in samples]


@pytest.mark.parametrize("spec", [Int4Spec(), Int8Spec(), ReferenceSpec()], ids=lambda spec: spec.key)
def test_a_setting_that_is_pruned_after_two_samples_has_their_figures_and_the_lab_is_whole_afterwards(lab, spec):
    whole = lab.measure(spec)
    stopped = lab.measure(spec, pruner=After(2))
    assert isinstance(stopped, Pruned)
    assert stopped.spec == PipelineSpec({"transformer": spec})
    assert (stopped.dominated_by, stopped.confidence, stopped.planned, stopped.saved) == (7, 0.9, 4, 2)
    partial, two = stopped.partial, lab.measure(spec, samples=2)
    assert powers(partial.samples) == powers(whole.samples[:2])
    exact = ("snr_db", "rel_l2", "cosine", "memory_bytes", "bits_per_weight")
    assert {name: partial.metrics[name] for name in exact} == {name: two.metrics[name] for name in exact}
    assert partial.output_sha256 == two.output_sha256
    again = lab.measure(spec)
    assert (again.output_sha256, again.snr_db, again.memory_bytes) == (
        *(whole.output_sha256, whole.snr_db),
        whole.memory_bytes,
    )


def test_a_pruner_is_told_what_is_known_before_a_forward_after_each_sample_but_the_last(lab):
    pruner = After(None)
    row = lab.measure(Int4Spec(), pruner=pruner)
    assert isinstance(row, Measurement)
    static = {"memory_bytes": row.memory_bytes, "bits_per_weight": row.bits_per_weight}
    assert pruner.seen == [(1, static), (2, static), (3, static)]


def test_a_pruner_that_only_looks_on_changes_no_output(lab):
    assert lab.measure(Int4Spec(), pruner=After(None)).output_sha256 == lab.measure(Int4Spec()).output_sha256


def test_what_a_pruner_raises_is_raised_as_it_is(lab):
    class Broken(After):
        def dominated_by(self, samples, metrics):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        lab.measure(Int4Spec(), pruner=Broken(1))


def test_a_pruner_takes_nothing_of_what_is_timed():
    def slow(samples, before):
        time.sleep(0.05)

    result = replay({"unet": lambda x: (x.clone(),)}, SAMPLES, CPU, stop=slow)
    assert result.dominated_by is None
    assert result.columns["latency_ms"].sum() < 50
