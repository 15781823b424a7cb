"""Writes the model card of the embedded pipeline from what its training recorded."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.tiny_sd3.scenes import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIZE, every_scene


def model_card(recipe: Mapping[str, Any], log: Mapping[str, Any]) -> str:
    """The card as Markdown: data, steps, losses, hardware, time, limits."""
    scenes = list(every_scene())
    held_out = sum(scene.held_out for scene in scenes)
    flow, vae = _lines(log["flow_loss"], every=4), _lines(log["vae_loss"], every=2)
    return f"""# tiny_sd3

A Stable Diffusion 3 pipeline in miniature, trained from nothing for quantlab, so that quantization settings can be
measured, compared and shipped without a download. Every part is the class that the full model uses: an MMDiT
transformer (6 blocks, width 128), a VAE (8 times smaller, 8 channels), two CLIP text encoders, a T5 encoder, three
tokenizers and a flow-matching Euler scheduler. Float16 safetensors in diffusers' folder format:

```python
from diffusers import StableDiffusion3Pipeline
from quantlab.tiny_sd3 import pipeline_folder

pipe = StableDiffusion3Pipeline.from_pretrained(pipeline_folder("tiny_sd3"))
pipe("a red circle left of a blue square on grey", num_inference_steps=12, guidance_scale=3.0).images[0]
```

## Data

Rendered by a program ({SIZE}x{SIZE} pixels) from a grammar: one shape, or two that differ, of {len(SHAPES)} shapes
({", ".join(SHAPES)}) in {len(COLOURS)} colours ({", ".join(COLOURS)}), {", ".join(RELATIONS)} each other, on
{", ".join(BACKGROUNDS)}. Of the {len(scenes)} captions, {held_out} ({100 * held_out / len(scenes):.0f} %) were never
trained on: a pair of things in a relation is held out under both of its tellings and on every background. Sizes and
places are random.

## Training

`python -m training.tiny_sd3.train --out FOLDER`, seed {recipe["seed"]}, one {log["hardware"]}, torch
{log["torch_version"]}.

- VAE: {recipe["vae_steps"]} steps of {recipe["vae_batch"]} in {log["vae_seconds"]:.0f} s; it reconstructs at
  {log["vae_psnr_db"]:.1f} dB PSNR.
- Transformer and text encoders together, rectified flow matching: {recipe["steps"]} steps of {recipe["batch"]} in
  {log["flow_seconds"]:.0f} s; {recipe["caption_dropout"]:.0%} of the captions dropped, so that classifier-free guidance
  works; weights averaged with decay {recipe["ema"]}.

| step | flow loss |
|---|---|
{flow}

| step | VAE loss |
|---|---|
{vae}

## Result

{log["correct"]} of {log["total"]} held-out captions are generated correctly (colours, shapes, relation and background,
read back from the pixels) in float16 at 12 steps and guidance 3.

## Limits

It knows the words of its grammar and nothing else, generates at one size, and was trained on no person, place or
brand. Its layers are small (width 128) beside a real model's, so its memory and latency say nothing about one;
its activations have no large outliers (`model=tiny_sd3_outliers` has).
"""


def _lines(losses: Sequence[tuple[int, float]], every: int) -> str:
    """A table's lines of every so many losses, and of the last one."""
    shown = dict([*losses[::every], losses[-1]])
    return "\n".join(f"| {step} | {loss:.4f} |" for step, loss in shown.items())
