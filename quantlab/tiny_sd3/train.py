"""Trains the embedded pipeline from nothing: ``python -m quantlab.tiny_sd3.train --out FOLDER`` on one GPU.

First the VAE learns to reconstruct drawn scenes; then the transformer and the three text encoders learn together, by
rectified flow matching (Esser et al. 2024, arXiv:2403.03206, section 3.1) in the VAE's latents. Everything is drawn,
initialised and sampled from one seed.
"""

import argparse
import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quantlab.tiny_sd3.architecture import save, untrained_pipeline
from quantlab.tiny_sd3.drawing import draw, encode_scenes
from quantlab.tiny_sd3.model_card import model_card
from quantlab.tiny_sd3.reading import shows
from quantlab.tiny_sd3.scenes import every_scene, held_out_scenes

T5_LENGTHS = (32,) * 12 + (64, 96, 160, 256)
"""Padded T5 lengths that training draws from, so that the pipeline's default of 256 also works."""

INFERENCE_STEPS, GUIDANCE = 12, 3.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 0
    vae_steps: int = 2000
    vae_batch: int = 64
    vae_lr: float = 2e-3
    kl_weight: float = 1e-5
    steps: int = 3000
    batch: int = 256
    lr: float = 1.5e-3
    ema: float = 0.999
    pool: int = 32768
    pool_every: int = 1000
    caption_dropout: float = 0.1
    weight_decay: float = 0.01


@dataclass
class Log:
    """What happened: losses by step, seconds, hardware."""

    vae_loss: list[tuple[int, float]] = field(default_factory=list)
    flow_loss: list[tuple[int, float]] = field(default_factory=list)
    vae_seconds: float = 0.0
    flow_seconds: float = 0.0
    vae_psnr_db: float = 0.0
    correct: int = 0
    total: int = 0
    hardware: str = ""
    torch_version: str = torch.__version__


def _lr(step: int, steps: int, peak: float, warmup: int) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train_vae(vae: AutoencoderKL, codes: torch.Tensor, recipe: Recipe, log: Log) -> None:
    """Fit the VAE to drawn scenes and set its latents' shift and scale; ``codes`` is (n, 6) on the device."""
    device = codes.device
    generator = torch.Generator(device).manual_seed(recipe.seed + 1)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.vae_lr, weight_decay=1e-4, fused=device.type == "cuda")
    start = time.perf_counter()
    for step in range(recipe.vae_steps):
        for group in optimizer.param_groups:
            group["lr"] = _lr(step, recipe.vae_steps, recipe.vae_lr, 100)
        pick = torch.randint(len(codes), (recipe.vae_batch,), generator=generator, device=device)
        images = draw(codes[pick], generator)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        error = decoded.float() - images
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float())
        loss = error.abs().mean() + 4 * error.square().mean() + recipe.kl_weight * kl.sum(dim=(1, 2, 3)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 250 == 0 or step == recipe.vae_steps - 1:
            log.vae_loss.append((step, loss.item()))
            print(f"vae {step} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s", flush=True)
    with torch.no_grad():
        pick = torch.randint(len(codes), (512,), generator=generator, device=device)
        images = draw(codes[pick], generator)
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(128)])
        decoded = torch.cat([vae.decode(part).sample for part in latents.split(128)])
        log.vae_psnr_db = float(10 * torch.log10(4 / (decoded.clamp(-1, 1) - images).square().mean()))
        vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))
    log.vae_seconds = time.perf_counter() - start
    print(f"vae psnr {log.vae_psnr_db:.1f} dB, scale {vae.config.scaling_factor:.3f}", flush=True)


@torch.no_grad()
def _encode(
    vae: AutoencoderKL, codes: torch.Tensor, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ``count`` scenes: their rows in ``codes``, and their latents as the transformer sees them."""
    picked = torch.randint(len(codes), (count,), generator=generator, device=codes.device)
    with torch.autocast(codes.device.type, dtype=torch.bfloat16):
        means = [vae.encode(draw(codes[part], generator)).latent_dist.mean for part in picked.split(256)]
    return picked, (torch.cat(means).float() - vae.config.shift_factor) * vae.config.scaling_factor


class Captions:
    """All captions, tokenized once; row 0 is the empty caption."""

    def __init__(self, pipe: StableDiffusion3Pipeline, captions: list[str], device: torch.device) -> None:
        def ids(tokenizer: object, length: int) -> torch.Tensor:
            batch = tokenizer(  # type: ignore[operator]
                ["", *captions], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            return batch.input_ids.to(device)

        self.clip = ids(pipe.tokenizer, pipe.tokenizer_max_length)
        self.clip_2 = ids(pipe.tokenizer_2, pipe.tokenizer_max_length)
        self.t5 = ids(pipe.tokenizer_3, max(T5_LENGTHS))

    def embed(self, encoders: nn.ModuleList, rows: torch.Tensor, t5_length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt embeddings and pooled embeddings, laid out as `StableDiffusion3Pipeline.encode_prompt` does."""
        one = encoders[0](self.clip[rows], output_hidden_states=True)
        two = encoders[1](self.clip_2[rows], output_hidden_states=True)
        t5 = encoders[2](self.t5[rows, :t5_length])[0]
        clip = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        clip = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return torch.cat([clip, t5], dim=-2), torch.cat([one[0], two[0]], dim=-1)


def train_flow(
    pipe: StableDiffusion3Pipeline, codes: torch.Tensor, captions: list[str], recipe: Recipe, log: Log
) -> None:
    """Fit transformer and text encoders; their exponential moving averages are left in the pipeline."""
    device = codes.device
    generator = torch.Generator(device).manual_seed(recipe.seed + 2)
    on_host = torch.Generator().manual_seed(recipe.seed + 3)
    table = Captions(pipe, captions, device)
    encoders = nn.ModuleList([pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3]).train()
    transformer, vae = pipe.transformer.train(), pipe.vae.eval().requires_grad_(False)
    parameters = [*transformer.parameters(), *encoders.parameters()]
    average = [p.detach().clone() for p in parameters]
    decayed = [p for p in parameters if p.ndim >= 2]
    plain = [p for p in parameters if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.lr,
        betas=(0.9, 0.98),
        fused=device.type == "cuda",
    )
    start = time.perf_counter()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = _lr(step, recipe.steps, recipe.lr, 400)
        if step % recipe.pool_every == 0:
            picked, pool = _encode(vae, codes, recipe.pool, generator)
        t5_length = T5_LENGTHS[int(torch.randint(len(T5_LENGTHS), (), generator=on_host))]
        pick = torch.randint(recipe.pool, (recipe.batch,), generator=generator, device=device)
        dropped = torch.rand(recipe.batch, generator=generator, device=device) < recipe.caption_dropout
        rows, latents = torch.where(dropped, 0, picked[pick] + 1), pool[pick]
        with torch.autocast(device.type, dtype=torch.bfloat16):
            noise = torch.randn(latents.shape, generator=generator, device=device)
            sigma = torch.sigmoid(0.3 + 1.2 * torch.randn(recipe.batch, generator=generator, device=device))
            s = sigma[:, None, None, None]
            embeds, pooled = table.embed(encoders, rows, t5_length)
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
                velocity = transformer(
                    hidden_states=(1 - s) * latents + s * noise,
                    timestep=sigma * 1000,
                    encoder_hidden_states=embeds,
                    pooled_projections=pooled,
                    return_dict=False,
                )[0]
        loss = F.mse_loss(velocity.float(), noise - latents)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        if step % 500 == 0 or step == recipe.steps - 1:
            log.flow_loss.append((step, loss.item()))
            print(f"flow {step} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s", flush=True)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    transformer.eval(), encoders.eval()
    log.flow_seconds = time.perf_counter() - start


def count_correct(pipe: StableDiffusion3Pipeline, count: int, seed: int = 0) -> int:
    """How many of ``count`` held-out captions the pipeline draws right at the default steps, one prompt a call."""
    pipe.set_progress_bar_config(disable=True)
    correct = 0
    for index, scene in enumerate(held_out_scenes(count)):
        image = pipe(
            scene.caption,
            num_inference_steps=INFERENCE_STEPS,
            guidance_scale=GUIDANCE,
            max_sequence_length=T5_LENGTHS[0],
            generator=torch.Generator("cpu").manual_seed(seed + index),
            output_type="np",
        ).images[0]
        correct += shows((image * 255).round().astype(np.uint8), scene)
    return correct


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
    print(f"{log.correct} of {log.total} held-out captions drawn right", flush=True)
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
