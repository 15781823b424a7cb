"""Finds the weights that a model's configuration names, and says clearly where they are not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantlab.config import ModelConfig
from quantlab.errors import ConfigError, ModelError, unknown
from quantlab.tiny_sd3 import pipeline_folder


@dataclass(frozen=True)
class Source:
    """Where a pipeline is loaded from.

    Attributes:
        location: a local folder, or a repository on the Hub.
        options: further keyword arguments of ``from_pretrained``.
    """

    location: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.location).is_dir()


def locate(model: ModelConfig) -> Source:
    """The pipeline's folder or repository, its structure checked where it is local.

    Raises:
        ConfigError: where the configuration names no weights.
        ModelError: for a folder that is missing, no diffusers pipeline, or without readable safetensors.
    """
    options = {name: value for name in ("revision", "variant") if (value := getattr(model, name)) is not None}
    if model.path is not None:
        folder = Path(model.path).expanduser()
        _check_folder(folder, model)
        return Source(str(folder), {**options, "local_files_only": True})
    if model.embedded is not None:
        return Source(str(pipeline_folder(model.embedded)), {"local_files_only": True})
    if model.repo is not None:
        return Source(model.repo, options)
    raise ConfigError("model has no weights: set model.path=FOLDER or model.repo=OWNER/NAME")


def _check_folder(folder: Path, model: ModelConfig) -> None:
    if not folder.is_dir():
        raise ModelError(f"model.path={model.path!r} is not a folder; give a pipeline saved in diffusers' format")
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ModelError(f"model.path={model.path!r} is no diffusers pipeline: it has no model_index.json")
    try:
        index = json.loads(index_file.read_text())
    except ValueError as error:
        raise ModelError(f"model.path={model.path!r}: model_index.json cannot be read ({error})") from None
    if not isinstance(index, dict):
        raise ModelError(f"model.path={model.path!r} is no diffusers pipeline: its model_index.json names no parts")
    listed = {name: value for name, value in index.items() if not name.startswith("_") and isinstance(value, list)}
    parts = [name for name, value in listed.items() if value and value[0]]
    if model.component not in parts:
        raise unknown("model.component", model.component, parts)
    for part in parts:
        if not (folder / part).is_dir():
            raise ModelError(f"model.path={model.path!r}: its folder {part}/ is missing; fetch the pipeline again")
        check_weights(folder / part, required=part == model.component)


def check_weights(folder: Path, required: bool = True) -> None:
    """Read the header of every safetensors file of a component.

    Raises:
        ModelError: where there is no such file though there must be, or one is cut short.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    other = sorted(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")])
    if not files and (required or other):
        found = f"only {', '.join(other)}" if other else "none"
        raise ModelError(f"{folder} holds no safetensors weights ({found} found); quantlab reads no other format")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} cannot be read, it may be cut short ({error}); fetch it again") from None
