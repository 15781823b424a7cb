"""Writes ``load.py``: a script without quantlab in it that loads the pipeline as its libraries document it."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.config import Compile, DeploymentConfig, ModelConfig, Offload, Weights
from quantlab.config.deployment import RANDOM, called_as_deployed, is_peft_folder
from quantlab.errors import ConfigError, unknown
from quantlab.export.configs import CONFIG_FILE
from quantlab.export.model_script import model_script
from quantlab.export.script_lines import call, identifier, options, source
from quantlab.pipelines.fetch import layout
from quantlab.pipelines.layout import MODEL
from quantlab.spec import PipelineSpec


@dataclass(frozen=True)
class _Part:
    """A quantized component: its name, its class, and the library of that."""

    name: str
    library: str
    cls: str

    @property
    def config_class(self) -> str:
        """Diffusers and transformers each have a ``BitsAndBytesConfig``, and each takes its own alone."""
        return "BitsAndBytesConfig" if self.library == "diffusers" else f"{self.library}.BitsAndBytesConfig"


def load_script(
    model: ModelConfig, spec: PipelineSpec, on_cpu: bool, remark: str = "", deployment: DeploymentConfig | None = None
) -> str:
    """The script's text.

    Args:
        model: the pipeline.
        spec: its setting; components that are not quantized are left to the pipeline.
        on_cpu: whether it was measured on a CPU, for which diffusers needs help: the script then carries it.
        remark: added to the first line.
        deployment: that it was measured in, which the script sets up.

    Raises:
        ConfigError, ModelError: where the pipeline cannot be found or read, or lacks a component of the setting.
    """
    index = pipeline_index(model)
    if index["_class_name"] is None:
        return model_script(model, index[MODEL], spec, on_cpu, remark)
    name = re.sub(r"[^\w .:/+-]", "_", model.name)  # what a study or a model says becomes no code
    parts = [_part(index, name) for name, one in spec.items() if one.to_config() is not None]
    pipeline = identifier(index["_class_name"], "_class_name")
    diffusers = sorted({"BitsAndBytesConfig", pipeline, *(part.cls for part in parts if part.library == "diffusers")})
    others = sorted({part.library for part in parts} - {"diffusers"})
    loads = [line for part in parts for line in _load(model, part)]
    if on_cpu:
        loads = ["with bitsandbytes_without_gpu():  # does nothing where there is a GPU", *("    " + x for x in loads)]
        loads += [f"plain_4bit_forward({part.name})" for part in parts if part.library != "diffusers"]
    given = [f"{part.name}={part.name}" for part in parts]
    deployment = deployment or DeploymentConfig()
    lines = [
        f'"""Loads {name} in the setting that quantlab exported{remark}; see README.md beside this file."""',
        *(["", cpu_source()] if on_cpu else []),
        "",
        *(["# From here on: the pipeline.", ""] if on_cpu else []),
        "import json",
        "from pathlib import Path",
        "",
        "import torch",
        *(f"import {library}" for library in others),
        f"from diffusers import {', '.join(diffusers)}",
        "",
        f"source = {source(model)!r}",
        f"configs = json.loads(Path(__file__).with_name({CONFIG_FILE!r}).read_text())",
        *loads,
        *call("pipe", f"{pipeline}.from_pretrained", ["source", *given, *options(model)]),
        *([] if deployment.lora is None else _adapter(model, deployment.lora)),
        *_placed(deployment.offload, on_cpu),
        *_deployed(model, deployment),
        "",
    ]
    return "\n".join(lines)


def pipeline_index(model: ModelConfig) -> dict[str, Any]:
    """The pipeline's class by ``_class_name``, None for a transformers model; library and class of each part.

    Raises:
        ConfigError, ModelError: where it cannot be found or read.
    """
    if model.weights is Weights.random:
        if model.architecture is None:
            raise ConfigError(
                f"model.weights='random' needs model.architecture, which model={model.name} does not have"
            )
        parts = {name: ["diffusers", model.architecture.component] for name in model.components}
        return {"_class_name": model.architecture.pipeline, **parts}
    found = layout(model)
    parts = {name: list(pair) for name, pair in found.parts.items()}
    return {"_class_name": found.class_name if found.is_pipeline else None, **parts}


def cpu_source() -> str:
    """The code that a machine without a GPU needs, from `quantlab.bnb.cpu`, which imports nothing of quantlab."""
    from quantlab.bnb import cpu

    source = inspect.getsource(cpu)
    docstring = ast.parse(source).body[0]
    assert docstring.end_lineno is not None
    return "\n".join(source.splitlines()[docstring.end_lineno :]).strip() + "\n"


def _deployed(model: ModelConfig, deployment: DeploymentConfig) -> list[str]:
    """What makes the pipeline run as it is deployed; batch and resolution are the caller's, and said."""
    from quantlab.pipelines import blocks

    lines = []
    call = called_as_deployed(ModelConfig(), deployment).call
    if call:
        lines.append(f"# It was measured with {', '.join(f'{name}={value}' for name, value in call.items())}.")
    for name in model.components:
        if deployment.attention is not None:
            lines.append(f"pipe.{name}.set_attention_backend({deployment.attention!r})")
        how = "fullgraph=True" if deployment.fullgraph else ""
        if deployment.compile is Compile.whole:
            lines.append(f"pipe.{name}.compile({how})")
        elif deployment.compile is Compile.blocks:
            lines += [f"for block in repeated_blocks(pipe.{name}):", f"    block.compile({how})"]
    if deployment.compile is None:
        return lines
    source = inspect.getsource(blocks.repeated_blocks).rstrip().splitlines()
    needed = [] if deployment.compile is Compile.whole else ["", "", *source, "", ""]
    limits = [f"torch._dynamo.config.{name} = {value}" for name, value in blocks.RECOMPILE_LIMITS.items()]
    return [*needed, *limits, *lines]


def _adapter(model: ModelConfig, lora: str) -> list[str]:
    from quantlab.pipelines import peft_folder

    if lora.startswith(RANDOM):
        return [f"# It was measured with random weights of rank {lora[len(RANDOM) :]} in the place of an adapter."]
    folder, parts = str(Path(lora).resolve()), [f"pipe.{name}" for name in model.components]
    evaluated = [f"{part}.eval()  # an adapter comes in training mode, with its dropout" for part in parts]
    if not is_peft_folder(lora):
        return [f"pipe.load_lora_weights({folder!r}, use_safetensors=True)", *evaluated]
    source = inspect.getsource(peft_folder.load_peft_adapter).replace("  # type: ignore[no-untyped-def]", "")
    load = f"load_peft_adapter([{', '.join(parts)}], {folder!r})"
    return ["", "", *source.rstrip().splitlines(), "", "", load, *evaluated]


def _placed(offload: Offload | None, on_cpu: bool) -> list[str]:
    """What puts the pipeline on the device, or only what it needs there."""
    if offload is None:
        return ["if torch.cuda.is_available():", "    pipe.to('cuda')"] if on_cpu else ["pipe.to('cuda')"]
    return {
        Offload.model: ["pipe.enable_model_cpu_offload()"],
        Offload.sequential: ["pipe.enable_sequential_cpu_offload()"],
        Offload.group: [
            "pipe.enable_group_offload(",
            "    torch.device('cuda'), torch.device('cpu'), 'block_level', num_blocks_per_group=1, use_stream=True",
            ")",
        ],
    }[offload]


def _part(index: dict[str, Any], name: str) -> _Part:
    """A component as the index describes it; an optional one that the pipeline lacks is ``[null, null]`` there."""
    known = {part: value for part, value in index.items() if isinstance(value, list) and all(value)}
    if name not in known:
        raise unknown("component", name, known)
    library, cls = known[name]
    return _Part(identifier(name, "part"), identifier(library, name), identifier(cls, name))


def _load(model: ModelConfig, part: _Part) -> list[str]:
    cls = part.cls if part.library == "diffusers" else f"{part.library}.{part.cls}"
    config = f"quantization_config={part.config_class}.from_dict(configs[{part.name!r}])"
    arguments = ["source", f"subfolder={part.name!r}", config, *options(model, part.name)]
    return call(part.name, f"{cls}.from_pretrained", arguments)
