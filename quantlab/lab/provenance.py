"""What a number depends on besides the setting: versions, device, threads, weights."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from quantlab.config import ModelConfig
from quantlab.models.source import locate

_PACKAGES = ("quantlab", "torch", "bitsandbytes", "diffusers", "transformers", "accelerate")


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
    else:
        where = {"device": f"CPU ({platform.machine()})", "threads": torch.get_num_threads()}
    return {**where, "python": platform.python_version(), "versions": versions}


def model_fingerprint(model: ModelConfig) -> str:
    """Digest of all of the pipeline's configuration and weight files, bit for bit."""
    source = locate(model)
    root = Path(source.location)
    if not source.is_local:
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*/*.json", "*/*.safetensors"]
        root = Path(
            snapshot_download(source.location, revision=model.revision, allow_patterns=patterns, local_files_only=True)
        )
    sha = hashlib.sha256()
    for file in sorted([*root.glob("*/*.safetensors"), *root.glob("*.json"), *root.glob("*/*.json")]):
        sha.update(f"{file.relative_to(root)}:{_file_digest(file)}\n".encode())
    return sha.hexdigest()


def _file_digest(file: Path) -> str:
    blob = file.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob):  # the Hugging Face cache names a weight file by its SHA-256
        return blob
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def set_threads(threads: int | None) -> None:
    """Compute on a CPU with the given number of threads, on which the last bit of a result may depend."""
    if threads and threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)
