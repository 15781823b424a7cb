"""A device that is full, and one whose context is broken."""

from types import SimpleNamespace

import pytest
import torch

from quantlab.errors import DeviceLostError, OutOfMemoryError
from quantlab.lab import guard as guards
from quantlab.lab.guard import DeviceGuard
from quantlab.lab.memory import DeviceMemory

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Cache:
    """Holds bytes until it is cleared."""

    def __init__(self, held=0):
        self.cached_bytes = held

    def clear(self):
        self.cached_bytes = 0


@pytest.fixture
def on_cuda(monkeypatch):
    """As though there were a CUDA device; what `synchronize` raises is the test's to say."""
    state = SimpleNamespace(error=None, asked=0)

    def synchronize(device):
        assert device == CUDA
        state.asked += 1
        if state.error is not None:
            raise state.error

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *args, device=None, **kwargs: zeros(*args, **kwargs))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    return state


def test_a_device_that_computes_is_not_lost(on_cuda):
    guard = DeviceGuard(CUDA, Cache())
    guard.check()
    assert guard.lost is None
    assert on_cuda.asked == 1
    guard.require()


def test_a_device_whose_context_is_broken_is_lost_for_good(on_cuda):
    guard = DeviceGuard(CUDA, Cache())
    on_cuda.error = RuntimeError("CUDA error: an illegal\n memory access was encountered")
    guard.check()
    assert guard.lost == "CUDA error: an illegal memory access was encountered"
    on_cuda.error = None
    guard.check()
    with pytest.raises(DeviceLostError, match="an illegal memory access was encountered"):
        guard.require()


def test_a_device_that_is_merely_full_is_not_lost(on_cuda):
    on_cuda.error = torch.OutOfMemoryError("CUDA out of memory")
    guard = DeviceGuard(CUDA, Cache())
    guard.check()
    assert guard.lost is None


def test_the_host_is_never_lost(on_cuda):
    on_cuda.error = RuntimeError("CUDA error")
    guard = DeviceGuard(CPU, Cache())
    guard.check()
    assert (guard.lost, on_cuda.asked) == (None, 0)


def failing(times, error):
    """Work that fails so many times; how often it was begun."""
    tries = []

    def work():
        tries.append(1)
        if len(tries) <= times:
            raise error
        return "done"

    return work, tries


def test_work_that_runs_out_of_memory_beside_other_layers_is_done_once_more_without_them():
    cache = Cache(7)
    work, tries = failing(1, torch.OutOfMemoryError("CUDA out of memory"))
    assert DeviceGuard(CPU, cache).within_memory(work) == "done"
    assert (len(tries), cache.cached_bytes) == (2, 0)


@pytest.mark.parametrize(("held", "tried"), [(0, 1), (7, 2)])
def test_work_that_runs_out_of_memory_in_any_case_is_an_error_that_says_what_others_hold(monkeypatch, held, tried):
    memory = DeviceMemory("a card", 80 * 10**9, 10**9, 70 * 10**9)
    monkeypatch.setattr(guards, "device_memory", lambda device: memory)
    work, tries = failing(9, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"))
    with pytest.raises(OutOfMemoryError) as error:
        DeviceGuard(CPU, Cache(held)).within_memory(work)
    assert len(tries) == tried
    assert str(error.value) == (
        "out of memory: CUDA out of memory. Tried to allocate 2 GiB; a card has 1 GB free of 80 GB (70 GB are "
        "held outside this process' tensors); 0 bytes not given back"
    )


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), KeyError("CUDA error: out of memory")])
def test_another_error_is_raised_as_it_is_and_nothing_is_tried_again(error):
    work, tries = failing(9, error)
    with pytest.raises(type(error)):
        DeviceGuard(CPU, Cache(7)).within_memory(work)
    assert len(tries) == 1
