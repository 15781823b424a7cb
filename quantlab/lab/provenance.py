"""What a number depends on besides the setting: versions, device and threads."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from quantlab.metrics.latency import IN_TURNS

_PACKAGES = ("quantlab-bnb", "torch", "bitsandbytes", "diffusers", "transformers", "accelerate")


def provenance(device: torch.device) -> dict[str, Any]:
    """Library versions and the device, as plain JSON types."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    versions["torch"] = torch.__version__
    if device.type == "cuda":
        where: dict[str, Any] = {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        where |= {"rocm": torch.version.hip} if torch.version.hip else {}  # torch and bitsandbytes call it CUDA too
        with _nvml(device) as (nvml, _):
            where["driver"] = nvml.nvmlSystemGetDriverVersion() if nvml else None
    else:
        where = {"device": f"CPU ({platform.machine()})", "threads": torch.get_num_threads(), "latency": IN_TURNS}
        where |= _unused_accelerator()
    return {**where, "python": platform.python_version(), "versions": versions}


def _unused_accelerator() -> dict[str, Any]:
    """An accelerator of the machine on which nothing is measured, and whether bitsandbytes runs on it."""
    import bitsandbytes

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None or found.type in ("cpu", "cuda"):
        return {}
    supported = found.type in getattr(bitsandbytes, "supported_torch_devices", ())
    return {"unused_accelerator": found.type, "bitsandbytes_supports_it": supported}


def gpu_state(device: torch.device) -> dict[str, Any]:
    """Clocks in MHz, temperature in degrees Celsius and power in watts of a CUDA device, by NVML; nothing on a CPU.

    Never asked for inside a timed region.
    """
    if device.type != "cuda":
        return {}
    with _nvml(device) as (nvml, handle):
        if nvml is None:
            return {}
        state: dict[str, Any] = {}
        for name, ask, *what in (
            ("sm_clock_mhz", nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            ("memory_clock_mhz", nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            ("temperature_c", nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            ("power_w", nvml.nvmlDeviceGetPowerUsage),
        ):
            with contextlib.suppress(nvml.NVMLError):  # not every card answers every question
                state[name] = ask(handle, *what)
        if "power_w" in state:
            state["power_w"] /= 1000  # NVML counts milliwatts
        return state


@contextlib.contextmanager
def _nvml(device: torch.device) -> Iterator[tuple[Any, Any]]:
    """NVML and its handle of the device; None where the driver does not offer it."""
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
    except pynvml.NVMLError:
        yield None, None
        return
    yield pynvml, handle  # left open: the library counts, and opening it takes longer than asking


@contextlib.contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Inside, a CPU computes with the given number of threads, on which the last bit of a result may depend."""
    before = torch.get_num_threads()
    if threads and threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
