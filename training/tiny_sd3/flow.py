"""Trains transformer and text encoders together, by rectified flow matching in the VAE's latents."""

import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.tiny_sd3.recipe import Log, Recipe, learning_rate
from training.tiny_sd3.rendering import render

T5_LENGTHS = (32,) * 12 + (64, 96, 160, 256)
"""Padded T5 lengths that training chooses from, so that the pipeline's default of 256 also works."""


def autocast(device: torch.device) -> torch.autocast:
    """Computes in bfloat16 on a GPU; CPUs have no fast 16-bit convolutions."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


@torch.no_grad()
def encode(
    vae: AutoencoderKL, codes: torch.Tensor, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render ``count`` scenes: their rows in ``codes``, and their latents as the transformer sees them."""
    picked = torch.randint(len(codes), (count,), generator=generator, device=codes.device)
    with autocast(codes.device):
        means = [vae.encode(render(codes[part], generator)).latent_dist.mean for part in picked.split(256)]
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


def flow_loss(
    transformer: nn.Module,
    latents: torch.Tensor,
    embeds: torch.Tensor,
    pooled: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Mean squared error of the velocity, at a random noise level for each of the latents."""
    with autocast(latents.device):
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        sigma = torch.sigmoid(0.3 + 1.2 * torch.randn(len(latents), generator=generator, device=latents.device))
        s = sigma[:, None, None, None]
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            velocity = transformer(
                hidden_states=(1 - s) * latents + s * noise,
                timestep=sigma * 1000,
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
    return F.mse_loss(velocity.float(), noise - latents)


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
            group["lr"] = learning_rate(step, recipe.steps, recipe.lr, 400)
        if step % recipe.pool_every == 0:
            picked, pool = encode(vae, codes, recipe.pool, generator)
        t5_length = T5_LENGTHS[int(torch.randint(len(T5_LENGTHS), (), generator=on_host))]
        pick = torch.randint(recipe.pool, (recipe.batch,), generator=generator, device=device)
        dropped = torch.rand(recipe.batch, generator=generator, device=device) < recipe.caption_dropout
        rows, latents = torch.where(dropped, 0, picked[pick] + 1), pool[pick]
        with autocast(device):
            embeds, pooled = table.embed(encoders, rows, t5_length)
        loss = flow_loss(transformer, latents, embeds, pooled, generator)
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
