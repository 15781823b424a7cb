"""A fake component and a fake clock: what is run how often, and what is timed."""

import gc
import itertools
from types import SimpleNamespace

import pytest
import torch

from quantlab import Int4Spec
from quantlab.errors import NonFiniteOutputError
from quantlab.lab import replay as replays
from quantlab.lab.probes import Probe, ProbeSet
from quantlab.lab.replay import SETTLED, WARMUP_MOST, replay

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
PROBES = ProbeSet(tuple(Probe(0, i, 10.0 * i, {"x": torch.full((4,), 1.0 + i)}, torch.ones(4)) for i in range(3)), "")


class Component:
    """Returns its input; keeps what it was called with."""

    def __init__(self, act=lambda: None):
        self.calls = []
        self._act = act

    def __call__(self, x):
        self._act()
        self.calls.append(x[0].item())
        return (x.clone(),)


@pytest.fixture
def clock(monkeypatch):
    """Stands still until it is told."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(replays, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


@pytest.fixture
def on_cuda(monkeypatch):
    """Runs with a CUDA device's rules and times of the test's own; what is left of the times goes to the probes."""

    def run(times, warmup=None):
        feed = itertools.chain(times, itertools.repeat(1.0))
        monkeypatch.setattr(replays, "timed", lambda forward, device: (forward(), next(feed)))
        monkeypatch.setattr(replays, "peak_above_start", lambda forward, device: (forward(), (7, "fake"))[1])
        component = Component()
        return replay(component, PROBES, CUDA, warmup), component

    return run


def test_warm_up_on_a_cpu_is_one_forward_of_the_first_probe():
    component = Component()
    result = replay(component, PROBES, CPU)
    assert component.calls == [1.0, 1.0, 2.0, 3.0]
    assert (len(result.warmup_ms), len(result.latencies_ms)) == (1, 3)


@pytest.mark.parametrize("warmup", [1, 2, 5])
def test_a_number_of_warm_up_forwards_is_kept_to_on_a_cpu(warmup):
    component = Component()
    assert len(replay(component, PROBES, CPU, warmup).warmup_ms) == warmup
    assert component.calls == [1.0] * warmup + [1.0, 2.0, 3.0]


@pytest.mark.parametrize("warmup", [1, 2, WARMUP_MOST + 4])
def test_a_number_of_warm_up_forwards_is_kept_to_on_cuda_whatever_they_take(on_cuda, warmup):
    times = [2.0**i for i in range(warmup)]
    result, component = on_cuda(times, warmup)
    assert result.warmup_ms == times
    assert component.calls == [1.0] * warmup + [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("times", "forwards"),
    [
        ([5.0, 5.0], 2),
        ([100.0, 5.0, 5.0], 3),
        ([100.0, 5.0, 5.0 * (1 + 0.99 * SETTLED)], 3),
        ([100.0, 5.0 * (1 + 0.99 * SETTLED), 5.0], 3),
        ([100.0, 5.0, 5.0 * (1 + 1.01 * SETTLED), 5.0, 5.0], 5),
        ([100.0, 5.0 * (1 + 1.01 * SETTLED), 5.0, 7.0, 7.0], 5),
        ([5.0, 6.0, 5.0, 6.0, 6.0], 5),
        ([2.0**i for i in range(20)], WARMUP_MOST),
    ],
)
def test_warm_up_on_cuda_ends_when_two_in_a_row_take_the_same_time_or_at_its_bound(on_cuda, times, forwards):
    result, component = on_cuda(times)
    assert result.warmup_ms == times[:forwards]
    assert component.calls == [1.0] * forwards + [1.0, 2.0, 3.0]


def test_the_first_warm_up_forward_is_the_one_that_is_watched_for_memory(on_cuda):
    result, _ = on_cuda([5.0, 5.0])
    assert (result.peak_bytes, result.peak_source) == (7, "fake")


def test_a_forward_is_timed_without_its_scoring(clock, monkeypatch):
    def slow(function):
        def later(*args):
            clock.seconds += 100
            return function(*args)

        return later

    monkeypatch.setattr(replays, "_powers", slow(replays._powers))
    monkeypatch.setattr(replays, "_digest", slow(replays._digest))
    durations = iter([8, 1, 2, 3])

    def forward():
        clock.seconds += next(durations)

    result = replay(Component(forward), PROBES, CPU)
    assert result.warmup_ms == [8000]
    assert result.latencies_ms == [1000, 2000, 3000]


def test_figures_are_of_the_outputs_and_not_of_warm_up(on_cuda):
    few, many = on_cuda([5.0], 1)[0], on_cuda([5.0] * 6, 6)[0]
    assert few.probes == many.probes
    assert few.output_sha256 == many.output_sha256
    assert [probe["error"] for probe in few.probes] == [0.0, 4.0, 16.0]
    assert (few.signal, few.error) == (12.0, 20.0)


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_in_between_and_the_collector_is_left_as_it_was(enabled):
    def check():
        assert not gc.isenabled()

    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        replay(Component(check), PROBES, CPU)
        assert gc.isenabled() is enabled
        broken = ProbeSet((Probe(0, 0, 0.0, {"x": torch.full((4,), float("nan"))}, torch.ones(4)),), "")
        with pytest.raises(NonFiniteOutputError):
            replay(Component(check), broken, CPU)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_a_row_and_its_lab_count_every_forward(lab, monkeypatch):
    results = []
    monkeypatch.setattr("quantlab.lab.lab.replay", lambda *args: results.append(replay(*args)) or results[-1])
    before = lab.forward_s
    row = lab.measure(Int4Spec())
    (result,) = results
    assert row.warmup_s == pytest.approx(sum(result.warmup_ms) / 1e3)
    assert row.forward_s == pytest.approx(sum(result.latencies_ms) / 1e3)
    assert lab.forward_s - before == pytest.approx(row.forward_s + row.warmup_s)
    assert row.wall_s > row.forward_s + row.warmup_s > row.forward_s > 0
