"""Models that no YAML describes: a folder in diffusers' format, or ``hub:OWNER/NAME``."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from quantlab.config import ModelConfig
from quantlab.config.paths import conf_dir
from quantlab.errors import ConfigError, ModelError, nearest
from quantlab.files import read_json

HUB = "hub:"
"""Stands before the name of a repository, which nothing else may ask a hub for."""

DENOISERS = ("transformer", "unet")
"""What diffusers' pipelines call the component that denoises."""


@functools.cache
def default_prompts() -> tuple[str, ...]:
    """The prompts of conf/prompts/photographs.yaml, for models that name none."""
    return tuple(yaml.safe_load((conf_dir() / "prompts" / "photographs.yaml").read_text())["prompts"])


def model_of(what: str, names: Sequence[str]) -> ModelConfig:
    """A model in float16 with prompts of ours and the pipeline's own arguments, its denoiser to be quantized.

    Args:
        what: a folder, or ``hub:OWNER/NAME``.
        names: of the configured models, to name the nearest where it is neither.

    Raises:
        ConfigError, ModelError: where it is neither, or holds no pipeline with a denoiser.
    """
    repo = what.removeprefix(HUB) if what.startswith(HUB) else None
    if repo is not None:
        model = ModelConfig(name=repo.rpartition("/")[2], repo=repo)
    elif (folder := Path(what).expanduser()).is_dir():
        model = ModelConfig(name=folder.resolve().name, path=str(folder))
    else:
        near = nearest(what, names)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"model={what!r} is neither a folder nor a model of conf/model/; choose from {', '.join(names)}, a "
            f"folder in diffusers' format, or {HUB}OWNER/NAME.{hint}"
        )
    model.components = []  # the folder is looked at before they are known
    parts = _parts(model)
    model.components = [denoiser(parts, f"model={what!r}")]
    model.prompts = list(default_prompts())
    return model


def denoiser(parts: Iterable[str], whose: str) -> str:
    """The part of a pipeline that denoises.

    Raises:
        ConfigError: where it has none that goes by a known name.
    """
    parts = list(parts)
    for name in DENOISERS:
        if name in parts:
            return name
    raise ConfigError(f"{whose} has neither of {', '.join(DENOISERS)}; name its components, of {', '.join(parts)}")


def _parts(model: ModelConfig) -> list[str]:
    from quantlab.pipelines.fetch import fetch

    file = fetch(model) / "model_index.json"
    try:
        index = read_json(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error})") from None
    return [name for name, entry in index.items() if isinstance(entry, list) and entry and entry[0]]
