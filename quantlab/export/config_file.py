"""BitsAndBytesConfig as a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.errors import StudyError

if TYPE_CHECKING:
    from diffusers import BitsAndBytesConfig


def config_to_json(config: BitsAndBytesConfig) -> str:
    """The config as JSON that `BitsAndBytesConfig.from_dict` accepts; its private copies of the load flags left out."""
    data: dict[str, Any] = {k: v for k, v in config.to_dict().items() if not k.startswith("_")}
    data["quant_method"] = str(getattr(data["quant_method"], "value", data["quant_method"]))
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def read_config(path: Path) -> BitsAndBytesConfig:
    """The config in a file.

    Raises:
        StudyError: where there is none, or it cannot be read.
    """
    from diffusers import BitsAndBytesConfig

    try:
        return BitsAndBytesConfig.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise StudyError(f"{path} is not there; write it with quantlab export study=NAME") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise StudyError(f"{path} is no BitsAndBytesConfig: {error}") from error
