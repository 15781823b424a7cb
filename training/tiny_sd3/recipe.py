"""What decides the weights, and what a training run records."""

import math
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights; ``vae_measured`` images give the latents' shift and scale."""

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
    vae_measured: int = 512


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


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Rises linearly over ``warmup`` steps, then falls to 0 along a cosine."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
