"""Which kernels a stretch holds, told from a profiler's events; tests/gpu/test_device_time.py has the real ones."""

from types import SimpleNamespace

import pytest
from torch._C._autograd import DeviceType

from quantlab.errors import ConfigError
from quantlab.lab import kernel_times
from quantlab.lab.kernel_times import KernelTimes

MARKER = "void at::cuda::(anonymous namespace)::spin_kernel(long)"


def event(start_ns, ns, name="gemm", device=DeviceType.CUDA):
    return SimpleNamespace(
        start_ns=lambda: start_ns, duration_ns=lambda: ns, name=lambda: name, device_type=lambda: device
    )


def read(stretches, *events):
    times = KernelTimes()
    times._stretches = stretches
    times._read(SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: list(events))))
    return times


def test_a_stretch_holds_what_ran_between_its_markers_in_whatever_order_events_come():
    markers = [event(at, 999, MARKER) for at in (10, 40, 60, 90)]
    kernels = [event(20, 2_000_000), event(30, 1_000_000), event(50, 500_000), event(70, 250_000)]
    launch = event(25, 7_000_000, "cudaLaunchKernel", DeviceType.CPU)
    times = read(2, *kernels[::-1], launch, *markers)
    assert times.ms == [3.0, 0.25]
    assert times.all_ms == 3.75


def test_a_stretch_without_kernels_takes_no_time():
    assert read(1, event(10, 1, MARKER), event(20, 1, MARKER)).ms == [0.0]


@pytest.mark.parametrize("seen", [0, 1, 3])
def test_markers_that_are_missing_are_an_answer_that_names_the_way_out(seen):
    events = [event(10 * at, 1, MARKER) for at in range(seen)]
    with pytest.raises(ConfigError, match=rf"saw {seen} of 4 kernels.*name latency_ms in metrics and objectives"):
        read(2, *events, event(100, 5))


def test_a_marker_is_launched_at_both_ends(monkeypatch):
    launched = []
    monkeypatch.setattr(kernel_times.torch.cuda, "_sleep", launched.append)
    times = KernelTimes()
    with pytest.raises(KeyError), times.stretch():
        raise KeyError("a layer's own")
    assert launched == [0, 0]
