"""Which modules of a component bitsandbytes' layers stand for: each library replaces others."""

from __future__ import annotations

from torch import nn

from quantlab.bnb.matching import DIFFUSERS, TRANSFORMERS, Layer, matches


def linear_layers(component: nn.Module) -> dict[str, nn.Linear]:
    """Every layer of the component that bitsandbytes' modules can stand for, by its path, in module order.

    Diffusers replaces every `torch.nn.Linear`. Transformers leaves subclasses of it alone, and replaces its own
    ``Conv1D``, a linear layer whose weight is transposed.
    """
    is_transformers = library_of(component) == TRANSFORMERS
    return {
        path: module
        for path, module in component.named_modules()
        if (type(module) is nn.Linear or is_transposed(module) if is_transformers else isinstance(module, nn.Linear))
    }


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer is a ``Conv1D`` of transformers."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def library_of(component: nn.Module) -> str:
    """The library whose rules hold for a component."""
    return TRANSFORMERS if type(component).__module__.startswith("transformers.") else DIFFUSERS


def described(component: nn.Module) -> tuple[Layer, ...]:
    """The linear layers of an unquantized component as plain data, in module order."""
    library = library_of(component)
    always = tuple(getattr(component, "_keep_in_fp32_modules", None) or ())  # both add them to every skip list
    default = _default_skips(component) if library == TRANSFORMERS else ()
    return tuple(
        Layer(
            path,
            layer.weight.numel(),
            layer.weight.nbytes,
            any(matches(entry, path, library) for entry in always),
            any(matches(entry, path, library) for entry in default),
            library,
        )
        for path, layer in linear_layers(component).items()
    )


def _default_skips(component: nn.Module) -> list[str]:
    """What transformers keeps where no skip list is given: tied weights, the output embedding and the last module."""
    from transformers.quantizers.base import get_keys_to_not_convert

    return list(get_keys_to_not_convert(component))
