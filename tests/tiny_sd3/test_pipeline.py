import json

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors import safe_open
from safetensors.torch import load_file

from quantlab.errors import ConfigError, ModelError
from quantlab.tiny_sd3 import pipeline_folder
from quantlab.tiny_sd3.outliers import CHANNELS, FACTOR, add_outliers
from training.tiny_sd3.train import count_correct

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipeline():
    return StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float16)


def test_the_folder_is_a_complete_stable_diffusion_3_pipeline(pipeline):
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    for name in parts:
        assert {p.dtype for p in getattr(pipeline, name).parameters()} <= {torch.float16, torch.float32}, name
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"):
        assert getattr(pipeline, name) is not None
    assert len(pipeline.transformer.transformer_blocks) >= 6


def test_the_folder_holds_at_most_12_mb_and_no_pickle():
    files = [file for file in pipeline_folder().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 12e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".txt", ".md", ".model"}


def test_every_weight_is_finite_and_float16():
    for file in pipeline_folder().rglob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                tensor = weights.get_tensor(name)
                assert tensor.dtype == torch.float16, name
                assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize("count", [16, pytest.param(64, marks=pytest.mark.long)])
def test_at_least_90_percent_of_held_out_captions_are_generated_correctly(count):
    # the same weights, computed in float32: many CPUs have no float16 convolution to speak of
    pipeline = StableDiffusion3Pipeline.from_pretrained(pipeline_folder(), dtype=torch.float32)
    assert count_correct(pipeline, count) >= 0.9 * count


def test_the_model_card_says_what_training_recorded():
    card = (pipeline_folder() / "README.md").read_text()
    record = json.loads((pipeline_folder() / "training.json").read_text())
    recipe, log = record["recipe"], record["log"]
    assert f"{log['correct']} of {log['total']} held-out captions" in card
    assert f"{recipe['steps']} steps of {recipe['batch']}" in card
    assert log["hardware"] in card
    assert f"{log['flow_loss'][-1][1]:.4f}" in card
    assert log["flow_loss"][-1][1] < 0.5 * log["flow_loss"][0][1]


def test_another_name_is_an_error_with_the_known_ones():
    with pytest.raises(ConfigError, match="tiny_sd3, tiny_sd3_outliers"):
        pipeline_folder("tiny_sdd3")


def test_the_outliers_folder_differs_in_the_transformer_only_and_is_made_once():
    plain, outliers = pipeline_folder(), pipeline_folder("tiny_sd3_outliers")
    made = (outliers / TRANSFORMER).stat().st_mtime_ns
    for file in plain.rglob("*"):
        if file.is_file():
            same = file.read_bytes() == (outliers / file.relative_to(plain)).read_bytes()
            assert same is (str(file.relative_to(plain)) != TRANSFORMER), file
    assert pipeline_folder("tiny_sd3_outliers") == outliers
    assert (outliers / TRANSFORMER).stat().st_mtime_ns == made


def test_rescaling_divides_what_reads_the_outlier_channels_and_nothing_else():
    weights = load_file(pipeline_folder() / TRANSFORMER)
    rescaled = {name: tensor.clone() for name, tensor in weights.items()}
    add_outliers(rescaled)
    name = "transformer_blocks.3.attn.to_k.weight"
    others = [c for c in range(weights[name].shape[1]) if c not in CHANNELS]
    assert torch.equal(rescaled[name][:, others], weights[name][:, others])
    torch.testing.assert_close(rescaled[name][:, list(CHANNELS)] * FACTOR, weights[name][:, list(CHANNELS)])
    changed = {n.split(".", 2)[2] for n in weights if not torch.equal(weights[n], rescaled[n])}
    readers = {f"{reader}.weight" for reader in ("attn.to_q", "attn.to_k", "attn.to_v", "ff.net.0.proj")}
    assert changed == readers | {"norm1.linear.weight", "norm1.linear.bias"}


def test_a_cache_folder_that_cannot_be_written_is_an_error_that_names_it(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match=r"QUANTLAB_CACHE=.*set it to a folder"):
        pipeline_folder("tiny_sd3_outliers")
