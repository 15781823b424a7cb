"""Looks at a pipeline's folder before a library does: what is missing, damaged, or no reference to compare with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from quantlab.config import ModelConfig
from quantlab.errors import ModelError, unknown
from quantlab.pipelines.layout import is_lfs_pointer, json_object, read_layout

UNQUANTIZED = ("F64", "F32", "F16", "BF16", "I64", "BOOL")
"""What safetensors calls the dtypes of an unquantized matrix, and of indices and masks."""


CONFIGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("scheduler_config.json", "tokenizer_config.json"),
)
"""JSON files that the libraries read of a part."""


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
        raise ModelError(f"{name} is not a folder; give that of a diffusers pipeline or a transformers model")
    layout = read_layout(folder, name)
    for component in model.components:
        if component not in layout.parts:
            raise unknown("component", component, layout.parts)
    for part in layout.parts:
        home = layout.home(part)
        if not home.is_dir():
            raise ModelError(f"{name}: its folder {part}/ is missing; fetch the pipeline again")
        for file in filter(Path.is_file, (home / config for config in CONFIGS)):  # else taken for a name on the Hub
            json_object(file)
        check_weights(home, required=part in model.components, variant=model.variant)
    if model.variant and not any(has_variant(layout.home(part), model.variant) for part in layout.parts):
        raise ModelError(f"{name}: no part of it has weights of model.variant={model.variant!r}")


def has_variant(folder: Path, variant: str) -> bool:
    """Whether a component has weights of a variant; a pipeline's other parts may have, as diffusers allows."""
    return any(f".{variant}." in file.name or f".{variant}-" in file.name for file in folder.glob("*.safetensors"))


def check_weights(folder: Path, required: bool = True, variant: str | None = None) -> None:
    """Read the header of every safetensors file of a component, and see that no shard is missing.

    Args:
        folder: of the component.
        required: whether it must have weights.
        variant: that is asked for.

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
    if files and variant is None and (only := _only_variant(files)):
        raise ModelError(f"{folder} holds weights of the variant {only} alone; add model.variant={only}")
    for file in files:
        if is_lfs_pointer(file):
            raise ModelError(f"{file} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} cannot be read, it may be cut short ({error}); fetch it again") from None


def _only_variant(files: Sequence[Path]) -> str:
    """The variants that all weights are of, such as fp16; empty where some are of none."""
    found = [re.fullmatch(r".+\.([A-Za-z]\w*)(-\d+-of-\d+)?\.safetensors", file.name) for file in files]
    return " or ".join(sorted({one[1] for one in found if one})) if all(found) else ""


def _shards(index: Path) -> set[str]:
    """The files that an index of shards names."""
    files = json_object(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{index} cannot be read: its weight_map names no files; fetch it again")
    return set(files.values())


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
                if len(header.get_shape()) > 1 and header.get_dtype() not in UNQUANTIZED:
                    raise ModelError(
                        f"{file}: {name} is in {header.get_dtype()}, quantized already; {_GIVE_UNQUANTIZED}"
                    )
