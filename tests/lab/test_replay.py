"""A fake component and a fake clock: what is run how often, and what is timed."""

import gc
import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from quantlab import Int4Spec
from quantlab.errors import NonFiniteOutputError
from quantlab.lab import clocks
from quantlab.lab import replay as replays
from quantlab.lab.clocks import Clock
from quantlab.lab.replay import replay
from quantlab.lab.samples import Sample, SampleSet
from quantlab.lab.warm_up import SETTLED, WARMUP_MOST

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SAMPLES = SampleSet(
    tuple(Sample("unet", 0, i, 10.0 * i, {"x": torch.full((4,), 1.0 + i)}, (torch.ones(4),)) for i in range(3)), ""
)


class Component:
    """Returns its input; keeps what it was called with."""

    def __init__(self, act=lambda: None):
        self.calls = []
        self._act = act

    def __call__(self, x):
        self._act()
        self.calls.append(x[0].item())
        return (x.clone(),)


def run(component, *args, **kwargs):
    return replay({"unet": component}, SAMPLES, CPU, *args, **kwargs)


def latencies_ms(result):
    return result.columns["latency_ms"].tolist()


@pytest.fixture
def clock(monkeypatch):
    """Stands still until it is told."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(clocks, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    monkeypatch.setattr(clocks, "_waited_ms", dict)
    return now


@pytest.fixture
def on_cuda(monkeypatch):
    """Runs with a CUDA device's rules and times of the test's own; what is left of the times goes to the samples."""

    def on_card(times, warmup=None):
        feed = itertools.chain(times, itertools.repeat(1.0))
        spent = []

        class Fed(Clock):
            def timed(self, run):
                spent.append(next(feed))
                return run(), {"latency_ms": spent[-1], "host_ms": 1.0}

        monkeypatch.setattr(replays, "Clock", Fed)
        monkeypatch.setattr(
            "quantlab.lab.warm_up.peak_above_start", lambda forward, device: (forward(), (7, "fake"))[1]
        )
        component = Component()
        result = replay({"unet": component}, SAMPLES, CUDA, warmup)
        return result, component, spent[: -len(SAMPLES.samples)]

    return on_card


def test_warm_up_on_a_cpu_is_one_forward_of_the_first_sample():
    component = Component()
    result = run(component)
    assert component.calls == [1.0, 1.0, 2.0, 3.0]
    assert len(latencies_ms(result)) == 3


@pytest.mark.parametrize("warmup", [1, 2, 5])
def test_a_number_of_warm_up_forwards_is_kept_to_on_a_cpu(warmup):
    component = Component()
    run(component, warmup)
    assert component.calls == [1.0] * warmup + [1.0, 2.0, 3.0]


@pytest.mark.parametrize("warmup", [1, 2, WARMUP_MOST + 4])
def test_a_number_of_warm_up_forwards_is_kept_to_on_cuda_whatever_they_take(on_cuda, warmup):
    times = [2.0**i for i in range(warmup)]
    _, component, spent = on_cuda(times, warmup)
    assert spent == times
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
    _, component, spent = on_cuda(times)
    assert spent == times[:forwards]
    assert component.calls == [1.0] * forwards + [1.0, 2.0, 3.0]


def test_the_first_warm_up_forward_is_the_one_that_is_watched_for_memory(on_cuda):
    result, *_ = on_cuda([5.0, 5.0])
    assert (result.peak_bytes, result.peak_source) == (7, "fake")


def test_a_forward_is_timed_without_its_scoring(clock, monkeypatch):
    def slow(function):
        def later(*args):
            clock.seconds += 100
            return function(*args)

        return later

    monkeypatch.setattr(replays.prediction, "observe", slow(replays.prediction.observe))
    monkeypatch.setattr(replays, "digests", slow(replays.digests))
    durations = iter([8, 1, 2, 3])

    def forward():
        clock.seconds += next(durations)

    result = run(Component(forward))
    assert (result.warmup_s, result.forward_s) == (8, 6)
    assert latencies_ms(result) == [1000, 2000, 3000]


def test_figures_are_of_the_outputs_and_not_of_warm_up(on_cuda):
    few, many = on_cuda([5.0], 1)[0], on_cuda([5.0] * 6, 6)[0]
    assert few.samples == many.samples
    assert few.output_sha256 == many.output_sha256
    assert [sample["error"] for sample in few.samples] == [0.0, 4.0, 16.0]
    assert few.snr_db == pytest.approx(10 * math.log10(12 / 20))


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_in_between_and_the_collector_is_left_as_it_was(enabled):
    def check():
        assert not gc.isenabled()

    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        run(Component(check))
        assert gc.isenabled() is enabled
        broken = SampleSet((Sample("unet", 0, 0, 0.0, {"x": torch.full((4,), float("nan"))}, (torch.ones(4),)),), "")
        with pytest.raises(NonFiniteOutputError):
            replay({"unet": Component(check)}, broken, CPU)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_a_measurement_counts_every_forward(lab, monkeypatch):
    results = []
    monkeypatch.setattr("quantlab.lab.evaluate.replay", lambda *args: results.append(replay(*args)) or results[-1])
    row = lab.measure(Int4Spec())
    (result,) = results
    assert (row.warmup_s, row.forward_s) == (result.warmup_s, result.forward_s)
    assert row.wall_s > row.forward_s + row.warmup_s > row.forward_s > 0


def test_every_observer_is_called_once_a_sample_after_the_timed_forward(clock):
    seen = []

    def observe(output, reference):
        clock.seconds += 5
        seen.append((output[0][0].item(), reference[0][0].item()))
        return {"largest": output[0].max(), "whole": torch.tensor([7], dtype=torch.int32), "number": 3}

    result = run(Component(), None, [observe, observe, replays.prediction.observe])
    assert seen == [(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)]
    assert latencies_ms(result) == [0, 0, 0]
    assert [sample["largest"] for sample in result.samples] == [1.0, 2.0, 3.0]
    assert {(sample["whole"], sample["number"]) for sample in result.samples} == {(7.0, 3.0)}


def test_what_an_observer_raises_is_raised_as_it_is():
    def broken(output, reference):
        raise ZeroDivisionError("the user's own")

    with pytest.raises(ZeroDivisionError, match="the user's own"):
        run(Component(), None, [broken])


def test_components_are_warmed_up_and_run_on_their_own_samples():
    one, two = Component(), Component()
    samples = [*SAMPLES.samples, Sample("vae", 0, 0, 0.0, {"x": torch.full((4,), 9.0)}, (torch.ones(4),))]
    result = replay({"unet": one, "vae": two}, SampleSet(tuple(samples), ""), CPU)
    assert one.calls == [1.0, 1.0, 2.0, 3.0]
    assert two.calls == [9.0, 9.0]
    assert [sample.component for sample in result.samples] == ["unet"] * 3 + ["vae"]
