"""On a CPU a setting takes turns with the reference, so that its latency does not follow what the machine does."""

import contextlib
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.lab import clocks
from quantlab.lab.clocks import Clock, Turns, reference_ms
from quantlab.lab.replay import replay
from quantlab.lab.samples import Sample, SampleSet
from quantlab.metrics import latency
from quantlab.spec import PipelineSpec

CPU = torch.device("cpu")
SAMPLES = SampleSet(
    tuple(Sample("unet", 0, i, 10.0 * i, {"x": torch.full((4,), 1.0 + i)}, (torch.ones(4),)) for i in range(8)), ""
)
SPEC = PipelineSpec({"unet": Int8Spec()})


class Machine:
    """A component whose reference takes 10 ms and whose setting 15, times how slow the machine is at each forward."""

    def __init__(self, monkeypatch, slow=lambda forward: 1.0):
        self.now = self.waited = 0.0
        self.ran, self.spec, self.slow = [], SPEC, slow
        monkeypatch.setattr(clocks, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(clocks, "_waited_ms", lambda: {"thread": self.waited})

    @property
    def components(self):
        return {"unet": self}

    @contextlib.contextmanager
    def restored(self):
        self.spec = PipelineSpec.reference(("unet",))
        try:
            yield
        finally:
            self.spec = SPEC

    def __call__(self, x):
        self.ran.append("reference" if self.spec.is_reference else "setting")
        times = self.slow(len(self.ran))  # which may change the clock itself
        self.now += (10 if self.spec.is_reference else 15) / 1e3 * times
        return (x.clone(),)

    def replayed(self, samples=SAMPLES):
        return replay(self.components, samples, CPU, clock=Turns(self, {"unet": 10.0}, CPU))


def latencies(result):
    return result.columns["latency_ms"].tolist()


@pytest.mark.parametrize("slow", [lambda n: 1.0, lambda n: 7.0, lambda n: 1 + n / 3], ids=["quiet", "slow", "slower"])
def test_a_machine_that_is_slow_or_becomes_it_leaves_the_median_as_it_is(monkeypatch, slow):
    result = Machine(monkeypatch, slow).replayed()
    assert sorted(latencies(result))[3:5] == pytest.approx([15.0, 15.0], rel=0.12)
    if slow(1) == slow(2):
        assert latencies(result) == pytest.approx([15.0] * 8)


def test_each_is_first_in_every_other_turn_and_the_setting_stands_at_the_end(monkeypatch):
    machine = Machine(monkeypatch)
    machine.replayed()
    turns = machine.ran[1:]  # after the warm-up
    assert turns == ["reference", "setting", "setting", "reference"] * 4
    assert machine.spec == SPEC


def test_every_forward_of_both_is_counted(monkeypatch):
    result = Machine(monkeypatch).replayed()
    assert result.forward_s == pytest.approx(8 * 0.025)
    assert result.warmup_s == pytest.approx(0.015)


def test_what_threads_wait_for_a_core_is_not_the_setting_s(monkeypatch):
    machine = Machine(monkeypatch)

    def held_up(forward):
        machine.waited += 40.0
        machine.now += 0.040
        return 1.0

    machine.slow = held_up
    result = machine.replayed()
    assert latencies(result) == pytest.approx([15.0] * 8)
    assert result.forward_s == pytest.approx(8 * (0.025 + 0.080))


def test_a_forward_keeps_a_share_of_its_time_however_long_its_threads_waited_side_by_side(monkeypatch):
    machine = Machine(monkeypatch)
    machine.slow = lambda forward: setattr(machine, "waited", 1e6) or 1.0
    assert Clock(CPU).sampled(machine, SAMPLES.samples[0])[1]["latency_ms"] == pytest.approx(1.5)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not say how long threads wait")
def test_threads_that_share_a_core_wait_for_it():
    busy = "import time; until = time.perf_counter() + 1\nwhile time.perf_counter() < until: pass"
    program = f"""
import os, subprocess, sys
from quantlab.lab import clocks
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
other = subprocess.Popen([sys.executable, "-c", {busy!r}])
before = clocks._waited_ms()
while other.poll() is None: pass
print(clocks.lost_ms(before, clocks._waited_ms()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 100


@pytest.mark.parametrize(("jitter", "rounds"), [(0.0, 1), (0.02, 1), (3.0, 3)])
def test_samples_are_timed_again_while_their_median_is_uncertain_and_never_beyond_the_bound(
    monkeypatch, jitter, rounds
):
    monkeypatch.setattr(latency, "MOST_ROUNDS", 3)
    machine = Machine(monkeypatch, lambda forward: 1 + jitter * (forward % 5) / 4)
    result = machine.replayed()
    assert len(machine.ran) == 1 + rounds * 2 * len(SAMPLES.samples)
    assert len(result.samples) == len(SAMPLES.samples)


def test_a_latency_is_the_median_of_its_rounds(monkeypatch):
    monkeypatch.setattr(latency, "MOST_ROUNDS", 3)
    machine = Machine(monkeypatch, lambda forward: 1.0 if forward % 7 else 20.0)
    assert sorted(latencies(machine.replayed()))[4] == pytest.approx(15.0)


def test_certain_is_half_an_interval_of_each_component_s_median():
    def settled(**iqr_by_component):
        turns = Turns(SimpleNamespace(), {}, CPU)
        for at, (name, iqr) in enumerate(iqr_by_component.items()):
            turns._ratios[name] = [(1 + at) * math.exp(iqr * (i / 63 - 0.5) * 2) for i in range(64)]
        return turns.is_settled

    bound = 8 * latency.CERTAIN / 1.815  # 1.96 * 1.25 / 1.35, and the root of 64
    assert settled(unet=0.99 * bound)
    assert not settled(unet=1.01 * bound)
    assert settled(unet=0.99 * bound, vae=0.99 * bound)
    assert not settled(unet=0.1 * bound, vae=1.01 * bound)


@pytest.mark.parametrize(("count", "certain"), [(1, False), (3, False), (4, True)])
def test_too_few_ratios_say_nothing_of_their_scatter(count, certain):
    turns = Turns(SimpleNamespace(), {}, CPU)
    turns._ratios["unet"] = [1.5] * count
    assert turns.is_settled is certain


@pytest.mark.parametrize(
    ("waits", "lost"),
    [({}, 0.0), ({"a": 5.0}, 5.0), ({"a": 5.0, "b": 4.0}, 9.0), (dict.fromkeys("abcdefgh", 5.0), 10.0)],
)
def test_threads_that_wait_side_by_side_lose_less_than_all_their_waits(waits, lost):
    assert clocks.lost_ms({"a": 0.0}, waits) == lost


def test_what_the_reference_takes_is_measured_by_component_on_a_cpu_alone(monkeypatch):
    machine = Machine(monkeypatch)
    machine.spec = PipelineSpec({"unet": ReferenceSpec()})
    assert reference_ms({"unet": machine}, SAMPLES.samples, CPU) == {"unet": pytest.approx(10.0)}
    assert reference_ms({"unet": machine}, SAMPLES.samples, torch.device("cuda", 0)) == {}


def test_a_lab_times_in_turns_and_the_reference_is_as_fast_as_itself(lab, monkeypatch):
    monkeypatch.setattr(latency, "MOST_ROUNDS", 1)
    row = lab.measure(ReferenceSpec())
    assert row.latency_ms == pytest.approx(lab.sample_set.reference_ms["transformer"], rel=0.5)
    quantized = lab.measure(Int4Spec())
    assert quantized.forward_s > sum(sample["latency_ms"] for sample in quantized.samples) / 1e3
    assert quantized.watched == ()
    assert quantized.is_host_bound is None
