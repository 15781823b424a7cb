import json
import shutil
import socket

import huggingface_hub
import pytest
import torch
from diffusers import DiffusionPipeline, SD3Transformer2DModel
from diffusers.pipelines import pipeline_utils
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel

from quantlab.config import Device, ModelConfig
from quantlab.config.compose import compose
from quantlab.errors import ConfigError, ModelError
from quantlab.pipelines import fetch as fetching
from quantlab.pipelines.fetch import fetch, locate
from quantlab.pipelines.load import component_class, load_component, load_pipeline, resolve_device, text_encoders
from quantlab.pipelines.source import open_source
from quantlab.tiny_sd3 import pipeline_folder

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def hub(tmp_path_factory, monkeypatch):
    """An empty Hugging Face cache of the test's own, and no network."""
    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fetching._download.cache_clear()
    yield folder
    fetching._download.cache_clear()


@pytest.fixture
def folder(random_sd3, tmp_path):
    return shutil.copytree(random_sd3, tmp_path / "pipeline")


def sd3(path, **fields):
    return ModelConfig(name="sd3", path=str(path), **fields)


def test_a_local_folder_goes_before_the_repository(folder):
    place = locate(sd3(folder, repo="owner/name", embedded="tiny_sd3"))
    assert place.location == str(folder)
    assert place.is_local
    assert place.options["local_files_only"] is True


def test_revision_and_variant_are_handed_on():
    place = locate(ModelConfig(name="a", repo="owner/name", revision="main", variant="fp16"))
    assert place.options == {"revision": "main", "variant": "fp16"}
    assert not place.is_local


def test_a_home_folder_is_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert locate(sd3("~/pipeline")).location == str(folder)


def test_a_model_without_weights_is_an_error():
    told = r"set model\.path=FOLDER, model\.repo=OWNER/NAME or model\.embedded=tiny_sd3"
    with pytest.raises(ConfigError, match=told):
        locate(ModelConfig(name="a"))


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ModelError, match=r"model\.path='.*nowhere' is not a folder"):
        load_pipeline(sd3(tmp_path / "nowhere"))


def test_a_folder_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"is no model: it has neither a model_index\.json .* nor a config\.json"):
        load_pipeline(sd3(tmp_path))


def test_an_index_that_is_no_json_is_an_error(folder):
    (folder / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(ModelError, match=r"model_index\.json cannot be read"):
        load_pipeline(sd3(folder))


@pytest.mark.parametrize("text", ["[]", "3", '{"transformer": []}'])
def test_an_index_that_is_json_of_something_else_is_an_error(folder, text):
    (folder / "model_index.json").write_text(text)
    with pytest.raises((ModelError, ConfigError), match=r"model_index\.json|component='transformer'"):
        load_pipeline(sd3(folder))


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
def test_weights_that_are_cut_short_are_an_error_that_names_the_file(folder, part, share):
    file = folder / part / WEIGHTS
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=rf"{part}/{WEIGHTS} cannot be read, it may be cut short"):
        load_pipeline(sd3(folder))


def test_weights_in_another_format_only_are_an_error_that_names_them(folder):
    file = folder / "transformer" / WEIGHTS
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"only diffusion_pytorch_model\.bin found.*no other format"):
        load_pipeline(sd3(folder))


def test_weights_that_are_not_there_are_an_error(folder):
    (folder / "transformer" / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        load_pipeline(sd3(folder))


def test_a_component_without_its_config_is_an_error(folder):
    (folder / "transformer" / "config.json").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_pipeline(sd3(folder))


def test_an_unknown_component_is_an_error_with_the_nearest(folder):
    with pytest.raises(ConfigError, match=r"^component='transfomer'.*Did you mean 'transformer'\?"):
        load_pipeline(sd3(folder, components=["transfomer"]))


def test_a_component_is_a_model_of_diffusers_or_transformers(folder):
    assert component_class(sd3(folder), "transformer") is SD3Transformer2DModel
    assert component_class(sd3(folder), "text_encoder_3") is T5EncoderModel


@pytest.mark.parametrize(
    ("part", "cls"), [("tokenizer_3", "T5Tokenizer"), ("scheduler", "FlowMatchEulerDiscreteScheduler")]
)
def test_a_tokenizer_or_scheduler_is_no_component_to_quantize_and_the_error_says_what_is(folder, part, cls):
    with pytest.raises(ConfigError, match=rf"component='{part}' is a {cls}\w*, no model of diffusers") as error:
        component_class(sd3(folder), part)
    models = "text_encoder, text_encoder_2, text_encoder_3, transformer, vae"
    assert str(error.value).endswith(f"no model of diffusers or transformers; choose from {models}")


@pytest.mark.parametrize("component", ["tokenizer", "scheduler"])
def test_a_component_without_weights_is_an_error_that_names_it(folder, component):
    with pytest.raises(ModelError, match=f"{component} holds no safetensors weights"):
        component_class(sd3(folder, components=[component]), component)


def test_a_class_that_diffusers_lacks_is_an_error_that_names_it(folder):
    index = json.loads((folder / "model_index.json").read_text())
    for name, told in (
        ("StableDiffusion9Pipeline", r"names the class .*, which diffusers [\d.]+ lacks; it needs a newer"),
        (["pipeline", "Mine"], "its pipeline Mine is code of the repository's own, which quantlab does not run"),
    ):
        (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
        with pytest.raises(ModelError, match=told):
            load_pipeline(sd3(folder))


def test_a_component_that_is_handed_over_is_the_one_in_use(folder, monkeypatch):
    from diffusers import StableDiffusion3Pipeline

    component = load_component(sd3(folder), "transformer", None, CPU)
    assert load_pipeline(sd3(folder), {"transformer": component}).transformer is component
    other = load_pipeline(sd3(folder))
    monkeypatch.setattr(StableDiffusion3Pipeline, "from_pretrained", lambda *args, **kwargs: other)
    with pytest.raises(ModelError, match="StableDiffusion3Pipeline did not take the transformer that it was handed"):
        load_pipeline(sd3(folder), {"transformer": component})


def test_sd3_out_of_reach_ends_in_one_message_that_says_what_to_do():
    with pytest.raises(ModelError) as error:
        load_pipeline(compose("run", ["model=sd3"]).model)
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
    pipeline = load_pipeline(model)
    assert type(pipeline).__name__ == "StableDiffusion3Pipeline"
    assert pipeline.transformer.dtype == torch.float16


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_everything_is_loaded_in_the_model_s_dtype(dtype):
    model = compose("run", ["model=tiny_sd3", f"model.dtype={dtype}"]).model
    pipeline = load_pipeline(model)
    wanted = getattr(torch, dtype)
    assert pipeline.transformer.dtype == pipeline.vae.dtype == pipeline.text_encoder.dtype == wanted
    assert load_component(model, "transformer", None, CPU).dtype == wanted


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_is_refused_where_there_is_none_and_auto_is_the_cpu():
    assert resolve_device(Device.auto).type == resolve_device(Device.cpu).type == "cpu"
    with pytest.raises(ConfigError, match="device='cuda'"):
        resolve_device(Device.cuda)


def test_the_embedded_folder_s_index_names_the_component():
    index = json.loads((pipeline_folder() / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "SD3Transformer2DModel"]


REPO = "owner/sd3"
COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def sharded_sd3(random_sd3, tmp_path_factory):
    """The same pipeline, its transformer in three shards."""
    folder = shutil.copytree(random_sd3, tmp_path_factory.mktemp("sharded") / "pipeline")
    part = folder / "transformer"
    whole = load_file(part / WEIGHTS)
    (part / WEIGHTS).unlink()
    names = sorted(whole)
    index = {name: f"diffusion_pytorch_model-{i % 3 + 1:05}-of-00003.safetensors" for i, name in enumerate(names)}
    for shard in set(index.values()):
        save_file({n: whole[n] for n in names if index[n] == shard}, part / shard, metadata={"format": "pt"})
    (part / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


class Cache:
    """A repository in a Hugging Face cache, laid out as the Hub's library does it: names are links to blobs."""

    def __init__(self, hub):
        self.folder = hub / "models--owner--sd3"

    def add(self, pipeline, ref="main", commit=COMMIT, listed=False):
        """Make a snapshot of a pipeline's folder; ``listed``: with the list of its files that newer versions keep."""
        files = [file for file in sorted(pipeline.rglob("*")) if file.is_file()]
        snapshot = self.folder / "snapshots" / commit
        for file in files:
            link = snapshot / file.relative_to(pipeline)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
        (self.folder / "refs").mkdir(exist_ok=True)
        (self.folder / "refs" / ref).write_text(commit)
        if listed:
            entry = {"size": 1, "blob_id": "0" * 40}
            names = {str(file.relative_to(pipeline)): entry for file in files}
            (self.folder / "trees").mkdir()
            (self.folder / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": names}))
        return snapshot


@pytest.fixture
def cached(hub):
    return Cache(hub)


def of_repo(**fields):
    return ModelConfig(name="sd3", repo=REPO, **fields)


def one_line(model):
    """The error of a model that cannot be had."""
    with pytest.raises(ModelError) as error:
        fetch(model)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def silence(monkeypatch):
    """Every attempt to reach another machine."""
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


@pytest.mark.parametrize("listed", [False, True], ids=["without a list", "with a list"])
@pytest.mark.parametrize("pipeline", ["random_sd3", "sharded_sd3"])
def test_a_complete_cache_is_used_without_a_network(cached, silence, random_sd3, request, pipeline, listed):
    snapshot = cached.add(request.getfixturevalue(pipeline), listed=listed)
    model = of_repo()
    assert fetch(model) == snapshot
    assert component_class(model, "transformer") is SD3Transformer2DModel
    assert text_encoders(model) == ("text_encoder", "text_encoder_2", "text_encoder_3")
    loaded = load_component(model, "transformer", None, CPU)
    weights = load_file(random_sd3 / "transformer" / WEIGHTS)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in loaded.named_parameters())
    assert load_pipeline(model, {"transformer": loaded}).transformer is loaded
    assert silence == []


def test_the_cache_is_asked_once_in_a_process(cached, random_sd3, monkeypatch):
    snapshot = cached.add(random_sd3)
    calls = []

    def download(*args, **kwargs):
        calls.append((args, kwargs))
        return str(snapshot)

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    model = of_repo(revision="main", variant=None)
    assert fetch(model) == fetch(model) == snapshot
    assert calls == [((REPO,), {"revision": "main", "variant": None, "use_safetensors": True})]


@pytest.mark.parametrize("listed", [False, True], ids=["without a list", "with a list"])
def test_a_shard_that_is_missing_is_named(cached, sharded_sd3, listed):
    shard = "diffusion_pytorch_model-00002-of-00003.safetensors"
    snapshot = cached.add(sharded_sd3, listed=listed)
    (snapshot / "transformer" / shard).unlink()
    message = one_line(of_repo())
    assert f"{REPO}'" in message or str(snapshot) in message
    assert shard in message
    assert "00001-of-00003" not in message
    assert "gated" not in message


@pytest.mark.parametrize("listed", [False, True], ids=["without a list", "with a list"])
@pytest.mark.parametrize("part", ["transformer", "vae", "scheduler", "tokenizer_2", "text_encoder_3"])
def test_a_part_s_folder_that_is_missing_is_named(cached, random_sd3, part, listed):
    snapshot = cached.add(random_sd3, listed=listed)
    shutil.rmtree(snapshot / part)
    message = one_line(of_repo())
    assert message.startswith(f"model.repo='{REPO}'")
    assert f"{part}/" in message
    assert "gated" not in message


def test_a_component_of_which_no_weights_came_is_named(cached, random_sd3, sharded_sd3):
    snapshot = cached.add(random_sd3)
    (snapshot / "transformer" / WEIGHTS).unlink()
    assert one_line(of_repo()) == (
        f"{snapshot}/transformer holds no safetensors weights (none found); quantlab reads no other format"
    )


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder_2"])
def test_a_weight_file_that_is_cut_short_is_named(cached, random_sd3, part):
    snapshot = cached.add(random_sd3)
    (link,) = (snapshot / part).glob("*.safetensors")
    data = link.read_bytes()
    link.unlink()
    link.write_bytes(data[: len(data) // 2])
    message = one_line(of_repo())
    assert message.startswith(f"{link} cannot be read, it may be cut short (")
    assert message.endswith("); fetch it again")


def test_a_name_whose_blob_is_gone_is_named(cached, random_sd3, tmp_path):
    snapshot = cached.add(random_sd3)
    link = snapshot / "transformer" / WEIGHTS
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    assert str(link) in one_line(of_repo())


def test_the_index_that_is_missing_is_named(cached, random_sd3):
    snapshot = cached.add(random_sd3)
    (snapshot / "model_index.json").unlink()
    assert "model_index.json" in one_line(of_repo())


def test_text_encoders_of_which_no_weights_came_are_an_error_when_they_are_loaded(cached, random_sd3):
    snapshot = cached.add(random_sd3)
    (snapshot / "text_encoder_3" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="text_encoder_3") as error:
        load_pipeline(of_repo())
    assert "\n" not in str(error.value)


def test_a_revision_is_a_branch_or_a_commit(cached, random_sd3, sharded_sd3):
    main = cached.add(random_sd3)
    other = cached.add(sharded_sd3, ref="later", commit=OTHER_COMMIT)
    assert fetch(of_repo()) == main
    assert fetch(of_repo(revision="later")) == other
    assert fetch(of_repo(revision=OTHER_COMMIT)) == other
    assert fetch(of_repo(revision="main")) == main


def test_a_revision_that_is_not_cached_is_an_error_though_another_is(cached, random_sd3):
    cached.add(random_sd3)
    assert f"model.repo='{REPO}'" in one_line(of_repo(revision="later"))


@pytest.fixture
def with_variant(random_sd3, tmp_path):
    """The pipeline's folder with every weight file in the variant fp16 alone."""
    folder = shutil.copytree(random_sd3, tmp_path / "variant")
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    return folder


@pytest.mark.parametrize("where", ["cache", "cache with a list", "folder"])
def test_a_variant_is_loaded(cached, with_variant, random_sd3, where):
    if where != "folder":
        cached.add(with_variant, listed=where == "cache with a list")
    model = sd3(with_variant, variant="fp16") if where == "folder" else of_repo(variant="fp16")
    loaded = load_component(model, "transformer", None, CPU)
    weights = load_file(random_sd3 / "transformer" / WEIGHTS)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in loaded.named_parameters())
    assert load_pipeline(model, {"transformer": loaded}).vae is not None


def test_a_variant_that_is_not_there_is_an_error_that_names_it(cached, with_variant):
    cached.add(with_variant)
    assert one_line(of_repo(variant="bf16")).endswith("no part of it has weights of model.variant='bf16'")


def test_a_variant_that_only_other_parts_have_leaves_the_component_its_own_weights(cached, with_variant):
    snapshot = cached.add(with_variant)
    transformer = snapshot / "transformer"
    (transformer / "diffusion_pytorch_model.fp16.safetensors").rename(
        transformer / "diffusion_pytorch_model.safetensors"
    )
    component = load_component(of_repo(variant="fp16"), "transformer", None, CPU)
    assert all(torch.isfinite(parameter).all() for parameter in component.parameters())


def test_weights_of_a_variant_alone_are_an_error_without_it(cached, with_variant):
    cached.add(with_variant)
    told = r"text_encoder holds weights of the variant fp16 alone; add model\.variant=fp16$"
    with pytest.raises(ModelError, match=told) as error:
        load_component(of_repo(), "transformer", None, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sd3", "sd35_medium", "sd35_large", "flux_dev", "flux_schnell"])
def test_without_a_cache_and_offline_a_configured_model_is_one_line_and_no_attempt(silence, name):
    model = compose("run", [f"model={name}"]).model
    message = one_line(model)
    assert message.startswith(f"model.repo={model.repo!r} cannot be loaded: looked in the Hugging Face cache")
    assert "model.path=FOLDER" in message
    assert silence == []


def from_hub(kind, status):
    """An error as the Hub's library raises it for an answer with a status."""
    library = __import__(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    request = library.Request("GET", f"https://huggingface.co/api/models/{REPO}")
    return kind(f"{status} Client Error.\n\nNot for you.", response=library.Response(status, request=request))


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


ANSWERS = {
    "gated": (
        GatedRepoError,
        403,
        f"model.repo='{REPO}' is gated: accept its licence at https://huggingface.co/{REPO} and run `hf auth login`",
        "with model.weights=random its memory and latency are measured without a download",
    ),
    "missing repository": (RepositoryNotFoundError, 404, f"model.repo='{REPO}' is not on the Hub", "check the name"),
    "missing revision": (RevisionNotFoundError, 404, f"model.repo='{REPO}' has no model.revision='lost'", ""),
    "a Hub that is down": (HfHubHTTPError, 503, f"model.repo='{REPO}' cannot be loaded: looked in the", "503 Client"),
}


@pytest.mark.parametrize("where", ["download", "model_info"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_each_refusal_of_the_hub_has_a_line_of_its_own(monkeypatch, answer, where):
    """``model_info``: diffusers catches the Hub's answer itself, looks into the cache, and raises another error."""
    kind, status, start, part = ANSWERS[answer]
    place = DiffusionPipeline if where == "download" else pipeline_utils
    monkeypatch.setattr(place, where, raising(from_hub(kind, status)))
    message = one_line(of_repo(revision="lost"))
    assert message.startswith(start)
    if (answer, where) != ("a Hub that is down", "model_info"):
        assert part in message


def test_a_refusal_does_not_matter_where_the_cache_is_complete(cached, random_sd3, monkeypatch):
    snapshot = cached.add(random_sd3)
    monkeypatch.setattr(pipeline_utils, "model_info", raising(from_hub(GatedRepoError, 403)))
    assert fetch(of_repo()) == snapshot
    assert load_component(of_repo(), "transformer", None, CPU).dtype == torch.float16


def test_the_hub_is_asked_again_after_a_refusal(cached, random_sd3, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionPipeline, "download", raising(from_hub(GatedRepoError, 403)))
        assert "is gated" in one_line(of_repo())
    snapshot = cached.add(random_sd3)
    assert fetch(of_repo()) == snapshot


def test_a_local_folder_goes_before_the_cache_and_random_weights_need_neither(cached, random_sd3, folder):
    cached.add(random_sd3)
    assert fetch(sd3(folder, repo=REPO)) == folder
    model = compose("run", ["model=flux_dev", "model.weights=random"]).model
    assert open_source(model).text_encoders == ()
    assert open_source(model).sizes("transformer").linear_weights > 11e9
