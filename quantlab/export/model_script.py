"""Writes ``load.py`` of a transformers model."""

from __future__ import annotations

import inspect
import re

from quantlab.config import ModelConfig
from quantlab.export.configs import CONFIG_FILE
from quantlab.export.script_lines import call, identifier, options, source
from quantlab.pipelines.layout import MODEL
from quantlab.spec import PipelineSpec


def model_script(model: ModelConfig, pair: list[str], spec: PipelineSpec, on_cpu: bool, remark: str) -> str:
    """The script that loads a transformers model."""
    from quantlab.bnb import cpu

    name = re.sub(r"[^\w .:/+-]", "_", model.name)
    cls = identifier(pair[1], MODEL)
    is_quantized = spec[MODEL].to_config() is not None
    config = f"quantization_config=transformers.BitsAndBytesConfig.from_dict(configs[{MODEL!r}])"
    given = ["source", *([config] if is_quantized else []), *options(model)]
    plain = inspect.getsource(cpu.plain_4bit_forward).rstrip().splitlines() if on_cpu else []
    lines = [
        f'"""Loads {name} in the setting that quantlab exported{remark}; see README.md beside this file."""',
        "",
        "import json",
        "from pathlib import Path",
        *([] if not on_cpu else ["from typing import Any"]),
        "",
        "import torch",
        "import transformers",
        "",
        f"source = {source(model)!r}",
        f"configs = json.loads(Path(__file__).with_name({CONFIG_FILE!r}).read_text())",
        *(["", "", *plain, "", ""] if on_cpu else []),
        *call(MODEL, f"transformers.{cls}.from_pretrained", given),
        *([f"plain_4bit_forward({MODEL})"] if on_cpu else []),
        *([] if is_quantized or on_cpu else [f"{MODEL}.to('cuda')"]),
        "",
    ]
    return "\n".join(lines)
