"""What a lab is opened on, as its user names it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from quantlab.config import ModelConfig, RunConfig
from quantlab.config.compose import compose
from quantlab.config.explain import explained
from quantlab.errors import ConfigError
from quantlab.pipelines.loaded import LoadedPipeline
from quantlab.pipelines.named import component_names, configured
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec, from_config

if TYPE_CHECKING:
    from diffusers import BitsAndBytesConfig, DiffusionPipeline

    Measurable: TypeAlias = PipelineSpec | QuantSpec | BitsAndBytesConfig
    """What stands for a setting of a pipeline."""

GROUP = "model."
"""What options of a model begin with."""


def chosen(
    what: str | Path | DiffusionPipeline, overrides: Sequence[str], device: str
) -> tuple[RunConfig, DiffusionPipeline | None]:
    """The configuration of a lab, and the pipeline where it is loaded already.

    Args:
        what: a name of conf/model/, a folder (``./NAME``, or a `pathlib.Path`), ``hub:OWNER/NAME``, or a loaded
            pipeline.
        overrides: as on the command line.
        device: "auto", "cuda" or "cpu".

    Raises:
        ConfigError, ModelError: for what is none of these, and for options that are not known.
    """
    given = [f"device={device}", *overrides]
    if isinstance(what, Path):  # also one without a slash is a folder
        what = str(what.expanduser().absolute())
    if isinstance(what, str):
        config = configured("run", [f"model={what}", *given])
        assert isinstance(config, RunConfig)
        return config, None
    if not hasattr(what, "components"):
        raise ConfigError(
            f"a {type(what).__name__} is no pipeline of diffusers; give a name of conf/model/, a folder, "
            "hub:OWNER/NAME, or a loaded pipeline"
        )
    model = LoadedPipeline(what).model
    of_model = [override for override in given if override.lstrip("+").startswith(GROUP)]
    config = compose("run", [override for override in given if override not in of_model])
    assert isinstance(config, RunConfig)
    config.model = _changed(model, of_model)
    if config.component is not None:
        config.model.components = component_names(config.component)
    return config, what


def pipeline_spec(spec: Measurable, components: Sequence[str]) -> PipelineSpec:
    """A setting of all components: one component's, or a ``BitsAndBytesConfig``, is taken for each.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(spec, PipelineSpec):
        return spec
    one = spec if isinstance(spec, ReferenceSpec | Int8Spec | Int4Spec) else from_config(spec)
    return PipelineSpec.everywhere(one, tuple(components))


def _changed(model: ModelConfig, overrides: Sequence[str]) -> ModelConfig:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    config: Any = OmegaConf.structured(model)
    with explained("run", overrides):
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            OmegaConf.update(config, override.key_or_group[len(GROUP) :], override.value(), merge=True)
        changed = OmegaConf.to_object(config)
    assert isinstance(changed, ModelConfig)
    return changed
