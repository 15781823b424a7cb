"""Finds the weights that a model's configuration names, and says clearly where they are not."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantlab.config import ModelConfig
from quantlab.errors import ConfigError, ModelError
from quantlab.pipelines.folder import check_folder
from quantlab.pipelines.layout import Layout, read_layout
from quantlab.tiny_sd3 import NAMES, pipeline_folder


@dataclass(frozen=True)
class Location:
    """Where a pipeline is loaded from.

    Attributes:
        location: a local folder, or a repository on the Hub.
        options: further keyword arguments of ``from_pretrained``.
    """

    location: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.location).is_dir()


def locate(model: ModelConfig) -> Location:
    """The pipeline's folder or repository, its structure checked where it is local.

    Raises:
        ConfigError: where the configuration names no weights, or what does not go with them.
        ModelError: for a folder that is missing, no diffusers pipeline, or without readable safetensors.
    """
    options = {name: value for name in ("revision", "variant") if (value := getattr(model, name)) is not None}
    if model.path is not None:
        folder = Path(model.path).expanduser()
        check_folder(folder, model, f"model.path={model.path!r}")
        if model.revision is not None:
            raise ConfigError(f"model.revision={model.revision!r} has no effect with model.path={model.path!r}")
        return Location(str(folder), {**options, "local_files_only": True})
    if model.embedded is not None:
        for name in ("repo", "revision", "variant"):
            if (value := getattr(model, name)) is not None:
                raise ConfigError(
                    f"model.{name}={value!r} has no effect: model.embedded={model.embedded!r} comes first; choose "
                    "another model, or add model.embedded=null"
                )
        return Location(str(pipeline_folder(model.embedded)), {"local_files_only": True})
    if model.repo is not None:
        return Location(model.repo, options)
    raise ConfigError(
        f"model has no weights: set model.path=FOLDER, model.repo=OWNER/NAME or model.embedded={'|'.join(NAMES)}"
    )


def fetch(model: ModelConfig) -> Path:
    """The pipeline's folder on this machine; a repository's is that of the Hugging Face cache, filled where it is not.

    Raises:
        ConfigError, ModelError: as `locate`, and for a repository that cannot be had or whose cache is incomplete.
    """
    place = locate(model)
    if place.is_local:
        return Path(place.location)
    folder = _download(place.location, model.revision, model.variant)
    check_folder(folder, model, f"model.repo={model.repo!r}")
    return folder


def layout(model: ModelConfig) -> Layout:
    """What the model's folder says of itself; errors as of `fetch`."""
    folder = fetch(model)
    return read_layout(folder, str(folder))


_OF_A_MODEL = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
"""Files that transformers reads of a model."""


def _holds_pipeline(repo: str, revision: str | None) -> bool:
    """Whether a repository is a diffusers pipeline, as far as can be told; otherwise it is a transformers model."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(repo, "model_index.json", revision=revision)
    except LocalEntryNotFoundError:
        return not isinstance(try_to_load_from_cache(repo, "config.json", revision=revision), str)
    except EntryNotFoundError:
        return False
    except (OSError, ValueError):  # whatever is wrong, fetching the pipeline says it
        return True
    return True


@functools.cache
def _download(repo: str, revision: str | None, variant: str | None) -> Path:
    from diffusers import DiffusionPipeline
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        if not _holds_pipeline(repo, revision):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=list(_OF_A_MODEL)))
        return Path(DiffusionPipeline.download(repo, revision=revision, variant=variant, use_safetensors=True))
    except (OSError, ValueError, HfHubHTTPError) as error:  # whatever a broken network or cache happens to break
        # what the Hub answered, diffusers hides behind an OSError of its own where it looked into the cache after it
        answer = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
        name, elsewhere = (
            f"model.repo={repo!r}",
            "or pass a local folder with model.path=FOLDER; model=tiny_sd3 needs nothing",
        )
        if isinstance(answer, GatedRepoError):
            message = (
                f"{name} is gated: accept its licence at https://huggingface.co/{repo} and run `hf auth login`, "
                f"{elsewhere}; with model.weights=random its memory and latency are measured without a download"
            )
        elif isinstance(answer, RevisionNotFoundError):
            message = f"{name} has no model.revision={revision!r}"
        elif isinstance(answer, RepositoryNotFoundError):
            message = (
                f"{name} is not on the Hub, or it is private and you are not logged in (`hf auth login`); check the "
                f"name, {elsewhere}"
            )
        elif found := re.search(r"is incomplete: (.+?\))\. ", " ".join(str(error).split())):
            message = f"{name} is only half in the Hugging Face cache: {found[1]}; fetch it again, {elsewhere}"
        else:
            first = " ".join(str(error).split()).partition(" Please set")[0][:400]
            hub = "; HF_HUB_OFFLINE forbids to ask the Hub" if constants.HF_HUB_OFFLINE else " and on the Hub"
            message = (
                f"{name} cannot be loaded: looked in the Hugging Face cache{hub} ({first}). The repository may be "
                f"gated: accept its licence at https://huggingface.co/{repo} and run `hf auth login`, {elsewhere}; "
                "with model.weights=random its memory and latency are measured without a download"
            )
        raise ModelError(message) from error
