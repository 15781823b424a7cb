"""A pruner on a measurement: it is told what was measured, and may end it."""

import time

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, Pruned, ReferenceSpec
from quantlab.executors.local import InProcess
from quantlab.lab.replay import replay
from quantlab.lab.samples import Sample, SampleSet
from quantlab.outcomes.measurement import Measurement, snr_db

CPU = torch.device("cpu")
SAMPLES = SampleSet(tuple(Sample(0, i, 10.0 * i, {"x": torch.full((4,), 1.0 + i)}, torch.ones(4)) for i in range(3)), "")


def after(count, seen=None):
    def pruner(entries, memory_bytes):
        if seen is not None:
            seen.append((len(entries), memory_bytes))
        return "enough" if len(entries) == count else None

    return pruner


@pytest.mark.parametrize("spec", [Int4Spec(), Int8Spec(), ReferenceSpec()], ids=lambda spec: spec.key)
def test_a_watch_that_stops_after_two_samples_gives_their_figures_and_the_lab_is_whole_afterwards(lab, spec):
    whole = lab.measure(spec)
    stopped = lab.measure(spec, pruner=after(2))
    assert isinstance(stopped, Pruned)
    assert (stopped.key, stopped.reason, stopped.planned, stopped.saved) == (spec.key, "enough", 4, 2)
    partial = stopped.partial
    powers = [(sample["prompt"], sample["step"], sample["signal"], sample["error"]) for sample in partial.samples]
    same = [(sample["prompt"], sample["step"], sample["signal"], sample["error"]) for sample in whole.samples[:2]]
    assert powers == same
    assert partial.snr_db == snr_db(sum(p[2] for p in powers), sum(p[3] for p in powers))
    assert partial.memory_bytes == whole.memory_bytes
    again = lab.measure(spec)
    assert (again.output_sha256, again.snr_db, again.memory_bytes) == (
        *(whole.output_sha256, whole.snr_db),
        whole.memory_bytes,
    )


def test_a_watch_is_told_the_memory_after_each_sample_but_the_last(lab):
    seen = []
    row = lab.measure(Int4Spec(), pruner=after(None, seen))
    assert isinstance(row, Measurement)
    assert seen == [(1, row.memory_bytes), (2, row.memory_bytes), (3, row.memory_bytes)]


def test_a_watch_that_only_looks_changes_no_output(lab):
    assert lab.measure(Int4Spec(), pruner=after(None)).output_sha256 == lab.measure(Int4Spec()).output_sha256


def test_the_forwards_of_a_stopped_setting_are_counted(lab):
    before = lab.forward_s
    partial = lab.measure(Int4Spec(), pruner=after(1)).partial
    assert lab.forward_s - before == pytest.approx(partial.forward_s + partial.warmup_s)


def test_an_executor_hands_a_watch_on_and_a_stop_is_an_outcome(lab):
    outcome = InProcess(lab).submit(Int4Spec(), pruner=after(3)).result()
    assert isinstance(outcome, Pruned)
    assert len(outcome.partial.samples) == 3


def test_an_error_of_a_watch_is_the_setting_s_failure(lab):
    def broken(entries, memory_bytes):
        raise ZeroDivisionError("a bug")

    assert InProcess(lab).submit(Int4Spec(), pruner=broken).result().kind == "ZeroDivisionError"


def test_a_watch_takes_nothing_of_what_is_timed():
    def slow(entries):
        time.sleep(0.05)

    result = replay(lambda x: (x.clone(),), SAMPLES, CPU, None, slow)
    assert result.stopped is None
    assert sum(result.latencies_ms) < 50
