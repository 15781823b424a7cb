"""LoRA adapters on top of a pipeline, quantized or not."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bitsandbytes as bnb
import torch
from safetensors import SafetensorError
from torch import nn

from quantlab.bnb.raised import in_one_line
from quantlab.config.deployment import RANDOM, is_peft_folder
from quantlab.errors import ConfigError, DeploymentRefusedError
from quantlab.pipelines.peft_folder import load_peft_adapter

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

    from quantlab.pipelines.source import Source

_SAFELY = {"use_safetensors": True, "local_files_only": True}
_States = dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]]
_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that diffusers' own training scripts put adapters on."""


@contextlib.contextmanager
def adapted(
    components: Mapping[str, ModelMixin], lora: str | None, source: Source
) -> Iterator[dict[str, AdapterLayers]]:
    """Inside, components have an adapter on top, and afterwards none.

    Args:
        components: by name, in the setting that they are to have.
        lora: as of `quantlab.config.DeploymentConfig`; None does nothing.
        source: of the model.

    Yields:
        Component -> the adapter's layers on it; none without an adapter.

    Raises:
        ConfigError: for an adapter that cannot be read or put on them, and one of text encoders as well.
    """
    if lora is None:
        yield {}
        return
    pipeline = source.pipeline(components, source.text_encoders)
    try:
        with _states_kept() as states:
            add_lora(pipeline, components, lora, denoiser_only=True)
    except ConfigError:
        raise
    except (DeploymentRefusedError, KeyError, RuntimeError, TypeError, ValueError) as error:  # peft's own are of these
        raise ConfigError(f"deployment.lora={lora!r} cannot be put on the reference: {in_one_line(error)}") from error
    try:
        yield {name: AdapterLayers(one, states.get(one, {})) for name, one in components.items()}
    finally:
        for component in components.values():
            if getattr(component, "peft_config", None):
                component.unload_lora()


def add_lora(
    pipeline: DiffusionPipeline, components: Mapping[str, Any], lora: str, denoiser_only: bool = False
) -> None:
    """Put an adapter on a pipeline's components.

    Random adapters have the same weights each time, which change the output.

    Args:
        pipeline: around the components.
        components: by name.
        lora: a file or folder in diffusers' or peft's format, or ``random:RANK``.
        denoiser_only: refuse an adapter that changes text encoders as well.

    Raises:
        ConfigError: for an adapter that cannot be read or has no weight for any component.
        DeploymentRefusedError: where peft or diffusers refuses it on these layers.
    """
    if lora.startswith(RANDOM):
        for component in components.values():
            component.load_lora_adapter(_random_weights(component, int(lora[len(RANDOM) :])), prefix=None)
    else:
        try:
            _load(pipeline, components, lora, denoiser_only)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"deployment.lora={lora!r} cannot be read: {in_one_line(error)}") from error
    if not any(getattr(component, "peft_config", None) for component in components.values()):
        raise ConfigError(f"deployment.lora={lora!r} has no weight for {', '.join(components)}")
    for component in components.values():
        component.eval()  # an adapter comes in training mode, with its dropout


def fingerprint(lora: str) -> str:
    """Digest of an adapter's files; a random one is its name."""
    if lora.startswith(RANDOM):
        return lora
    sha = hashlib.sha256()
    place = Path(lora)
    for file in [place] if place.is_file() else sorted(part for part in place.rglob("*") if part.is_file()):
        sha.update(file.name.encode() + file.read_bytes())
    return sha.hexdigest()[:16]


def _load(pipeline: Any, components: Mapping[str, Any], lora: str, denoiser_only: bool) -> None:
    if is_peft_folder(lora):
        load_peft_adapter(components.values(), lora)  # type: ignore[no-untyped-call]
        return
    if denoiser_only:
        _check_denoiser_only(pipeline, lora)
    pipeline.load_lora_weights(lora, **_SAFELY)


def _check_denoiser_only(pipeline: Any, lora: str) -> None:
    found = pipeline.lora_state_dict(lora, **_SAFELY)
    state = found[0] if isinstance(found, tuple) else found
    if any(name.startswith("text_encoder") for name in state):
        raise ConfigError(
            f"deployment.lora={lora!r} changes text encoders, whose embeddings are recorded without it: make the study "
            "without it, and run quantlab deploy"
        )


def _random_weights(component: Any, rank: int) -> dict[str, torch.Tensor]:
    linear = {name: part for name, part in component.named_modules() if isinstance(part, nn.Linear)}
    targets = {name: part for name, part in linear.items() if name.endswith(tuple(f".{one}" for one in _TARGETS))}
    if not targets:
        raise DeploymentRefusedError(f"no layer is named {', '.join(_TARGETS)}, on which adapters are put")
    generator, state = torch.Generator().manual_seed(0), {}
    for name, part in targets.items():
        for letter, shape in (("A", (rank, part.in_features)), ("B", (part.out_features, rank))):
            values = 0.3 * torch.randn(shape, generator=generator) / shape[1] ** 0.5
            state[f"{name}.lora_{letter}.weight"] = values.to(component.dtype)
    return state


class AdapterLayers:
    """An adapter's layers on one component: around any module in a layer's place they are what peft would make of it.

    Args:
        component: the reference, with the adapter on.
        states: adapter -> its weights, as they were put on the component, and how.
    """

    def __init__(self, component: Any, states: _States) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._configs, self._states = dict(getattr(component, "peft_config", None) or {}), states
        self._layers = {path: part for path, part in component.named_modules() if isinstance(part, BaseTunerLayer)}

    def around(self, path: str, module: nn.Module) -> nn.Module:
        """A module that is to stand at a path, with the adapter's layer around it; itself where there is none."""
        import peft

        own: Any = self._layers.get(path)
        if own is None or own.get_base_layer() is module:
            return module if own is None else own
        root: Any = nn.Module()
        *parents, last = path.split(".")
        holder = root
        for name in parents:
            holder.add_module(name, nn.Module())
            holder = getattr(holder, name)
        holder.add_module(last, module)
        root.is_loaded_in_8bit = isinstance(module, bnb.nn.Linear8bitLt)
        root.is_loaded_in_4bit = isinstance(module, bnb.nn.Linear4bit)
        for adapter, (state, how) in self._states.items():
            weights = {name: tensor for name, tensor in state.items() if name.startswith(f"{path}.")}
            config = copy.deepcopy(self._configs[adapter])
            peft.inject_adapter_in_model(config, root, adapter, state_dict=weights, **how)
            peft.set_peft_model_state_dict(root, weights, adapter, **how)
        return root.get_submodule(path).eval()


@contextlib.contextmanager
def _states_kept() -> Iterator[dict[nn.Module, _States]]:
    """Inside, what diffusers hands to peft is kept: model -> adapter -> its weights, and how they are put on.

    Once on a layer they are in the dtype that this layer computes in, and a setting may compute in another.
    """
    import peft

    put, kept = peft.set_peft_model_state_dict, dict[nn.Module, _States]()

    def keeping(model: nn.Module, state: Any, adapter_name: str = "default", **how: Any) -> Any:
        kept.setdefault(model, {})[adapter_name] = dict(state), how
        return put(model, state, adapter_name, **how)

    peft.set_peft_model_state_dict = keeping
    try:
        yield kept
    finally:
        peft.set_peft_model_state_dict = put
