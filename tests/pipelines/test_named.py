"""A model by its folder or its repository: what is read from it, and what is taken for the rest."""

import json
import sys
from subprocess import run

import pytest

from quantlab.errors import ConfigError, ModelError
from quantlab.pipelines import fetch
from quantlab.pipelines.named import default_prompts, denoiser, model_of
from quantlab.tiny_sd3 import pipeline_folder

NAMES = ["tiny_sd3", "sd3"]


def test_a_folder_is_a_model_with_its_denoiser_our_prompts_and_no_arguments():
    model = model_of(str(pipeline_folder()), NAMES)
    assert (model.name, model.path, model.repo) == ("pipeline", str(pipeline_folder()), None)
    assert (model.components, model.dtype.value, model.call) == (["transformer"], "float16", {})
    assert model.prompts == list(default_prompts())
    assert len(model.prompts) == 8


def test_a_repository_is_asked_for_only_behind_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(fetch, "_download", lambda *args: asked.append(args) or pipeline_folder())
    model = model_of("hub:owner/name", NAMES)
    assert (model.name, model.path, model.repo, model.components) == ("name", None, "owner/name", ["transformer"])
    assert asked == [("owner/name", None, None)]
    with pytest.raises(ConfigError, match="is neither a folder nor a model of conf/model/"):
        model_of("owner/name", NAMES)
    assert len(asked) == 1


@pytest.mark.parametrize(("what", "near"), [("tiny_sd", "tiny_sd3"), ("sd33", "sd3")])
def test_another_name_is_an_error_with_the_nearest(what, near):
    with pytest.raises(ConfigError) as error:
        model_of(what, NAMES)
    assert str(error.value).endswith(f"or hub:OWNER/NAME. Did you mean {near!r}?")


def test_a_folder_without_a_denoiser_is_an_error_that_names_its_parts(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Any", "prior": ["diffusers", "Prior"]}))
    (tmp_path / "prior").mkdir()
    with pytest.raises(ConfigError, match="has neither of transformer, unet; name its components, of prior"):
        model_of(str(tmp_path), NAMES)


def test_a_folder_that_is_no_pipeline_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"no diffusers pipeline: it has no model_index\.json"):
        model_of(str(tmp_path), NAMES)


def test_a_transformer_goes_before_a_unet():
    assert denoiser(["vae", "unet", "transformer"], "it") == "transformer"
    assert denoiser(["vae", "unet"], "it") == "unet"


def test_what_names_models_is_imported_without_torch():
    code = "import sys; import quantlab.pipelines.named; print({'torch', 'diffusers'} & set(sys.modules))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
