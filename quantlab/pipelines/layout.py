"""What a model's folder says of itself: a diffusers pipeline with its parts, or one model of transformers.

Read without torch, so that a command line can be completed from it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.bnb.matching import DIFFUSERS, TRANSFORMERS
from quantlab.errors import ModelError
from quantlab.files import read_json

MODEL = "model"
"""What the only component of a transformers model is called."""

_LFS = b"version https://git-lfs"

_METADATA = "__metadata__"


@dataclass(frozen=True)
class Layout:
    """What a folder holds.

    Attributes:
        folder: the folder.
        class_name: of the pipeline, or of the model.
        parts: library and class of each part by its name; of a transformers model only `MODEL`.
        is_pipeline: whether it is a diffusers pipeline.
    """

    folder: Path
    class_name: str
    parts: dict[str, tuple[str, str]]
    is_pipeline: bool

    def home(self, part: str) -> Path:
        """The folder of a part."""
        return self.folder / part if self.is_pipeline else self.folder

    def dtype(self, part: str) -> str | None:
        """What safetensors calls the dtype of most of a part's matrices, by the headers of its files."""
        headers = [_header(file) for file in sorted(self.home(part).glob("*.safetensors"))]
        counts = Counter(dtype for header in headers for dtype in header)
        return counts.most_common(1)[0][0] if counts else None


def read_layout(folder: Path, name: str) -> Layout:
    """The layout of a folder.

    Args:
        folder: the folder.
        name: what to call it in an error.

    Raises:
        ModelError: for a folder that is neither a pipeline nor a model, or that needs code of its own.
    """
    index, config = folder / "model_index.json", folder / "config.json"
    if index.is_file():
        data = json_object(index)
        pairs = {part: pair for part, pair in data.items() if part[:1] != "_" and isinstance(pair, list)}
        parts = {
            part: (_library(str(pair[0])), str(pair[1])) for part, pair in pairs.items() if len(pair) == 2 and all(pair)
        }
        class_name = data.get("_class_name")
        if isinstance(class_name, list) and class_name:  # ["module of the repository", "class"]
            raise ModelError(f"{name}: its pipeline {class_name[-1]} {_OWN_CODE}")
        return Layout(folder, str(class_name), parts, True)
    if not config.is_file():
        raise ModelError(
            f"{name} is no model: it has neither a model_index.json (a diffusers pipeline) nor a config.json (a "
            "transformers model)"
        )
    data = json_object(config)
    if "_class_name" in data:
        raise ModelError(f"{name} holds a {data['_class_name']} alone; give the folder of the pipeline around it")
    architectures = data.get("architectures")
    class_name = str(architectures[0]) if isinstance(architectures, list) and architectures else "AutoModel"
    return Layout(folder, class_name, {MODEL: (TRANSFORMERS, class_name)}, False)


_OWN_CODE = "is code of the repository's own, which quantlab does not run"


def _library(name: str) -> str:
    """The library of a part; a part that only one pipeline has goes by the name of that pipeline's module."""
    return DIFFUSERS if name in _pipeline_modules() else name


@functools.cache
def _pipeline_modules() -> frozenset[str]:
    """Modules of diffusers that hold a kind of pipeline."""
    found = importlib.util.find_spec(DIFFUSERS)
    where = [Path(place) / "pipelines" for place in (found.submodule_search_locations or ())] if found else []
    return frozenset(entry.name for folder in where if folder.is_dir() for entry in folder.iterdir() if entry.is_dir())


def json_object(file: Path) -> dict[str, Any]:
    """What a JSON file holds, which must be an object.

    Raises:
        ModelError: where it does not.
    """
    try:
        found = read_json(file)
    except (ValueError, OSError) as error:
        raise ModelError(f"{file} cannot be read ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} cannot be read: it holds no JSON object; fetch it again")
    return found


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is only the note that Git keeps of a large one."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(_LFS)) == _LFS
    except OSError:
        return False


def _header(file: Path) -> list[str]:
    """Dtypes of the matrices in a file; none where it is damaged."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size < file.stat().st_size else {}
        return [entry["dtype"] for name, entry in header.items() if name != _METADATA and len(entry["shape"]) > 1]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
