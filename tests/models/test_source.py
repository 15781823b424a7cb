import json
import shutil

import pytest
import torch

from quantlab.compose import compose
from quantlab.config import Device, ModelConfig
from quantlab.errors import ConfigError, ModelError
from quantlab.models.load import load_component, load_pipeline, resolve_device
from quantlab.models.source import locate
from quantlab.tiny_sd3 import pipeline_folder

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(random_sd3, tmp_path):
    return shutil.copytree(random_sd3, tmp_path / "pipeline")


def sd3(path, **fields):
    return ModelConfig(name="sd3", path=str(path), **fields)


def test_a_local_folder_goes_before_the_repository(folder):
    source = locate(sd3(folder, repo="owner/name", embedded="tiny_sd3"))
    assert source.location == str(folder)
    assert source.is_local
    assert source.options["local_files_only"] is True


def test_revision_and_variant_are_handed_on():
    source = locate(ModelConfig(name="a", repo="owner/name", revision="main", variant="fp16"))
    assert source.options == {"revision": "main", "variant": "fp16"}
    assert not source.is_local


def test_a_home_folder_is_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert locate(sd3("~/pipeline")).location == str(folder)


def test_a_model_without_weights_is_an_error():
    with pytest.raises(ConfigError, match=r"set model\.path=FOLDER or model\.repo=OWNER/NAME"):
        locate(ModelConfig(name="a"))


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ModelError, match=r"model\.path='.*nowhere' is not a folder"):
        load_pipeline(sd3(tmp_path / "nowhere"), CPU)


def test_a_folder_that_is_no_pipeline_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"no diffusers pipeline: it has no model_index\.json"):
        load_pipeline(sd3(tmp_path), CPU)


def test_an_index_that_is_no_json_is_an_error(folder):
    (folder / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(ModelError, match=r"model_index\.json cannot be read"):
        load_pipeline(sd3(folder), CPU)


@pytest.mark.parametrize("text", ["[]", "3", '{"transformer": []}'])
def test_an_index_that_is_json_of_something_else_is_an_error(folder, text):
    (folder / "model_index.json").write_text(text)
    with pytest.raises((ModelError, ConfigError), match="model"):
        load_pipeline(sd3(folder), CPU)


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
def test_weights_that_are_cut_short_are_an_error_that_names_the_file(folder, part, share):
    file = folder / part / WEIGHTS
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=rf"{part}/{WEIGHTS} cannot be read, it may be cut short"):
        load_pipeline(sd3(folder), CPU)


def test_weights_in_another_format_only_are_an_error_that_names_them(folder):
    file = folder / "transformer" / WEIGHTS
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"only diffusion_pytorch_model\.bin found.*no other format"):
        load_pipeline(sd3(folder), CPU)


def test_weights_that_are_not_there_are_an_error(folder):
    (folder / "transformer" / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        load_pipeline(sd3(folder), CPU)


def test_a_component_without_its_config_is_an_error(folder):
    (folder / "transformer" / "config.json").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_pipeline(sd3(folder), CPU)


def test_an_unknown_component_is_an_error_with_the_nearest(folder):
    with pytest.raises(ConfigError, match=r"model\.component='transfomer'.*Did you mean 'transformer'\?"):
        load_pipeline(sd3(folder, component="transfomer"), CPU)


@pytest.mark.parametrize("component", ["text_encoder_3", "tokenizer", "scheduler"])
def test_a_component_that_is_no_diffusers_model_is_an_error_with_those_that_are(folder, component):
    with pytest.raises((ConfigError, ModelError), match=component) as error:
        load_pipeline(sd3(folder, component=component), CPU)
    if component == "text_encoder_3":
        assert "choose from" in str(error.value)
        assert "transformer" in str(error.value)


def test_sd3_out_of_reach_ends_in_one_message_that_says_what_to_do():
    with pytest.raises(ModelError) as error:
        load_pipeline(compose("run", ["model=sd3"]).model, CPU)
    message = str(error.value)
    for words in (
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "looked in",
        "gated",
        "hf auth login",
        "model.path=FOLDER",
        "model=tiny_sd3",
    ):
        assert words in message
    assert "\n" not in message


def test_the_other_configured_prompts_of_sd3_fit_a_folder_of_ours(random_sd3):
    model = compose("run", ["model=sd3", f"model.path={random_sd3}"]).model
    pipeline = load_pipeline(model, CPU)
    assert type(pipeline).__name__ == "StableDiffusion3Pipeline"
    assert pipeline.transformer.dtype == torch.float16


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_everything_is_loaded_in_the_model_s_dtype(dtype):
    model = compose("run", ["model=tiny_sd3", f"model.dtype={dtype}"]).model
    pipeline = load_pipeline(model, CPU)
    wanted = getattr(torch, dtype)
    assert pipeline.transformer.dtype == pipeline.vae.dtype == pipeline.text_encoder.dtype == wanted
    assert load_component(model, type(pipeline.transformer), None, CPU).dtype == wanted


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_is_refused_where_there_is_none_and_auto_is_the_cpu():
    assert resolve_device(Device.auto).type == resolve_device(Device.cpu).type == "cpu"
    with pytest.raises(ConfigError, match="device='cuda'"):
        resolve_device(Device.cuda)


def test_the_embedded_folder_s_index_names_the_component():
    index = json.loads((pipeline_folder() / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "SD3Transformer2DModel"]
