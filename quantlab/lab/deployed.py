"""Puts components into the deployment that they are measured in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from quantlab.bnb.raised import in_one_line
from quantlab.config.deployment import DeploymentConfig, check_deployment
from quantlab.errors import ConfigError, unknown
from quantlab.lab.compilation import compiled


@contextlib.contextmanager
def deployed(components: Mapping[str, nn.Module], deployment: DeploymentConfig) -> Iterator[None]:
    """Inside, components run as the deployment says, and afterwards as they were.

    Raises:
        ConfigError: for an attention backend that a component cannot have.
    """
    check_deployment(deployment)
    with contextlib.ExitStack() as stack:
        if deployment.attention is not None:
            for name, component in components.items():
                stack.enter_context(_attending(component, name, deployment.attention))
        stack.enter_context(compiled(components, deployment))
        yield


@contextlib.contextmanager
def _attending(component: Any, name: str, backend: str) -> Iterator[None]:
    """Inside, a component's attention is a backend's, by diffusers' own switch."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    names = sorted(one.value for one in AttentionBackendName if not one.value.endswith("_hub"))  # others are downloads
    if backend not in names:
        raise unknown("deployment.attention", backend, names)
    processors = [found for part in component.modules() if (found := getattr(part, "processor", None)) is not None]
    takers = [processor for processor in processors if hasattr(processor, "_attention_backend")]
    if not takers:
        raise ConfigError(
            f"deployment.attention={backend!r} has no effect: no attention of the {name} asks diffusers for a backend; "
            "leave it null"
        )
    before = [processor._attention_backend for processor in takers]
    try:
        component.set_attention_backend(backend)
    except (ImportError, RuntimeError, ValueError) as error:
        raise ConfigError(f"deployment.attention={backend!r} cannot be had here: {in_one_line(error)}") from error
    try:
        yield
    finally:
        for processor, backend_before in zip(takers, before, strict=True):
            processor._attention_backend = backend_before
