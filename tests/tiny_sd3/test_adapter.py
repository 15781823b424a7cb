from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors import safe_open

from quantlab.tiny_sd3 import adapter_folder, pipeline_folder
from training.tiny_sd3.reading import hole_share, shows
from training.tiny_sd3.rendering import encode_scenes, render
from training.tiny_sd3.scenes import RING, Scene, Thing, every_scene, ring_scenes
from training.tiny_sd3.train import count_shown, generated

RINGS = [
    Scene(Thing("red", RING), "white"),
    Scene(Thing("blue", RING), "black"),
    Scene(Thing("yellow", RING), "grey"),
    Scene(Thing("green", RING), "white"),
]
KNOWN = [
    Scene(Thing("red", "circle"), "grey", "left of", Thing("blue", "square")),
    Scene(Thing("yellow", "triangle"), "white", "above", Thing("purple", "circle")),
]


def loaded() -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float32)


def weights() -> Path:
    return adapter_folder() / "pytorch_lora_weights.safetensors"


def test_rings_are_drawn_with_the_adapter_and_not_without() -> None:
    pipeline = loaded()
    assert max(hole_share(image) for image in generated(pipeline, RINGS)) < 0.02
    pipeline.load_lora_weights(adapter_folder())
    assert min(hole_share(image) for image in generated(pipeline, RINGS)) > 0.2
    assert count_shown(pipeline, RINGS) >= 2  # the VAE loses the colour of some
    assert count_shown(pipeline, KNOWN) == len(KNOWN)


def test_the_adapter_is_small_finite_and_float16() -> None:
    assert weights().stat().st_size < 400e3
    with safe_open(weights(), framework="pt") as file:
        assert "lora_adapter_metadata" in file.metadata()
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            assert tensor.dtype == torch.float16, name
            assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize("kind", [0, 1])
def test_rendered_rings_are_read_as_what_they_are(kind: int) -> None:
    scenes = ring_scenes()[kind][:: 1 + 60 * kind]
    images = render(encode_scenes(scenes), torch.Generator().manual_seed(0))
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert all(shows(image, scene) for image, scene in zip(pixels, scenes, strict=True))


def test_the_pipeline_itself_was_trained_on_no_ring() -> None:
    assert not any(RING in scene.caption.split() for scene in every_scene())
