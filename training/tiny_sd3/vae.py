"""Trains the VAE to reconstruct rendered scenes."""

import time

import torch
from diffusers import AutoencoderKL
from torch import nn

from training.tiny_sd3.recipe import Log, Recipe, learning_rate
from training.tiny_sd3.rendering import render


def train_vae(vae: AutoencoderKL, codes: torch.Tensor, recipe: Recipe, log: Log) -> None:
    """Fit the VAE to rendered scenes and set its latents' shift and scale; ``codes`` is (n, 6) on the device."""
    device = codes.device
    generator = torch.Generator(device).manual_seed(recipe.seed + 1)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.vae_lr, weight_decay=1e-4, fused=device.type == "cuda")
    start = time.perf_counter()
    for step in range(recipe.vae_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.vae_steps, recipe.vae_lr, 100)
        pick = torch.randint(len(codes), (recipe.vae_batch,), generator=generator, device=device)
        images = render(codes[pick], generator)
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
        pick = torch.randint(len(codes), (recipe.vae_measured,), generator=generator, device=device)
        images = render(codes[pick], generator)
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(128)])
        decoded = torch.cat([vae.decode(part).sample for part in latents.split(128)])
        log.vae_psnr_db = float(10 * torch.log10(4 / (decoded.clamp(-1, 1) - images).square().mean()))
        vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))
    log.vae_seconds = time.perf_counter() - start
    print(f"vae psnr {log.vae_psnr_db:.1f} dB, scale {vae.config.scaling_factor:.3f}", flush=True)
