"""A transformers model that is called as a pipeline is: with an example of what it reads, sees or hears."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantlab.errors import ModelError
from quantlab.pipelines.inputs import RATE
from quantlab.pipelines.layout import MODEL

_TEXT, _IMAGE, _AUDIO = ("input_ids",), ("pixel_values",), ("input_values", "input_features")
"""Arguments of a model's forward, by what they are made of."""

_DECODED = "decoder_input_ids"

_MOST_TOKENS = 512
"""Tokens of an example at most."""


class ModelPipeline:
    """A transformers model with its tokenizer and processors.

    Args:
        folder: of the model.
        component: the model.
        dtype: of its inputs.

    Raises:
        ModelError: where a tokenizer or processor that the model needs is not there.
    """

    def __init__(self, folder: Path, component: nn.Module, dtype: torch.dtype) -> None:
        self.components: dict[str, Any] = {MODEL: component}
        self._dtype = dtype
        self.takes = tuple(inspect.signature(component.forward).parameters)
        self._folder = folder
        self._tokenizer = self._loaded("AutoTokenizer", _TEXT)
        self._images = self._loaded("AutoImageProcessor", _IMAGE)
        self._audio = self._loaded("AutoFeatureExtractor", _AUDIO)
        both = (
            self._loaded("AutoProcessor", (*_TEXT, *_IMAGE)) if all(o in self.takes for o in _TEXT + _IMAGE) else None
        )
        self._both = both if hasattr(both, "image_token") else None  # the prompt has to say where the image goes

    @property
    def model(self) -> nn.Module:
        """The model."""
        found: nn.Module = self.components[MODEL]
        return found

    @property
    def needs(self) -> tuple[str, ...]:
        """Arguments of a call beside the prompt that the model cannot do without."""
        return tuple(
            name for name, made in (("image", _IMAGE), ("audio", _AUDIO)) if any(one in self.takes for one in made)
        )

    @property
    def _longest(self) -> int:
        """Tokens that the model reads at most, less the one that a decoder starts with."""
        config: Any = self.model.config
        names = ("max_target_positions", "max_position_embeddings", "n_positions")
        found = [size for name in names if isinstance(size := getattr(config, name, None), int) and size > 1]
        return min([_MOST_TOKENS, *(size - 1 for size in found)])

    def __call__(self, prompt: str, image: Any | None = None, audio: Any | None = None) -> tuple[list[None]]:
        """One forward of the model on an example.

        Args:
            prompt: a text, for a model that reads; the start of what a decoder has said so far.
            image: for a model that sees.
            audio: samples from -1 to 1 at 16 kHz, for a model that hears.
        """
        given: dict[str, Any] = {}
        text: dict[str, Any] = {}
        if self._both is not None and image is not None:
            given |= self._both(text=f"{self._both.image_token} {prompt}", images=image, return_tensors="pt")
        elif self._tokenizer is not None:
            text = dict(self._tokenizer(prompt, return_tensors="pt", truncation=True, max_length=self._longest))
        if "input_ids" in self.takes:
            given |= text
        if self._both is None and self._images is not None and image is not None:
            given |= self._images(images=image, return_tensors="pt")
        if self._audio is not None and audio is not None:
            given |= self._audio(audio, sampling_rate=RATE, return_tensors="pt")
        config: Any = self.model.config
        if _DECODED in self.takes and config.is_encoder_decoder:
            given[_DECODED] = self._said(text.get("input_ids"))
        device = next(self.model.parameters()).device
        inputs = {
            name: value.to(device, self._dtype if value.is_floating_point() else None)
            for name, value in given.items()
            if name in self.takes
        }
        self.model(**inputs)
        return ([None],)  # what it gives is compared where it is recorded; there is nothing to show

    def _said(self, ids: torch.Tensor | None) -> torch.Tensor:
        """What the decoder has said so far: its first token, and the prompt's."""
        config: Any = self.model.config
        start = config.decoder_start_token_id
        first = torch.full((1, 1), config.bos_token_id if start is None else start)
        return first if ids is None else torch.cat([first, ids], dim=1)

    def _loaded(self, cls: str, made: tuple[str, ...]) -> Any:
        """A tokenizer or processor of the folder; None where the model takes nothing that is made by it."""
        import transformers

        taken = any(one in self.takes for one in made)
        if not (taken or (made == _TEXT and _DECODED in self.takes)):
            return None
        try:
            return getattr(transformers, cls).from_pretrained(self._folder, local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
            if not taken:
                return None
            raise ModelError(
                f"{self._folder} has no {cls.removeprefix('Auto').lower()} that can be loaded, which its model needs: "
                f"{' '.join(str(error).split())[:150]}"
            ) from error

    def register_modules(self, **modules: Any) -> None:
        """Take parts out, as of a pipeline: there are none to take."""

    def set_progress_bar_config(self, **options: Any) -> None:
        """There is no progress bar."""
