"""Loads tiny_sd3 in the setting that quantlab exported; see README.md beside this file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def bitsandbytes_on_cpu() -> Iterator[None]:
    """Inside, ``from_pretrained(quantization_config=BitsAndBytesConfig(...))`` loads onto the CPU.

    The AVX512-BF16 path of `bitsandbytes.nn.Linear4bit` is switched off on what is loaded: it ignores the compute
    dtype and corrupts the weight for everything but its own forward.
    """
    from diffusers.quantizers import auto
    from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer, BnB8BitDiffusersQuantizer

    def on_cpu(quantizer: Any) -> Any:
        class OnCpu(quantizer):  # type: ignore[misc]
            def validate_environment(self, *args: Any, **kwargs: Any) -> None:
                """Accept a machine without a GPU."""

            def update_device_map(self, device_map: Any) -> Any:
                return {"": "cpu"} if device_map is None else device_map

            def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
                model = super()._process_model_after_weight_loading(model, **kwargs)
                plain_4bit_forward(model)
                return model

        return OnCpu

    mapping = auto.AUTO_QUANTIZER_MAPPING
    names = {"bitsandbytes_4bit": BnB4BitDiffusersQuantizer, "bitsandbytes_8bit": BnB8BitDiffusersQuantizer}
    before = {name: mapping[name] for name in names}
    mapping.update({name: on_cpu(quantizer) for name, quantizer in names.items()})
    try:
        yield
    finally:
        mapping.update(before)


def bitsandbytes_without_gpu() -> contextlib.AbstractContextManager[None]:
    """`bitsandbytes_on_cpu` on a machine without a GPU; elsewhere a context that does nothing."""
    import torch

    return contextlib.nullcontext() if torch.cuda.is_available() else bitsandbytes_on_cpu()


def plain_4bit_forward(model: Any) -> None:
    """Keep every `bitsandbytes.nn.Linear4bit` of a model from repacking its weight for AVX512-BF16 CPUs."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


# From here on: the pipeline.

import json
from pathlib import Path

import torch
from diffusers import BitsAndBytesConfig, SD3Transformer2DModel, StableDiffusion3Pipeline

source = 'quantlab/tiny_sd3/pipeline'  # in a checkout
configs = json.loads(Path(__file__).with_name('quantization_config.json').read_text())
with bitsandbytes_without_gpu():  # does nothing where there is a GPU
    transformer = SD3Transformer2DModel.from_pretrained(
        source,
        subfolder='transformer',
        quantization_config=BitsAndBytesConfig.from_dict(configs['transformer']),
        dtype=torch.float16,
    )
pipe = StableDiffusion3Pipeline.from_pretrained(source, transformer=transformer, dtype=torch.float16)
if torch.cuda.is_available():
    pipe.to('cuda')
