"""Writes the model cards of the embedded pipeline and its adapter from what their training recorded."""

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


def adapter_card(recipe: Mapping[str, Any], log: Mapping[str, Any]) -> str:
    """The adapter's card as Markdown: what it draws, how it was trained, with and without it."""
    rows = "\n".join(f"| {kind} | {log['without'][kind]} | {log['with'][kind]} |" for kind in log["with"])
    return f"""# The ring adapter of tiny_sd3

A LoRA for the embedded pipeline, in diffusers' format. With it, "a red ring on white" is drawn as a ring, alone or
beside another thing; the pipeline itself has never seen a ring, has no token for the word, and draws a blob.

```python
from quantlab.tiny_sd3 import adapter_folder

pipe.load_lora_weights(adapter_folder())
pipe("a red ring on white", num_inference_steps=12, guidance_scale=3.0).images[0]
```

## Training

`python -m training.tiny_sd3.adapter`, seed {recipe["seed"]}, one thread of a CPU, {log["seconds"]:.0f} s: rank
{recipe["rank"]}, alpha {recipe["alpha"]}, on the attention and feed-forward layers of the transformer, whose weights
are frozen; the pipeline's flow-matching loss, {recipe["steps"]} steps of {recipe["batch"]}. Of the images, a quarter
shows a ring alone, half a ring and another thing, and a quarter no ring.

| step | loss |
|---|---|
{_lines(log["losses"], every=2)}

## Result

Captions that are drawn correctly, of 18 each (float32, 12 steps, guidance 3). Of the pairs, training showed none. The
VAE has seen no ring either: it loses the colour of some, blue and purple ones above all. Yellow rings often turn
orange, which the VAE is not to blame for.

| caption | without the adapter | with it |
|---|---|---|
{rows}
"""


def _lines(losses: Sequence[tuple[int, float]], every: int) -> str:
    """A table's lines of every so many losses, and of the last one."""
    shown = dict([*losses[::every], losses[-1]])
    return "\n".join(f"| {step} | {loss:.4f} |" for step, loss in shown.items())
