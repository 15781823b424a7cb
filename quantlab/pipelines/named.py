"""Models that no YAML describes whole: what is not given is read from the folder, or has a default that is said.

A folder is named by its path (``model=./FOLDER``), a repository behind ``hub:``; nothing else asks a hub.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from quantlab.bnb.matching import DIFFUSERS, TRANSFORMERS
from quantlab.config import Dtype, ModelConfig, Weights
from quantlab.config.compose import compose
from quantlab.config.paths import conf_dir
from quantlab.config.schema import groups, options
from quantlab.errors import ConfigError
from quantlab.metrics.logits import LOGIT_METRICS
from quantlab.metrics.prediction import FINAL_SNR_DB
from quantlab.pipelines.fetch import layout
from quantlab.pipelines.layout import MODEL, Layout
from quantlab.pipelines.structure import KINDS, structural_lists
from quantlab.spec.config_file import read_quantization

HUB = "hub:"
"""Stands before the name of a repository, which nothing else may ask a hub for."""

DENOISERS = ("transformer", "unet", "prior", "decoder")
"""What diffusers' pipelines call the component that denoises, the usual first."""

_NEVER = ("vae", "vqvae", "vqgan", "image_encoder", "safety_checker", "vocoder", "movq", "image_noising_scheduler")
"""Parts that are no denoisers, whatever their size."""

_FLOATING = {"F16": Dtype.float16, "BF16": Dtype.bfloat16, "F32": Dtype.float16}
"""What weights are loaded in, by what safetensors calls their dtype; float32 is not what people deploy."""


@functools.cache
def default_prompts() -> tuple[str, ...]:
    """The prompts of conf/prompts/photographs.yaml, for models that name none."""
    return tuple(yaml.safe_load((conf_dir() / "prompts" / "photographs.yaml").read_text())["prompts"])


def configured(command: str, words: Sequence[str]) -> Any:
    """The configuration of a command whose model may be a folder or a repository, complete.

    Args:
        command: a name of `quantlab.config.COMMANDS`.
        words: as on the command line.

    Raises:
        ConfigError, ModelError: for words that cannot be meant, and a model that cannot be read.
    """
    return completed(compose(command, with_files(command, words)))


def with_files(command: str, words: Sequence[str]) -> list[str]:
    """A command line's words, in which a folder, a repository or a file is the options that describe it.

    Raises:
        ConfigError, ModelError: for a folder that is none, or holds no model.
    """
    found: list[str] = []
    for word in words:
        key, _, what = word.partition("=")
        if key == "model" and _is_place(what):
            found += _described(what)
        elif key == "quant" and what.endswith(".json"):
            file = json.dumps(what)
            is_group = "quant" in groups(command)
            found += ["~quant", "++quant.method=file", f"++quant.file={file}"] if is_group else [f"++own_quant={file}"]
        else:
            found.append(word)
    return found


def completed(config: Any) -> Any:
    """A configuration whose model has everything that was not given.

    Components are read from the folder, prompts are those of conf/prompts/photographs.yaml, and skip lists follow from
    the structure, where there is none. ``component`` goes before the model's own. A transformers model with a head is
    measured by its logits' distributions as well, a text encoder by its effect on the denoiser.

    Raises:
        ConfigError, ModelError: for a component that the model does not have.
    """
    model = getattr(config, "model", None)
    if not isinstance(model, ModelConfig):
        return config
    chosen = getattr(config, "component", None)
    if chosen is not None and model.components != (names := component_names(chosen)):
        model.components, model.skips = names, {}  # the lists are those of other parts
    if model.weights is Weights.checkpoint:
        _read(model)
        config.metrics = list(dict.fromkeys([*config.metrics, *_further_metrics(model)]))
    model.prompts = model.prompts or list(default_prompts())
    if isinstance(file := getattr(config, "own_quant", None), str):
        spec, inert = read_quantization(Path(file).expanduser(), model.components)
        fields = [list(vars(one).values()) for one in inert]
        config.own_quant = {"file": file, "setting": spec.to_dict(), "inert": fields}
    return config


def _further_metrics(model: ModelConfig) -> tuple[str, ...]:
    """What is measured of a model beside the usual: of logits their distributions, of a text encoder its effect."""
    if all(name.startswith(DENOISERS) for name in model.components):
        return ()
    found = layout(model)
    if not found.is_pipeline:
        return LOGIT_METRICS if re.search(r"For[A-Z]|LMHead", found.class_name) else ()
    encoders = {name for name, (library, _) in found.parts.items() if library == TRANSFORMERS}
    is_behind = any(name in found.parts for name in DENOISERS if name not in model.components)
    return (FINAL_SNR_DB.name,) if set(model.components) <= encoders and is_behind else ()


def component_names(chosen: Any) -> list[str]:
    """The components that ``component`` names: one, or a list.

    Raises:
        ConfigError: for anything else.
    """
    names = [chosen] if isinstance(chosen, str) else chosen
    if names == []:
        raise ConfigError("component=[] is empty: name at least one part of the model, or leave it null")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"component={chosen!r} must be the name of a component, or a list of names")
    return list(names)


def denoiser(sizes: Mapping[str, int], whose: str) -> str:
    """The part of a pipeline that is quantized where nobody says which: the denoiser, or else the largest part.

    Args:
        sizes: of the pipeline's models, by name.
        whose: the pipeline, for an error.

    Raises:
        ConfigError: where no part can be a denoiser.
    """
    models = [name for name, size in sizes.items() if size and name not in _NEVER]
    if not models:
        raise ConfigError(f"{whose} has no denoiser; name a component=, of {', '.join(sizes)}")
    return next((name for name in DENOISERS if name in models), max(models, key=lambda name: sizes[name]))


def _usual_component(layout: Layout, whose: str) -> str:
    """The denoiser of a pipeline, or the whole of a transformers model."""
    if not layout.is_pipeline:
        return MODEL
    sizes = {
        part: sum(file.stat().st_size for file in layout.home(part).glob("*.safetensors")) for part in layout.parts
    }
    own = {part: size for part, size in sizes.items() if size and layout.parts[part][0] == DIFFUSERS}
    return denoiser(own or sizes, whose)  # transformers' parts are encoders, where there are others


def _read(model: ModelConfig) -> None:
    if model.components and model.skips:
        return
    from quantlab.pipelines.checkpoint import Checkpoint

    found = layout(model)
    model.components = model.components or [_usual_component(found, f"model={model.name}")]
    if not model.skips:
        source = Checkpoint(model)
        libraries = [found.parts.get(name, (DIFFUSERS,))[0] for name in model.components]
        layers = map(source.linear_layers, model.components)
        lists = [structural_lists(*pair) for pair in zip(layers, libraries, strict=True)]
        # a list is for all components alike; of a kind that they have not, or not under the same names, nothing is kept
        model.skips = {kind: lists[0].get(kind, []) if _is_shared(kind, lists) else [] for kind in KINDS}


def _is_shared(kind: str, lists: Sequence[Mapping[str, list[str]]]) -> bool:
    return all(one.get(kind) == lists[0].get(kind) for one in lists)


def _is_place(what: str) -> bool:
    """Whether what stands for a model is a folder or a repository, rather than the name of an option."""
    if what in options("model"):
        return False
    return what.startswith((HUB, "/", "./", "../", "~")) or what in (".", "..") or ("/" in what and Path(what).is_dir())


def _described(what: str) -> list[str]:
    """The options that stand for a folder or a repository; those that a person gives come after them."""
    if what.startswith(HUB):
        place = {"name": what.rpartition("/")[2], "repo": what.removeprefix(HUB)}
    else:
        folder = Path(what).expanduser()
        if not folder.is_dir():
            names = ", ".join(options("model"))
            raise ConfigError(f"model={what!r} is no folder; choose one, {HUB}OWNER/NAME, or of {names}")
        place = {"name": folder.resolve().name, "path": str(folder)}
    model = ModelConfig(name=place["name"], path=place.get("path"), repo=place.get("repo"), components=[])
    found = layout(model)
    dtype = _FLOATING.get(found.dtype(_usual_component(found, f"model={what!r}")) or "", Dtype.float16)
    given = {**place, "dtype": dtype.value}
    return ["~model", *(f"++model.{name}={json.dumps(value)}" for name, value in given.items())]
