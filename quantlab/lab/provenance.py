"""What a number depends on besides the setting: versions, device, threads, weights."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from quantlab.cache import cache_folder, written
from quantlab.config import ModelConfig, Weights
from quantlab.models import random
from quantlab.models.source import fetch

_PACKAGES = ("quantlab", "torch", "bitsandbytes", "diffusers", "transformers", "accelerate")

_PARTS = (".safetensors", ".json", ".txt", ".model")
"""Suffixes of a pipeline's weights, configurations and tokenizers."""

_LARGE = 64 * 2**20
"""Digests of files of at least this many bytes are remembered by path, size and time of change."""


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
        with _nvml(device) as (nvml, _):
            where["driver"] = nvml.nvmlSystemGetDriverVersion() if nvml else None
    else:
        where = {"device": f"CPU ({platform.machine()})", "threads": torch.get_num_threads()}
    return {**where, "python": platform.python_version(), "versions": versions}


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


def model_fingerprint(model: ModelConfig) -> str:
    """Digest of the variant and of all weight, configuration and tokenizer files, bit for bit.

    Of random weights it is the digest of the recipe.
    """
    if model.weights is Weights.random:
        return random.fingerprint(model)
    root = fetch(model)
    sha = hashlib.sha256(f"variant:{model.variant}".encode())
    files = [file for file in (*root.glob("*"), *root.glob("*/*")) if file.suffix in _PARTS and file.is_file()]
    for file in sorted(files):
        sha.update(f"{file.relative_to(root)}:{_file_digest(file)}\n".encode())
    return sha.hexdigest()


def _file_digest(file: Path) -> str:
    target = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", target.name):  # the Hugging Face cache names a weight file by its SHA-256
        return target.name
    status = target.stat()
    if status.st_size < _LARGE:
        return _sha256(target)
    known = cache_folder() / "digests.json"
    digests = json.loads(known.read_text()) if known.exists() else {}
    stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
    if digests.get(str(target), [None])[:3] != stamp:
        digests[str(target)] = [*stamp, _sha256(target)]
        with written(known) as scratch:
            scratch.write_text(json.dumps(digests, indent=1))
    return str(digests[str(target)][3])


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def set_threads(threads: int | None) -> None:
    """Compute on a CPU with the given number of threads, on which the last bit of a result may depend."""
    if threads and threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)
