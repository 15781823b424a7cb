"""Makes the bitsandbytes module of one layer: what `from_pretrained(quantization_config=...)` would have put there.

Int8 codes are made from a float16 copy of the weight, as `bitsandbytes.nn.Int8Params` does; 4-bit codes from the weight
as it is. Both are made at once and on the device to run on, never lazily in a forward. A weight on the host is sent
there for the while, so that a model need not fit.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import bitsandbytes as bnb
import torch
from torch import nn

from quantlab.bnb.linear import is_transposed
from quantlab.errors import ConfigError, KernelError
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec


def check(device: torch.device) -> None:
    """See that bitsandbytes' kernels run on a CUDA device before anything is loaded.

    Raises:
        ConfigError: where they do not: its library is too old for the card or torch's CUDA, or the driver is.
    """
    if device.type != "cuda":
        return
    try:
        weight = torch.zeros(64, 64, dtype=torch.float16, device=device)
        bnb.functional.int8_vectorwise_quant(weight)
        bnb.functional.quantize_4bit(weight, quant_type="nf4")
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # it raises whatever a missing library happens to break
        first = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"bitsandbytes {bnb.__version__} does not run on {torch.cuda.get_device_name(device)} with torch "
            f"{torch.__version__} (CUDA {torch.version.cuda}): {first}; update bitsandbytes or the driver, or choose "
            "device=cpu"
        ) from error


@functools.singledispatch
def make(spec: QuantSpec, layer: nn.Linear, device: torch.device) -> nn.Linear:
    """The module of a layer under a spec; its bias shares the layer's storage.

    Args:
        spec: the setting; the reference stands for the unquantized layer.
        layer: the unquantized layer; its weight may be on the host, its bias is on the device.
        device: where it runs.
    """
    raise TypeError(f"no scheme for {spec!r}")


@make.register
def _(spec: ReferenceSpec, layer: nn.Linear, device: torch.device) -> nn.Linear:
    if is_transposed(layer):
        module: Any = copy.copy(layer)
        module._parameters = dict(layer._parameters)
    else:
        module = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    grad = layer.weight.requires_grad  # torch chooses its kernel by it, with and without gradients
    module.weight = nn.Parameter(to_device(layer.weight.data, device), requires_grad=grad)
    retune(spec, module, layer)
    return module.eval()


@make.register
def _(spec: Int8Spec, layer: nn.Linear, device: torch.device) -> nn.Linear:
    module = bnb.nn.Linear8bitLt(
        *_features(layer),
        bias=layer.bias is not None,
        has_fp16_weights=spec.has_fp16_weight,
        threshold=spec.threshold,
        device="meta",
    )
    weight = to_device(_weight(layer), device)
    if spec.has_fp16_weight:
        if device.type != "cpu":
            raise KernelError(
                "llm_int8_has_fp16_weight=true cannot be loaded on a GPU: bitsandbytes' Int8Params loses its state on "
                "the way there, so that from_pretrained gives a component that does not run"
            )
        module.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=True)
    else:
        codes, scales, _ = bnb.functional.int8_vectorwise_quant(weight.contiguous().to(torch.float16))
        module.weight = bnb.nn.Int8Params(codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scales)
    return _finish(module, layer, spec)


@make.register
def _(spec: Int4Spec, layer: nn.Linear, device: torch.device) -> nn.Linear:
    storage = getattr(torch, spec.quant_storage)
    module = bnb.nn.Linear4bit(
        *_features(layer),
        bias=layer.bias is not None,
        compute_dtype=getattr(torch, spec.compute_dtype),
        compress_statistics=spec.double_quant,
        quant_type=spec.quant_type,
        quant_storage=storage,
        device="meta",
    )
    module.weight = bnb.nn.Params4bit(
        to_device(_weight(layer), device),
        requires_grad=False,
        compress_statistics=spec.double_quant,
        quant_type=spec.quant_type,
        quant_storage=storage,
        module=module,
    ).to(device)
    module.support_avx512bf16_for_cpu = False  # that path ignores the compute dtype and corrupts the weight
    return _finish(module, layer, spec)


def _features(layer: nn.Linear) -> tuple[int, int]:
    """Inputs and outputs of a layer."""
    out, inputs = _weight(layer).shape
    return inputs, out


def _weight(layer: nn.Linear) -> torch.Tensor:
    """The weight as `torch.nn.Linear` has it, a line an output."""
    return layer.weight.data.T.contiguous() if is_transposed(layer) else layer.weight.data


def _finish(module: nn.Linear, layer: nn.Linear, spec: QuantSpec) -> nn.Linear:
    module.requires_grad_(False)
    module.eval()
    retune(spec, module, layer)
    return module


@functools.singledispatch
def retune(spec: QuantSpec, module: nn.Linear, layer: nn.Linear) -> None:
    """Give a quantized module the settings that its stored weight does not depend on.

    The bias goes back to the reference's, because a forward casts it in place.
    """
    raise TypeError(f"no scheme for {spec!r}")


@retune.register
def _(spec: ReferenceSpec, module: Any, layer: nn.Linear) -> None:
    _restore_bias(module, layer)


@retune.register
def _(spec: Int8Spec, module: Any, layer: nn.Linear) -> None:
    module.state.threshold = spec.threshold
    module.state.use_pool = spec.threshold > 0 and not spec.has_fp16_weight
    _restore_bias(module, layer)


@retune.register
def _(spec: Int4Spec, module: Any, layer: nn.Linear) -> None:
    module.compute_dtype = getattr(torch, spec.compute_dtype)
    module.compute_type_is_set = True
    _restore_bias(module, layer)


def _restore_bias(module: nn.Linear, layer: nn.Linear) -> None:
    if layer.bias is None:
        return
    if module.bias.device.type == "meta":
        module.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    else:
        module.bias.data = layer.bias.data


def to_device(weight: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A weight on the device; from the host by way of pinned memory."""
    if weight.device == device:
        return weight
    if device.type == "cuda" and weight.device.type == "cpu":
        return weight.pin_memory().to(device, non_blocking=True)
    return weight.to(device)


def is_quantized(module: nn.Module) -> bool:
    """Whether a module is one of bitsandbytes' quantized linear layers."""
    return isinstance(module, bnb.nn.Linear8bitLt | bnb.nn.Linear4bit)


def stored_tensors(module: nn.Module) -> list[torch.Tensor]:
    """Every tensor that a module itself holds: parameters, buffers, and a quantized layer's state.

    That state is int8's codes and row scales; in 4 bit block scales and code books, and where they are nested their own
    scales and offset. A tensor may be there twice.
    """
    own = (*module._parameters.values(), *module._buffers.values())  # the methods take five times as long
    found = [tensor for tensor in own if tensor is not None]
    if is_quantized(module):
        for owner in (module.weight, getattr(module, "state", None)):
            found += _tensors_of(owner, ("CB", "SCB"))
        nested = getattr(module.weight, "quant_state", None)
        while nested is not None:
            found += _tensors_of(nested, ("absmax", "code", "offset"))
            nested = nested.state2
    return found


def left_on_host(module: nn.Module, device: torch.device) -> bool:
    """Whether a quantized layer's state, apart from its parameters and buffers, is elsewhere than on a device.

    What moves parameters alone leaves it behind, and a kernel that is handed it reads memory that is not its own.
    """
    for part in module.modules():
        if is_quantized(part):
            own = {id(tensor) for tensor in (*part._parameters.values(), *part._buffers.values())}
            if any(t.device.type != device.type for t in stored_tensors(part) if id(t) not in own):
                return True
    return False


def _tensors_of(owner: Any, names: tuple[str, ...]) -> list[torch.Tensor]:
    values = [getattr(owner, name, None) for name in names]
    return [tensor for tensor in values if isinstance(tensor, torch.Tensor)]
