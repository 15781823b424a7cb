"""Trains the embedded pipeline from nothing: ``python -m training.tiny_sd3.train --out FOLDER`` on one GPU.

First the VAE learns to reconstruct rendered scenes; then the transformer and the three text encoders learn together, by
rectified flow matching (Esser et al. 2024, arXiv:2403.03206, section 3.1) in the VAE's latents. One seed decides all
data, initial weights and noise.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from numpy.typing import NDArray

from training.tiny_sd3.architecture import save, untrained_pipeline
from training.tiny_sd3.flow import T5_LENGTHS, train_flow
from training.tiny_sd3.model_card import model_card
from training.tiny_sd3.reading import shows
from training.tiny_sd3.recipe import Log, Recipe
from training.tiny_sd3.rendering import encode_scenes
from training.tiny_sd3.scenes import Scene, every_scene, held_out_scenes
from training.tiny_sd3.vae import train_vae

INFERENCE_STEPS, GUIDANCE = 12, 3.0


def count_shown(pipe: StableDiffusion3Pipeline, scenes: Sequence[Scene], seed: int = 0) -> int:
    """How many of the scenes the pipeline generates correctly from their captions."""
    return sum(map(shows, generated(pipe, scenes, seed), scenes))


def generated(pipe: StableDiffusion3Pipeline, scenes: Sequence[Scene], seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """An image of each scene from its caption, one prompt a call."""
    pipe.set_progress_bar_config(disable=True)
    for index, scene in enumerate(scenes):
        image = pipe(
            scene.caption,
            num_inference_steps=INFERENCE_STEPS,
            guidance_scale=GUIDANCE,
            max_sequence_length=T5_LENGTHS[0],
            generator=torch.Generator("cpu").manual_seed(seed + index),
            output_type="np",
        ).images[0]
        yield (image * 255).round().astype(np.uint8)


def count_correct(pipe: StableDiffusion3Pipeline, count: int, seed: int = 0) -> int:
    """How many of ``count`` held-out captions the pipeline generates correctly."""
    return count_shown(pipe, held_out_scenes(count), seed)


def train(recipe: Recipe, out: Path, device: torch.device) -> Log:
    """Train the whole pipeline and write it, its model card and its log to ``out``."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    log = Log(hardware=hardware)
    pipe = untrained_pipeline(recipe.seed).to(device)
    scenes = [scene for scene in every_scene() if not scene.held_out]
    codes = encode_scenes(scenes).to(device)
    train_vae(pipe.vae, codes, recipe, log)
    train_flow(pipe, codes, [scene.caption for scene in scenes], recipe, log)
    save(pipe, out)
    log.total = 64
    log.correct = count_correct(
        StableDiffusion3Pipeline.from_pretrained(out, dtype=torch.float16).to(device), log.total
    )
    print(f"{log.correct} of {log.total} held-out captions generated correctly", flush=True)
    (out / "training.json").write_text(json.dumps({"recipe": asdict(recipe), "log": asdict(log)}, indent=1) + "\n")
    (out / "README.md").write_text(model_card(asdict(recipe), asdict(log)))
    return log


def main() -> None:
    """Parse the few options that change a run and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the pipeline")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    out = options.pop("out")
    out.mkdir(parents=True, exist_ok=True)
    train(Recipe(**options), out, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
