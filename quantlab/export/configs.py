"""A setting's ``BitsAndBytesConfig`` of each component as plain JSON types, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError, StudyError
from quantlab.files import read_json
from quantlab.frozen import FrozenDict, frozen
from quantlab.spec import PipelineSpec
from quantlab.spec.conversion import from_config
from quantlab.spec.quant import QuantSpec

CONFIG_FILE, EXPORT_FILE = "quantization_config.json", "export.json"

VERSION = 1
"""Of `EXPORT_FILE`."""


@dataclass(frozen=True)
class Export:
    """What a folder was exported from.

    Attributes:
        trial: number of the row.
        name: what the setting is called.
        spec: the setting.
    """

    trial: int
    name: str
    spec: PipelineSpec


def component_config(spec: QuantSpec, fp32_cpu_offload: bool = False) -> dict[str, Any] | None:
    """A component's configuration as ``BitsAndBytesConfig.from_dict`` accepts it; None for the reference.

    Args:
        spec: the component's setting.
        fp32_cpu_offload: ``llm_int8_enable_fp32_cpu_offload``.
    """
    config = spec.to_config()
    if config is None:
        return None
    config.llm_int8_enable_fp32_cpu_offload = fp32_cpu_offload
    data = {name: value for name, value in config.to_dict().items() if name[0] != "_"}  # private copies of load flags
    data["quant_method"] = str(getattr(data["quant_method"], "value", data["quant_method"]))
    return dict(json.loads(json.dumps(data)))


def configs_for_verification(subject: PipelineSpec | Path) -> FrozenDict[str, Any]:
    """Component -> its configuration, as `quantlab.executors.tasks.Verify` takes them.

    Args:
        subject: a setting, or the folder that one was exported to.

    Raises:
        StudyError: as `read_configs`.
    """
    if isinstance(subject, Path):
        found = read_configs(subject)
    else:
        found = {c: config for c, spec in subject.items() if (config := component_config(spec)) is not None}
    known: FrozenDict[str, Any] = frozen(found)
    return known


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Component -> its configuration, from an exported folder.

    Raises:
        StudyError: where there is none, or it cannot be read.
    """
    file = folder / CONFIG_FILE
    data = _read(file)
    try:
        if not isinstance(data, dict) or not data:
            raise ValueError("it names no component")
        for component, config in data.items():
            _check(component, config)
    except (ValueError, TypeError, AttributeError, KeyError, QuantlabError) as error:
        raise StudyError(f"{file} holds no BitsAndBytesConfig of each component: {error}") from error
    return data


def read_export(folder: Path) -> Export:
    """What a folder was exported from.

    Raises:
        StudyError: where it was not written by this version of quantlab, or cannot be read.
    """
    file = folder / EXPORT_FILE
    data = _read(file)
    try:
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']!r}; this quantlab reads version {VERSION}")
        return Export(int(data["trial"]), str(data["name"]), PipelineSpec.from_dict(data["spec"]))
    except (ValueError, QuantlabError) as error:
        raise StudyError(f"{file} cannot be read: {error}; write it again with quantlab export") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise StudyError(f"{file} holds no export; write it again with quantlab export") from error


def _read(file: Path) -> Any:
    try:
        return read_json(file)
    except FileNotFoundError:
        raise StudyError(f"{file} is not there; write it with quantlab export study=NAME") from None
    except ValueError as error:
        raise StudyError(f"{file} cannot be read: {error}") from error


def _check(component: str, config: Any) -> None:
    """See that diffusers accepts a configuration, and that it quantizes."""
    from diffusers import BitsAndBytesConfig

    if not isinstance(config, dict):
        raise ValueError(f"{component!r} has {config!r}")
    from_config(BitsAndBytesConfig.from_dict(config))
