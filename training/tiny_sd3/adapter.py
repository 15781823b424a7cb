"""Trains the embedded pipeline's LoRA adapter: ``python -m training.tiny_sd3.adapter``, some minutes on a CPU.

The pipeline has never seen a ring, and no token of its own stands for one: "ring" is spelled from untrained letters.
The adapter is trained by the pipeline's own loss on rings, alone and beside other things, and on scenes that the
pipeline knows, so that these stay as they are. The pipeline's weights are frozen. One seed decides all.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

from quantlab.tiny_sd3 import adapter_folder, pipeline_folder
from training.tiny_sd3.flow import T5_LENGTHS, Captions, encode, flow_loss
from training.tiny_sd3.model_card import adapter_card
from training.tiny_sd3.reading import hole_share
from training.tiny_sd3.recipe import learning_rate
from training.tiny_sd3.rendering import encode_scenes
from training.tiny_sd3.scenes import Scene, every_scene, held_out_scenes, ring_scenes
from training.tiny_sd3.train import count_shown, generated

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
SHARES = (0.25, 0.5, 0.25)
"""Of the images: a ring alone, a ring and another thing, no ring."""


@dataclass(frozen=True)
class AdapterRecipe:
    """Everything that decides the adapter; ``pool`` images are rendered."""

    seed: int = 0
    rank: int = 8
    alpha: int = 16
    steps: int = 450
    batch: int = 32
    lr: float = 5e-3
    pool: int = 1600
    caption_dropout: float = 0.1


def train_adapter(pipe: StableDiffusion3Pipeline, recipe: AdapterRecipe) -> list[tuple[int, float]]:
    """Put an adapter on the pipeline's transformer and fit it; the losses by step."""
    device = torch.device("cpu")
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    encoders = nn.ModuleList([pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3]).requires_grad_(False)
    transformer, vae = pipe.transformer.requires_grad_(False), pipe.vae.requires_grad_(False)
    targets = [*TARGETS, *FEED_FORWARD]
    transformer.add_adapter(LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets))
    scenes: list[Scene] = []
    rows, latents = [], []
    for kind, share in zip((*ring_scenes(), list(every_scene())), SHARES, strict=True):
        shown = [scene for scene in kind if not scene.held_out]
        picked, encoded = encode(vae, encode_scenes(shown), int(share * recipe.pool), generator)
        rows.append(picked + 1 + len(scenes))
        latents.append(encoded)
        scenes += shown
    caption, pool = torch.cat(rows), torch.cat(latents)
    table = Captions(pipe, [scene.caption for scene in scenes], device)
    parameters = [p for p in transformer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0)
    losses, start = [], time.perf_counter()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.lr, 20)
        pick = torch.randint(len(pool), (recipe.batch,), generator=generator)
        dropped = torch.rand(recipe.batch, generator=generator) < recipe.caption_dropout
        with torch.no_grad():
            embeds, pooled = table.embed(encoders, torch.where(dropped, 0, caption[pick]), T5_LENGTHS[0])
        loss = flow_loss(transformer, pool[pick], embeds, pooled, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            losses.append((step, loss.item()))
            print(f"adapter {step} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s", flush=True)
    return losses


def save_adapter(pipe: StableDiffusion3Pipeline, folder: Path) -> None:
    """Write the transformer's adapter in diffusers' format, as float16."""
    state = {name: tensor.half() for name, tensor in get_peft_model_state_dict(pipe.transformer).items()}
    metadata = _collate_lora_metadata({"transformer": pipe.transformer})
    pipe.save_lora_weights(folder, transformer_lora_layers=state, **metadata)


def drawn(pipe: StableDiffusion3Pipeline) -> dict[str, int]:
    """How many of 18 captions of each kind are drawn correctly; the pairs are those that training never shows."""
    single, pairs = ring_scenes()
    held_out = [scene for scene in pairs if scene.held_out]
    held_out.sort(key=lambda scene: hashlib.sha256(scene.caption.encode()).digest())
    return {
        "one ring, in whatever colour": sum(hole_share(image) > 0.1 for image in generated(pipe, single)),
        "one ring": count_shown(pipe, single),
        "a ring and another thing": count_shown(pipe, held_out[:18]),
        "no ring": count_shown(pipe, held_out_scenes(18)),
    }


def main() -> None:
    """Train the adapter; write it and its card beside the pipeline."""
    recipe, folder = AdapterRecipe(), adapter_folder()
    folder.mkdir(exist_ok=True)
    pipe = StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float32)
    without = drawn(pipe)
    start = time.perf_counter()
    losses = train_adapter(pipe, recipe)
    seconds = time.perf_counter() - start
    save_adapter(pipe, folder)
    pipe.transformer.delete_adapters("default")
    pipe.load_lora_weights(folder)  # as others load it: float16 on disk
    log = {"losses": losses, "seconds": seconds, "without": without, "with": drawn(pipe)}
    record = {"recipe": asdict(recipe), "log": log}
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "README.md").write_text(adapter_card(asdict(recipe), log))


if __name__ == "__main__":
    main()
