import json

import pytest
import torch

from quantlab.tiny_sd3 import pipeline_folder
from training.tiny_sd3.architecture import untrained_pipeline
from training.tiny_sd3.flow import train_flow
from training.tiny_sd3.model_card import model_card
from training.tiny_sd3.recipe import Log, Recipe
from training.tiny_sd3.rendering import encode_scenes
from training.tiny_sd3.scenes import every_scene
from training.tiny_sd3.vae import train_vae

SCENES = [scene for scene in every_scene() if not scene.held_out][::97]
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


def trained(seed):
    recipe = Recipe(seed=seed, vae_measured=8, vae_steps=2, vae_batch=2, steps=2, batch=2, pool=4)
    log = Log()
    pipeline = untrained_pipeline(seed)
    codes = encode_scenes(SCENES)
    train_vae(pipeline.vae, codes, recipe, log)
    train_flow(pipeline, codes, [scene.caption for scene in SCENES], recipe, log)
    weights = {}
    for name in PARTS:
        weights |= {f"{name}.{key}": value for key, value in getattr(pipeline, name).state_dict().items()}
    return weights, pipeline.vae.config.scaling_factor, log


@pytest.fixture(scope="module")
def first():
    return trained(0)


def test_one_seed_trains_identical_weights(first):
    again = trained(0)
    assert first[0].keys() == again[0].keys()
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])
    assert first[1] == again[1]
    assert first[2].flow_loss == again[2].flow_loss


def test_another_seed_trains_other_weights(first):
    assert not torch.equal(first[0]["transformer.proj_out.weight"], trained(1)[0]["transformer.proj_out.weight"])


def test_training_moves_every_part(first):
    weights, scale, log = first
    start = untrained_pipeline(0)
    for name in PARTS:
        before = getattr(start, name).state_dict()
        assert any(not torch.equal(weights[f"{name}.{key}"], value) for key, value in before.items()), name
    assert scale != start.vae.config.scaling_factor
    assert [step for step, _ in log.flow_loss] == [0, 1]


def test_the_model_card_that_ships_is_what_training_would_write_today():
    record = json.loads((pipeline_folder() / "training.json").read_text())
    assert model_card(record["recipe"], record["log"]) == (pipeline_folder() / "README.md").read_text()
