"""The same settings by the documented loop: ``from_pretrained(quantization_config=...)`` for each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from quantlab.bench.grid import empty_cache, grid_run
from quantlab.bench.overhead import figures
from quantlab.config import BenchConfig, ModelConfig, Weights
from quantlab.errors import MeasurementError
from quantlab.lab import Lab
from quantlab.lab.forms import form_key
from quantlab.lab.memory import collect
from quantlab.lab.replay import replay
from quantlab.models.call import Caller
from quantlab.models.load import component_class, load_component, load_pipeline
from quantlab.models.random import on_disk, random_pipeline
from quantlab.search.space import Space
from quantlab.spec import QuantSpec
from quantlab.tensors import digest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


def run(config: BenchConfig) -> dict[str, Any]:
    """Seconds of quantlab and of the documented loop over the grid's settings, and their ratios.

    quantlab's time includes what only a study has: the reference, the anchors outside the grid, the drift checks. The
    loop's includes the recording of the probe set, which it needs as well; not the loading of the reference for it.

    Raises:
        MeasurementError: where an output of the documented loop is not quantlab's, bit for bit.
    """
    with empty_cache(), grid_run(config) as (lab, study):
        measured = {row.spec: row.measurement for row in study.rows if row.measurement}
        space = Space(config.space, config.model.skips)
        specs = [spec for params in space.grid() if (spec := space.spec(params)) in measured]
        with on_disk(config.model, lab.device) as model:
            loop_s = study.record_s
            for spec in specs:
                seconds, sha = _probed(lab, model, spec)
                loop_s += seconds
                _demand(spec, sha == measured[spec].output_sha256)
            result = {"quantlab": figures(study), "settings": len(specs), "loop_s": loop_s}
            result["loop_over_quantlab"] = loop_s / study.wall_s
            if config.generations:
                result |= _generations(config, lab, model, specs, study.wall_s)
    return result


def _probed(lab: Lab, model: ModelConfig, spec: QuantSpec) -> tuple[float, str]:
    """Load a setting and run it on the lab's probes; the component is gone afterwards."""
    start = time.perf_counter()
    component = _load(lab, model, spec)
    sha = replay(component, lab.probe_set, lab.device, lab.score.warmup).output_sha256
    del component
    collect(lab.device)
    return time.perf_counter() - start, sha


def _generations(
    config: BenchConfig, lab: Lab, model: ModelConfig, specs: Sequence[QuantSpec], quantlab_s: float
) -> dict[str, Any]:
    """Load each setting and draw every prompt in full; the pipeline's other parts are loaded once and not counted.

    The first prompt of the first setting of each form is drawn by the lab as well, and must be the same.
    """
    prompts = config.model.prompts[: config.generations]
    around = None if config.model.weights is Weights.random else load_pipeline(model, lab.component).to(lab.device)
    compared: set[str] = set()
    total = 0.0
    for spec in specs:
        start = time.perf_counter()
        component = _load(lab, model, spec)
        latents = [_draw(config, around, component, prompt, seed) for seed, prompt in enumerate(prompts)]
        total += time.perf_counter() - start
        first = digest(latents[:1])
        del component, latents
        collect(lab.device)
        if form_key(spec) not in compared:
            compared.add(form_key(spec))
            own = _draw(config, around, lab.assemble(spec), prompts[0], 0)
            _demand(spec, digest([own]) == first)
    return {
        "generations": len(prompts),
        "steps": config.model.call.get("num_inference_steps"),
        "generation_loop_s": total,
        "generation_loop_over_quantlab": total / quantlab_s,
    }


def _draw(
    config: BenchConfig, around: DiffusionPipeline | None, component: ModelMixin, prompt: str, seed: int
) -> torch.Tensor:
    """The final latents of a prompt; without the VAE, which is the same for all settings."""
    if around is None:
        pipeline = random_pipeline(config.model, component)
    else:
        around.register_modules(**{config.model.component: component})
        pipeline = around
    latents: torch.Tensor = Caller(pipeline, config.model)(prompt, seed, "latent")
    return latents


def _load(lab: Lab, model: ModelConfig, spec: QuantSpec) -> ModelMixin:
    component = load_component(model, component_class(model), spec.to_config(), lab.device)
    if lab.device.type == "cuda":
        torch.cuda.synchronize(lab.device)
    return component


def _demand(spec: QuantSpec, equal: bool) -> None:
    if not equal:
        raise MeasurementError(f"{spec.key}: the documented loop gave other outputs than quantlab")
