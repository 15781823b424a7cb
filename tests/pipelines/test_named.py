"""A model by its folder or its repository: what is read from it, and what is taken for the rest."""

import json
import sys
from pathlib import Path
from subprocess import run

import pytest
import torch
from safetensors.torch import save_file

from quantlab import Lab
from quantlab.config.compose import compose
from quantlab.errors import ConfigError, ModelError
from quantlab.lab.choose import chosen
from quantlab.pipelines import fetch
from quantlab.pipelines.named import completed, configured, default_prompts, denoiser, with_files
from quantlab.tiny_sd3 import pipeline_folder

FOLDER = f"model={pipeline_folder()}"


def model_of(*words):
    return configured("run", words).model


def test_a_folder_is_a_model_with_its_denoiser_our_prompts_and_no_arguments():
    model = model_of(FOLDER)
    assert (model.name, model.path, model.repo) == ("pipeline", str(pipeline_folder()), None)
    assert (model.components, model.dtype.value, model.call) == (["transformer"], "float16", {})
    assert model.prompts == list(default_prompts())
    assert len(model.prompts) == 8


def test_a_folder_is_the_options_that_describe_it_and_a_name_stays_a_name():
    given = ['++model.name="pipeline"', f"++model.path={json.dumps(str(pipeline_folder()))}"]
    assert with_files("run", ["skip=ff", FOLDER, "device=cpu"]) == [
        *("skip=ff", "~model", *given, '++model.dtype="float16"', "device=cpu")
    ]
    plain = ["skip=ff", "model=tiny_sd3", "model.name=x", "quant=int8"]
    assert with_files("run", plain) == plain


def test_a_json_file_is_a_setting_where_a_setting_can_be_given():
    assert with_files("run", ["quant=my own.json"]) == ["~quant", "++quant.method=file", '++quant.file="my own.json"']
    assert with_files("sweep", ["quant=./a.json"]) == ['++own_quant="./a.json"']


def test_what_is_given_goes_before_what_is_read():
    model = model_of(FOLDER, "model.dtype=bfloat16", "model.prompts=[a cat]", "model.skips={mine: [proj_out]}")
    assert (model.dtype.value, model.prompts, model.skips) == ("bfloat16", ["a cat"], {"mine": ["proj_out"]})


def test_skip_lists_follow_from_the_structure_where_there_is_none():
    assert model_of(FOLDER).skips == {
        "ends": ["context_embedder", "norm_out", "proj_out", "time_text_embed"],
        "norm": ["norm1", "norm1_context"],
        "attn": ["attn"],
        "ff": ["ff", "ff_context"],
    }
    named = compose("run", ["model=tiny_sd3"]).model.skips
    assert model_of("model=tiny_sd3").skips == named != {}


@pytest.mark.parametrize(
    ("words", "components"),
    [
        (["component=text_encoder_3"], ["text_encoder_3"]),
        (["component=[transformer,text_encoder]"], ["transformer", "text_encoder"]),
        (["model.components=[text_encoder_2]"], ["text_encoder_2"]),
        (["model.components=[text_encoder_2]", "component=text_encoder"], ["text_encoder"]),
    ],
)
def test_a_component_is_chosen_by_its_name_and_goes_before_the_model_s_own(words, components):
    assert model_of(FOLDER, *words).components == components
    assert model_of("model=tiny_sd3", *words).components == components


def test_skip_lists_are_in_the_words_of_the_component_s_library():
    lists = {"ends": [], "norm": [], "attn": [r".*\.SelfAttention"], "ff": [r".*\.DenseReluDense"]}
    assert model_of(FOLDER, "component=text_encoder_3").skips == lists
    assert model_of("model=tiny_sd3", "component=text_encoder_3").skips == lists, "a model's own are for its own parts"


def test_a_list_of_several_components_is_one_that_all_of_them_have():
    both = model_of(FOLDER, "component=[transformer,text_encoder_3]").skips
    assert both == {kind: [] for kind in ("ends", "norm", "attn", "ff")}


def test_an_empty_list_is_what_is_not_given():
    model = model_of("model=tiny_sd3", "model.components=[]", "model.prompts=[]")
    assert (model.components, model.prompts) == (["transformer"], list(default_prompts()))


@pytest.mark.parametrize("component", ["3", "{a: 1}", "[[a]]"])
def test_a_component_is_a_name_or_a_list_of_names(component):
    with pytest.raises(ConfigError, match=r"component=.* must be the name of a component, or a list of names"):
        model_of("model=tiny_sd3", f"component={component}")


def test_a_component_that_a_folder_does_not_have_is_an_error_with_the_nearest():
    with pytest.raises(ConfigError, match=r"component='transformr' is not known; .*Did you mean 'transformer'\?"):
        model_of(FOLDER, "component=transformr")


def test_a_configuration_without_a_model_is_left_as_it_is():
    config = compose("report", ["study=s"])
    assert completed(config) is config


def test_a_repository_is_asked_for_only_behind_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(fetch, "_download", lambda *args: asked.append(args) or pipeline_folder())
    model = model_of("model=hub:owner/name")
    assert (model.name, model.path, model.repo, model.components) == ("name", None, "owner/name", ["transformer"])
    assert set(asked) == {("owner/name", None, None)}
    before = len(asked)
    with pytest.raises(ConfigError, match=r"choose .*tiny_sd3"):
        model_of("model=owner/name")
    assert len(asked) == before


@pytest.mark.parametrize(("what", "near"), [("tiny_sd", "tiny_sd3"), ("sd33", "sd3")])
def test_another_name_is_an_error_with_the_nearest(what, near):
    with pytest.raises(ConfigError) as error:
        model_of(f"model={what}")
    assert str(error.value).startswith(f"model={what!r} is not known; choose from ")
    assert f"Did you mean {near!r}?" in str(error.value)
    assert str(error.value).endswith("A folder is given as model=./FOLDER, a repository as model=hub:OWNER/NAME.")


@pytest.mark.parametrize("what", ["./nowhere", "../nowhere", "/nowhere", "~/nowhere"])
def test_a_path_that_is_no_folder_is_an_error_that_says_what_may_stand_there(what):
    with pytest.raises(ConfigError, match=r"is no folder; choose one, hub:OWNER/NAME, or of .*tiny_sd3") as error:
        model_of(f"model={what}")
    assert str(error.value).startswith(f"model={what!r} ")


@pytest.mark.parametrize("what", [".", "./", "../pipeline", "~"])
def test_a_folder_may_be_said_in_every_way_of_a_shell(monkeypatch, what):
    """Kind: a name taken from the words instead of the folder."""
    monkeypatch.chdir(pipeline_folder())
    monkeypatch.setenv("HOME", str(pipeline_folder()))
    model = model_of(f"model={what}")
    assert (model.name, model.components) == ("pipeline", ["transformer"])


def test_in_python_a_path_is_a_folder_even_without_a_slash(monkeypatch, tmp_path):
    (tmp_path / "mine").symlink_to(pipeline_folder())
    monkeypatch.chdir(tmp_path)
    config, pipeline = chosen(Path("mine"), [], "cpu")
    assert (config.model.path, pipeline) == (str(tmp_path / "mine"), None)
    with pytest.raises(ConfigError, match="model='mine' is not known"):
        chosen("mine", [], "cpu")
    with pytest.raises(ConfigError, match=r"a int is no pipeline of diffusers; .*hub:OWNER/NAME"):
        Lab.open(3, device="cpu")


def with_index(folder, **parts):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Any", **parts}))
    for part in parts:
        (folder / part).mkdir()
    return f"model={folder}"


def test_a_folder_without_a_denoiser_is_an_error_that_names_its_parts(tmp_path):
    word = with_index(tmp_path, vae=["diffusers", "AutoencoderKL"], scheduler=["diffusers", "DDIMScheduler"])
    save_file({"a": torch.zeros(2)}, tmp_path / "vae" / "model.safetensors")
    with pytest.raises(ConfigError, match="has no denoiser; name a component=, of vae"):
        model_of(word)


def test_a_folder_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"is no model: it has neither a model_index\.json .* nor a config\.json"):
        model_of(f"model={tmp_path}")


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float32, "float16"), (torch.float64, "float16")],
)
def test_the_dtype_is_that_of_most_matrices_and_float32_becomes_float16(tmp_path, stored, loaded):
    word = with_index(tmp_path, unet=["diffusers", "UNet2DConditionModel"])
    weights = {f"{index}": torch.zeros(2, 2, dtype=stored) for index in range(3)}
    others = {"matrix": torch.zeros(2, 2, dtype=torch.uint8), "bias": torch.zeros(9), "bias_2": torch.zeros(9)}
    save_file({**weights, **others}, tmp_path / "unet" / "model.safetensors")
    assert with_files("run", [word])[-1] == f'++model.dtype="{loaded}"'


def test_the_denoiser_is_the_usual_one_or_else_the_largest_part_that_can_be_one():
    assert denoiser({"vae": 9, "unet": 1, "transformer": 1}, "it") == "transformer"
    assert denoiser({"vae": 9, "unet": 1}, "it") == "unet"
    assert denoiser({"vae": 9, "controlnet": 1, "first": 2, "second": 3}, "it") == "second"
    assert denoiser({"unet": 0, "decoder": 1}, "it") == "decoder"
    with pytest.raises(ConfigError, match="it has no denoiser; name a component=, of vae, scheduler"):
        denoiser({"vae": 9, "scheduler": 0}, "it")


def test_what_names_models_is_imported_without_torch():
    code = "import sys; import quantlab.pipelines.named; print({'torch', 'diffusers'} & set(sys.modules))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
