"""What a text encoder's error comes to in the denoiser's prediction, which is what a pipeline makes images of.

The pipeline is started on each prompt as far as its denoiser's first call. What the denoiser is given there differs
from what the reference gave it by the encoders' error alone; the unquantized denoiser makes a prediction of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from quantlab.bnb.linear import library_of
from quantlab.bnb.matching import DIFFUSERS
from quantlab.errors import ConfigError
from quantlab.lab.assembly import Assembly
from quantlab.lab.kernels import forwards_guarded
from quantlab.lab.reference import Reference
from quantlab.metrics.prediction import observe, snr_db
from quantlab.pipelines.call import Caller
from quantlab.pipelines.named import DENOISERS
from quantlab.pipelines.outputs import tensors_of

Prediction = tuple[torch.Tensor, ...]


class FinalPrediction:
    """Predictions of the denoiser behind the components, at its first step.

    Args:
        reference: the components and the pipeline around them.
        assembly: of the components.
        prompts: to start the pipeline on.
        seed: of the first prompt; the next one has the next.
    """

    def __init__(self, reference: Reference, assembly: Assembly, prompts: Sequence[str], seed: int) -> None:
        self._reference, self._assembly = reference, assembly
        self._prompts, self._seed = tuple(prompts), seed
        self._known: list[Prediction] | None = None

    def snr_db(self) -> float:
        """SNR in dB of the predictions under the setting that the components are in, over all prompts.

        Raises:
            ConfigError: where the pipeline has no denoiser beside the components.
            KernelError: where a forward fails.
        """
        if self._known is None:
            with self._assembly.restored():
                self._known = self._predictions()
        sums = [observe(*pair) for pair in zip(self._predictions(), self._known, strict=True)]
        signal, error = (sum(float(one[name]) for one in sums) for name in ("signal", "error"))
        return snr_db(signal, error)

    @torch.no_grad()
    def _predictions(self) -> list[Prediction]:
        found = []
        with self._reference.called(*self._prompts) as call, forwards_guarded(self._assembly.components.values()):
            denoiser = self._denoiser(call)
            for index, prompt in enumerate(self._prompts):
                inputs = call.first_inputs(denoiser, prompt, self._seed + index)
                found.append(tuple(tensors_of(denoiser(**inputs)).values()))
        return found

    def _denoiser(self, call: Caller) -> nn.Module:
        parts: dict[str, Any] = call.pipeline.components
        for name in DENOISERS:
            part = parts.get(name)
            if isinstance(part, nn.Module) and name not in self._assembly.components and library_of(part) == DIFFUSERS:
                return part
        raise ConfigError(
            f"final_snr_db needs a denoiser beside the components {', '.join(self._assembly.components)}: it is what "
            "an encoder's error comes to in the prediction"
        )
