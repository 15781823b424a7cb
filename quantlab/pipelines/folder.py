"""Looks at a pipeline's folder before a library does: what is missing, damaged, or no reference to compare with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from quantlab.config import ModelConfig
from quantlab.errors import ModelError, unknown
from quantlab.files import read_json

FLOATING = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the dtypes of an unquantized matrix."""


def check_folder(folder: Path, model: ModelConfig, name: str) -> None:
    """Check that a folder holds a whole pipeline.

    Args:
        folder: the folder.
        model: whose components must be there with weights.
        name: what to call the folder, such as ``model.path='...'``.

    Raises:
        ModelError: naming what is missing or damaged.
    """
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # such as a name that is too long
        raise ModelError(f"{name[:200]} cannot be used: {error.strerror}") from None
    if not is_folder:
        raise ModelError(f"{name} is not a folder; give a pipeline saved in diffusers' format")
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"{name} is no diffusers pipeline: it has no model_index.json")
    listed = {part: entry for part, entry in json_object(index).items() if not part.startswith("_")}
    parts = [part for part, entry in listed.items() if isinstance(entry, list) and entry and entry[0]]
    for component in model.components:
        if component not in parts:
            raise unknown("model.components", component, parts)
    for part in parts:
        if not (folder / part).is_dir():
            raise ModelError(f"{name}: its folder {part}/ is missing; fetch the pipeline again")
        for file in sorted((folder / part).glob("*config.json")):  # the libraries take text for a name on the Hub
            json_object(file)
        check_weights(folder / part, required=part in model.components)
    if model.variant and not any(has_variant(folder / part, model.variant) for part in parts):
        raise ModelError(f"{name}: no part of it has weights of model.variant={model.variant!r}")


def has_variant(folder: Path, variant: str) -> bool:
    """Whether a component has weights of a variant; a pipeline's other parts may have, as diffusers allows."""
    return any(f".{variant}." in file.name or f".{variant}-" in file.name for file in folder.glob("*.safetensors"))


def check_weights(folder: Path, required: bool = True) -> None:
    """Read the header of every safetensors file of a component, and see that no shard is missing.

    Raises:
        ModelError: where there is no such file though there must be, or one is missing or cut short.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    other = sorted(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")])
    if not files and (required or other):
        found = f"only {', '.join(other)}" if other else "none"
        raise ModelError(f"{folder} holds no safetensors weights ({found} found); quantlab reads no other format")
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        shards = _shards(index)
        missing = sorted(shard for shard in shards if not (folder / shard).exists())
        if missing and (required or len(missing) < len(shards)):
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files, {missing[0]} among them: it was fetched "
                "half; fetch it again"
            )
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} cannot be read, it may be cut short ({error}); fetch it again") from None


def _shards(index: Path) -> set[str]:
    """The files that an index of shards names."""
    files = json_object(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{index} cannot be read: its weight_map names no files; fetch it again")
    return set(files.values())


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


_GIVE_UNQUANTIZED = "quantlab compares settings with an unquantized reference, so give a 16-bit or 32-bit checkpoint"


def check_unquantized(folder: Path, variant: str | None) -> None:
    """See that a component's weights can be the reference.

    Args:
        folder: of the component.
        variant: of the weights that are loaded.

    Raises:
        ModelError: where its configuration or the header of its weights says that they are quantized.
    """
    from safetensors import safe_open

    config = folder / "config.json"
    method = json_object(config).get("quantization_config") if config.is_file() else None
    if method:
        how = method.get("quant_method", "?") if isinstance(method, dict) else method
        raise ModelError(f"{config} says that the weights are quantized already ({how}); {_GIVE_UNQUANTIZED}")
    wanted = variant if variant and has_variant(folder, variant) else None
    pattern = r"[^.]+\.safetensors" if wanted is None else rf".+\.{re.escape(wanted)}[.-].*"
    for file in sorted(folder.glob("*.safetensors")):
        if not re.fullmatch(pattern, file.name):
            continue
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                header = weights.get_slice(name)
                if len(header.get_shape()) > 1 and header.get_dtype() not in FLOATING:
                    raise ModelError(
                        f"{file}: {name} is in {header.get_dtype()}, quantized already; {_GIVE_UNQUANTIZED}"
                    )
