"""Nested values with tensors in them: digested bit for bit, and kept as safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from quantlab.errors import ConfigError
from quantlab.files import written

_TENSOR, _TUPLE = "<tensor>", "<tuple>"


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of tensors: dtypes, shapes and every bit."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(packed(tensor.detach()).reshape(-1).view(torch.uint8).cpu().numpy().data)
    return sha.hexdigest()


def packed(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without gaps or repeats in its storage; `contiguous` keeps a stride of 0 where a size is 1."""
    if tensor.is_contiguous() and 0 not in tensor.stride():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def digests(tensors: Iterable[torch.Tensor]) -> list[str]:
    """SHA-256 of each tensor, several at a time: hashing lets other threads run."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda tensor: digest([tensor]), tensors))


def fingerprint(value: Any) -> str:
    """Digest of a nested value: its structure, its plain parts and every bit of its tensors."""
    plain, tensors = _flatten(value)
    return _fingerprint(plain, dict(zip(tensors, digests(tensors.values()), strict=True)))


def shapes(value: Any) -> tuple[tuple[int, ...], ...]:
    """Of every tensor in a nested value, in order."""
    return tuple(tuple(tensor.shape) for tensor in _flatten(value)[1].values())


def _fingerprint(plain: Any, digest_by_name: dict[str, str]) -> str:
    whole = json.dumps([plain, digest_by_name], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def save(value: Any, path: Path) -> None:
    """Write a nested value atomically; tensors that are equal are written once.

    Raises:
        ConfigError: for anything but tensors, numbers, text, None, lists and dicts of them.
    """
    plain, tensors = _flatten(value)
    found = dict(zip(tensors, digests(tensors.values()), strict=True))
    first: dict[str, str] = {}
    alias = {name: first.setdefault(sha, name) for name, sha in found.items()}
    unique = {  # no views: safetensors refuses them
        name: packed(tensors[name].detach().to("cpu", copy=True)) for name in first.values()
    }
    metadata = {"plain": json.dumps(plain), "alias": json.dumps(alias), "fingerprint": _fingerprint(plain, found)}
    with written(path) as scratch:
        save_file(unique, scratch, metadata=metadata)


def load(path: Path, device: torch.device) -> Any:
    """The value that `save` wrote, its tensors on a device.

    Raises:
        ValueError: where the file is damaged or was written by something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        if not {"plain", "alias", "fingerprint"} <= set(metadata):
            raise ValueError("it was not written by quantlab")
        tensors = {name: stored[first] for name, first in json.loads(metadata["alias"]).items()}
        value = _unflatten(json.loads(metadata["plain"]), "", tensors)
    except (SafetensorError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if fingerprint(value) != metadata["fingerprint"]:
        raise ValueError("it does not hold what was written")
    return value


def _flatten(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
            return _TENSOR
        if isinstance(value, dict):
            return {key: plain(item, f"{name}.{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [plain(item, f"{name}.{i}") for i, item in enumerate(value)]
            return {_TUPLE: items} if type(value) is tuple else items  # a component may ask which of the two it is
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ConfigError(f"the component's argument {name[1:]} is a {type(value).__name__}, which cannot be recorded")

    return plain(value, ""), tensors


def _unflatten(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if value == _TENSOR:
        return tensors[name]
    if isinstance(value, dict) and value.keys() == {_TUPLE}:
        return tuple(_unflatten(value[_TUPLE], name, tensors))
    if isinstance(value, dict):
        return {key: _unflatten(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unflatten(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value
