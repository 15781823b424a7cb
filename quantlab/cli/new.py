"""``quantlab new model FOLDER``: a YAML of one's own, with what the folder says and what may be changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from quantlab.cli.console import console
from quantlab.errors import ConfigError
from quantlab.files import written
from quantlab.pipelines.quiet import hush

USAGE = "quantlab new model FOLDER writes model/NAME.yaml; FOLDER may be hub:OWNER/NAME"


def main(arguments: Sequence[str]) -> int:
    """Write the YAML into the folder model/ of the current one.

    Raises:
        ConfigError, ModelError: for arguments that cannot be meant, a model that cannot be read, and a file that is
            there already.
    """
    if len(arguments) != 2 or arguments[0] != "model":
        raise ConfigError(f"new={' '.join(arguments)!r} cannot be read: {USAGE}")
    hush()
    from quantlab.pipelines.named import HUB, configured

    what = arguments[1]
    place = what if what.startswith(HUB) else str(Path(what).expanduser().absolute())
    model = configured("run", [f"model={place}"]).model
    file = Path("model") / f"{model.name}.yaml"
    if file.exists():
        raise ConfigError(f"{file} is there already; remove it, or change it by hand")
    text = described(model)
    file.parent.mkdir(exist_ok=True)
    with written(file) as scratch:
        scratch.write_text(text)
    console.print(f"written: {file}\nuse it with: quantlab sweep --config-dir . model={model.name}")
    return 0


def described(model: object) -> str:
    """The YAML of a model that was read from its folder; what its pipeline takes by itself is there as comments."""
    from quantlab.config import ModelConfig
    from quantlab.pipelines.checkpoint import Checkpoint

    assert isinstance(model, ModelConfig)
    source = Checkpoint(model)
    steps = [
        f"#  {name}: {value}   (the pipeline's own)" for name, value in source.assumed.items() if isinstance(value, int)
    ]
    drawn = [f"#  {name}: {value}   (drawn)" for name, value in source.assumed.items() if not isinstance(value, int)]
    place = f"repo: {model.repo}" if model.repo else f"path: {json.dumps(model.path)}"
    lines = [
        f"# {source.layout.class_name} in {model.repo or model.path}",
        f"name: {model.name}",
        place,
        f"components: [{', '.join(model.components)}]   # of {', '.join(source.layout.parts)}",
        f"dtype: {model.dtype.value}              # or bfloat16, float32",
        "",
        "# Arguments of the pipeline's call that are the same for every example.",
        "call: {}",
        *steps,
        "",
        "# Arguments that differ from example to example: files, or image, mask, video and audio, which are drawn.",
        "inputs: {}",
        *drawn,
        "",
        "# What to generate or read. The first ones are searched on, the next ones confirm the winner.",
        "prompts:",
        *(f"  - {json.dumps(prompt, ensure_ascii=False)}" for prompt in model.prompts),
        "",
        "# Skip lists by name, from the structure.",
        "skips:",
        *(f"  {name}: {json.dumps(entries)}" for name, entries in model.skips.items()),
        "",
    ]
    return "\n".join(lines)
