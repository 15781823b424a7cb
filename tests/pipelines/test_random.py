import copy
import dataclasses
import functools
import hashlib
import inspect
import json
import re

import pytest
import torch
import yaml
from accelerate import init_empty_weights

from quantlab.bnb.linear import described, linear_layers
from quantlab.bnb.matching import matches
from quantlab.bnb.skip import resolve
from quantlab.config import ArchitectureConfig, Dtype, ModelConfig, PartConfig, Weights
from quantlab.config.compose import compose
from quantlab.config.paths import conf_dir
from quantlab.errors import ConfigError
from quantlab.files import cache_folder
from quantlab.pipelines import drawn, random
from quantlab.pipelines.call import Caller
from quantlab.pipelines.load import load_component, load_pipeline
from quantlab.pipelines.random import RandomWeights, conditioning, diffusers_class, random_component, random_pipeline
from quantlab.pipelines.source import open_source

CPU = torch.device("cpu")
PARAMETERS = {"sd3": 2.03, "sd35_medium": 2.24, "sd35_large": 8.06, "flux_dev": 11.90, "flux_schnell": 11.89}
FULL_SIZE = [*PARAMETERS]
SCHEDULER = "FlowMatchEulerDiscreteScheduler"
SMALL_FLUX = ArchitectureConfig(
    "FluxPipeline",
    "FluxTransformer2DModel",
    SCHEDULER,
    {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "joint_attention_dim": 8,
        "pooled_projection_dim": 8,
        "guidance_embeds": True,
        "axes_dims_rope": [4, 6, 6],
    },
)
SMALL_WAN = ArchitectureConfig(
    "WanPipeline",
    "WanTransformer3DModel",
    SCHEDULER,
    {
        "patch_size": [1, 2, 2],
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 32,
        "freq_dim": 64,
        "ffn_dim": 96,
        "num_layers": 1,
        "cross_attn_norm": True,
    },
)


def model_of(name, *overrides):
    return compose("run", [f"model={name}", "model.weights=random", *overrides]).model


@pytest.fixture(scope="module")
def tiny():
    return model_of("tiny_sd3")


@pytest.fixture(scope="module")
def tiny_component(tiny):
    return random_component(tiny, CPU)


def called(pipeline, model):
    """A pipeline of random weights that is called as configured."""
    return Caller(pipeline, model.call, inputs=RandomWeights(model).inputs)


def test_random_weights_of_several_components_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"and component=\['transformer', 'vae'\] names 2"):
        open_source(dataclasses.replace(tiny, components=["transformer", "vae"]))


def test_components_that_are_alike_are_made_together(tiny):
    architecture = dataclasses.replace(tiny.architecture, alike=["transformer_2"])
    model = dataclasses.replace(tiny, components=["transformer", "transformer_2"], architecture=architecture)
    assert open_source(model).sizes("transformer_2") == open_source(tiny).sizes("transformer")
    with pytest.raises(ConfigError, match=r"names 2"):
        open_source(dataclasses.replace(model, components=["transformer", "vae"]))


def test_what_an_architecture_leaves_empty_does_not_change_its_digest(tiny):
    plain = json.dumps(
        {
            field: getattr(tiny.architecture, field)
            for field in ("pipeline", "component", "scheduler", "config", "scheduler_config", "conditioning")
        },
        sort_keys=True,
    )
    assert random.fingerprint(tiny) == "random-" + hashlib.sha256(plain.encode()).hexdigest()
    other = dataclasses.replace(tiny.architecture, pipeline_config={"is_distilled": True})
    assert random.fingerprint(dataclasses.replace(tiny, architecture=other)) != random.fingerprint(tiny)


def test_conditioning_has_masks_lists_of_tensors_and_none(tiny, tiny_component):
    shapes = {"embeds": [1, 3, 4], "embeds_mask": [1, 3], "several": [[3, 4], [2, 4]], "negative_prompt": None}
    architecture = dataclasses.replace(tiny.architecture, conditioning=shapes)
    model = dataclasses.replace(tiny, architecture=architecture, call={"num_images_per_prompt": 2})
    given = conditioning(random_pipeline(tiny, tiny_component), model, 0)
    assert given["negative_prompt"] is None
    assert given["embeds"].shape == (2, 3, 4)
    assert given["embeds_mask"].dtype == torch.bool
    assert given["embeds_mask"].shape == (2, 3)
    assert given["embeds_mask"].all()
    assert [tuple(one.shape) for one in given["several"]] == [(3, 4), (2, 4)] * 2


def test_a_part_stands_in_for_what_the_pipeline_asks(tiny, tiny_component):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    vae = PartConfig("AutoencoderKL", {"block_out_channels": [32], "latent_channels": 8})
    architecture = dataclasses.replace(tiny.architecture, parts={"vae": vae})
    pipeline = random_pipeline(dataclasses.replace(tiny, architecture=architecture), tiny_component)
    assert pipeline.vae.config.latent_channels == 8
    assert pipeline.vae.dtype == torch.float16
    assert torch.equal(torch.get_rng_state(), before)
    wrong = dataclasses.replace(architecture, parts={"vae": PartConfig("FluxPipeline")})
    with pytest.raises(ConfigError, match=r"model\.architecture\.parts\.vae\.component='FluxPipeline' is no model"):
        random_pipeline(dataclasses.replace(tiny, architecture=wrong), tiny_component)


def test_random_weights_are_called_for_as_many_steps_as_are_recorded(tiny):
    assert open_source(tiny).call(2) == {**tiny.call, "num_inference_steps": 2}


def changed(model, **config):
    """The model with other arguments of its architecture."""
    architecture = dataclasses.replace(model.architecture, config={**model.architecture.config, **config})
    return dataclasses.replace(model, architecture=architecture)


def bits(component):
    """Dtype, shape and bytes of every parameter and buffer by name."""
    held = {**dict(component.named_parameters()), **dict(component.named_buffers())}
    return {
        name: (value.dtype, tuple(value.shape), value.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, value in held.items()
    }


def differing(left, right):
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def test_weights_are_the_same_in_every_call(tiny, tiny_component):
    torch.manual_seed(5)
    assert not differing(bits(random_component(tiny, CPU)), bits(tiny_component))


def test_drawing_weights_leaves_torch_s_own_generator_alone(tiny):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    random_component(tiny, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_depend_on_their_name_alone(tiny, tiny_component):
    weights = dict(tiny_component.named_parameters())
    paths = ["transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.to_k.weight"]
    paths += [path.replace("0", "1") for path in paths]
    for i, path in enumerate(paths):
        assert not any(torch.equal(weights[path], weights[other]) for other in paths[i + 1 :])
    fewer = bits(random_component(changed(tiny, num_layers=2), CPU))
    shared = [
        name for name in fewer if not name.startswith("transformer_blocks.1.")
    ]  # the last block is built otherwise
    assert len(shared) > 20
    assert not differing({name: fewer[name] for name in shared}, {name: bits(tiny_component)[name] for name in shared})


def test_matrices_are_drawn_like_a_linear_layer_s_and_norms_do_nothing(tiny_component):
    for name, parameter in tiny_component.named_parameters():
        value = parameter.detach().float()
        if parameter.dim() < 2:
            assert (value == (0 if name.endswith("bias") else 1)).all(), name
            continue
        bound = value[0].numel() ** -0.5
        assert value.abs().max() <= bound * 1.001, name
        assert value.std() == pytest.approx(bound / 3**0.5, rel=0.1), name
        assert value.mean().abs() < 0.1 * bound, name


INPUTS = {
    "SD3Transformer2DModel": {
        "hidden_states": (2, 8, 16, 16),
        "encoder_hidden_states": (2, 56, 128),
        "pooled_projections": (2, 128),
    },
    "FluxTransformer2DModel": {
        "hidden_states": (1, 6, 16),
        "encoder_hidden_states": (1, 5, 8),
        "pooled_projections": (1, 8),
        "img_ids": (6, 3),
        "txt_ids": (5, 3),
        "guidance": (1,),
    },
    "WanTransformer3DModel": {"hidden_states": (1, 4, 2, 8, 8), "encoder_hidden_states": (1, 6, 32)},
}


@torch.no_grad()
def output(component):
    generator = torch.Generator().manual_seed(3)
    shapes = INPUTS[type(component).__name__]
    inputs = {name: torch.randn(shape, generator=generator).to(component.dtype) for name, shape in shapes.items()}
    batch = inputs["hidden_states"].shape[0]
    timestep = 0.5 if "guidance" in shapes else 500.0  # Flux multiplies it by 1000
    return component(**inputs, timestep=torch.full((batch,), timestep), return_dict=False)[0]


@pytest.mark.parametrize("dtype", Dtype, ids=lambda dtype: dtype.value)
@pytest.mark.parametrize("architecture", [None, SMALL_FLUX, SMALL_WAN], ids=["sd3", "flux", "wan"])
def test_random_weights_in_memory_are_those_on_disk_loaded_as_documented(tiny, architecture, dtype):
    model = dataclasses.replace(tiny, dtype=dtype, architecture=architecture or tiny.architecture)
    made = random_component(model, CPU)
    with open_source(model).on_disk(CPU) as saved:
        loaded = load_component(saved, "transformer", None, CPU)
        assert type(loaded) is type(made)
        assert not differing(bits(made), bits(loaded))
        assert made.training is loaded.training is False
        assert [p.requires_grad for p in made.parameters()] == [p.requires_grad for p in loaded.parameters()]
        left, right = output(made), output(loaded)
    assert left.dtype == right.dtype
    assert torch.isfinite(left).all()
    assert left.float().std() > 0
    assert torch.equal(left, right)


def test_layers_that_are_kept_in_float32_are_made_so():
    made = random_component(ModelConfig(name="wan", weights=Weights.random, architecture=SMALL_WAN), CPU)
    dtypes = {parameter.dtype for parameter in made.condition_embedder.time_embedder.parameters()}
    assert dtypes == {torch.float32}
    assert made.blocks[0].attn1.to_q.weight.dtype == torch.float16


def test_the_pipeline_on_disk_has_no_encoders_and_draws_what_the_one_in_memory_draws(tiny, tiny_component):
    model = dataclasses.replace(tiny, call={**tiny.call, "num_inference_steps": 2})
    with open_source(model).on_disk(CPU) as saved:
        absent = [name for name, part in random_pipeline(model, tiny_component).components.items() if part is None]
        assert {"vae", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer"} <= set(absent)
        pipeline = load_pipeline(saved, without=tuple(absent))
    pipelines = (pipeline, random_pipeline(model, tiny_component))
    drawn = [called(one, model)("", 4, "latent") for one in pipelines]
    assert torch.equal(*drawn)
    assert drawn[0].shape == (1, 8, 16, 16)


def test_weights_and_buffers_go_where_they_are_kept_and_are_drawn_elsewhere(tiny, monkeypatch):
    drawn_on = set()
    draw = drawn._draw

    def watched(name, shape, dtype, device):
        drawn_on.add(device)
        return draw(name, shape, dtype, device)

    monkeypatch.setattr(drawn, "_draw", watched)
    kept = random_component(tiny, CPU, keep_on=torch.device("meta"))
    assert drawn_on == {CPU}
    assert {value.device.type for value in (*kept.parameters(), *kept.buffers())} == {"meta"}
    assert len(list(kept.buffers())) > 0


def test_a_model_with_a_checkpoint_is_on_disk_as_it_is():
    model = compose("run", ["model=tiny_sd3"]).model
    with open_source(model).on_disk(CPU) as same:
        assert same is model


def fail_inside(model):
    with open_source(model).on_disk(CPU):
        raise KeyError("any")


def test_random_weights_leave_the_disk_again(tiny):
    with open_source(tiny).on_disk(CPU):
        assert len(list(cache_folder("random").iterdir())) == 1
    assert list(cache_folder("random").iterdir()) == []
    with pytest.raises(KeyError):
        fail_inside(tiny)
    assert list(cache_folder("random").iterdir()) == []


def test_conditioning_depends_on_the_seed_alone(tiny, tiny_component):
    pipeline = random_pipeline(tiny, tiny_component)
    torch.manual_seed(1)
    one = conditioning(pipeline, tiny, 7)
    torch.manual_seed(2)
    other_pipeline = random_pipeline(tiny, random_component(changed(tiny, num_layers=1), CPU))
    again, other = conditioning(other_pipeline, tiny, 7), conditioning(pipeline, tiny, 8)
    assert one.keys() == tiny.architecture.conditioning.keys()
    for name, value in one.items():
        assert list(value.shape) == tiny.architecture.conditioning[name]
        assert value.dtype == torch.float16
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


def test_embeddings_of_one_seed_differ_from_each_other(tiny, tiny_component):
    given = conditioning(random_pipeline(tiny, tiny_component), tiny, 0)
    assert not torch.equal(given["prompt_embeds"], given["negative_prompt_embeds"])


def test_the_prompt_means_nothing_to_random_weights_and_the_seed_everything(tiny, tiny_component):
    model = dataclasses.replace(tiny, call={**tiny.call, "num_inference_steps": 1})
    call = called(random_pipeline(model, tiny_component), model)
    one, same, other = call("a", 0, "latent"), call("b", 0, "latent"), call("a", 1, "latent")
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_fingerprint_changes_with_the_architecture_and_with_nothing_else(tiny):
    renamed = dataclasses.replace(tiny, name="other", path="/elsewhere", prompts=[])
    assert random.fingerprint(renamed) == random.fingerprint(tiny)
    assert random.fingerprint(changed(tiny, num_layers=5)) != random.fingerprint(tiny)


WITHOUT = ModelConfig(name="mine", path="/nowhere", weights=Weights.random)


@pytest.mark.parametrize(
    "use",
    [
        lambda: random_component(WITHOUT, CPU),
        lambda: open_source(WITHOUT),
        lambda: random.fingerprint(WITHOUT),
        lambda: random.written_to_disk(WITHOUT, CPU).__enter__(),
    ],
    ids=["component", "source", "fingerprint", "on disk"],
)
def test_a_model_without_an_architecture_is_one_line_that_says_which_have_one(use):
    with pytest.raises(ConfigError) as error:
        use()
    assert str(error.value) == (
        "model.weights='random' needs model.architecture, which model=mine has not; choose a model of conf/model/ that "
        "has it, such as sd3 or flux_dev"
    )
    assert list(cache_folder("random").iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "near"),
    [
        ("component", "SD3Transfomer2DModel", "SD3Transformer2DModel"),
        ("component", "FluxTransformerModel", "FluxTransformer2DModel"),
        ("pipeline", "StableDiffusion3Pipline", "StableDiffusion3Pipeline"),
        ("scheduler", "FlowMatchEulerScheduler", "FlowMatchEulerDiscreteScheduler"),
        ("component", "SDTransformer2DModel", "SD3Transformer2DModel"),
    ],
)
def test_an_unknown_class_is_one_line_with_the_nearest(tiny, tiny_component, field, value, near):
    model = dataclasses.replace(tiny, architecture=dataclasses.replace(tiny.architecture, **{field: value}))
    with pytest.raises(ConfigError) as error:
        random_component(model, CPU) if field == "component" else random_pipeline(model, tiny_component)
    message = str(error.value)
    assert message.startswith(f"model.architecture.{field}={value!r} is not known; choose from ")
    assert message.endswith(f"Did you mean {near!r}?")
    assert "\n" not in message


@functools.cache
def on_meta(name):
    """A model of conf/model/ and its component at true size, without a byte of weights."""
    model = model_of(name)
    with init_empty_weights(include_buffers=True):
        return model, diffusers_class(model.architecture.component, "")(**model.architecture.config)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_an_architecture_has_its_model_s_number_of_parameters(name):
    _, component = on_meta(name)
    assert round(sum(p.numel() for p in component.parameters()) / 1e9, 2) == PARAMETERS[name]


@pytest.mark.parametrize("name", [*FULL_SIZE, "tiny_sd3"])
def test_every_entry_of_every_named_skip_list_matches_a_layer(name):
    model, component = on_meta(name)
    layers = described(component)
    assert model.skips["none"] == []
    for skip in model.skips.values():
        resolution = resolve(layers, tuple(skip))
        assert bool(resolution.kept) == bool(skip)


def comments(file):
    """What a comment in conf/skips/ says of each list: its number of layers, if it does, and its share in percent."""
    found = re.findall(
        r"^(\w+): \[.+?\] *#.*?(?:(\d+) layers)?, ([\d.]+) %", (conf_dir() / "skips" / file).read_text(), re.M
    )
    return {name: (int(layers) if layers else None, share) for name, layers, share in found}


@pytest.mark.parametrize(
    ("file", "name", "total"), [("mmdit.yaml", "sd3", "2.03"), ("flux.yaml", "flux_dev", "11.9")], ids=["mmdit", "flux"]
)
def test_what_conf_skips_says_of_its_lists_is_so(file, name, total):
    model, component = on_meta(name)
    weights = {path: layer.weight.numel() for path, layer in linear_layers(component).items()}
    whole = sum(weights.values())
    header = (conf_dir() / "skips" / file).read_text()
    assert f"of the {total} B linear weights" in header
    assert f"{whole / 1e9:.{len(total.partition('.')[2])}f}" == total
    said = comments(file)
    assert said.keys() == model.skips.keys() - {"none"}
    for list_name, (layers, share) in said.items():
        kept = [path for path in weights if any(matches(entry, path) for entry in model.skips[list_name])]
        decimals = len(share.partition(".")[2])
        assert f"{100 * sum(weights[path] for path in kept) / whole:.{decimals}f}" == share, list_name
        assert layers in (None, len(kept)), list_name


def test_flux_s_proj_out_is_more_than_its_last_layer_and_the_ends_leave_it_out():
    model, component = on_meta("flux_dev")
    layers = described(component)
    proj_out = resolve(layers, tuple(model.skips["proj_out"])).kept
    assert len(proj_out) == 39
    outside = {layer.path for layer in layers if "transformer_blocks" not in layer.path}
    assert set(resolve(layers, tuple(model.skips["ends"])).kept) == outside - {"proj_out"}


def test_sd3_s_ends_are_all_that_stands_outside_the_blocks():
    model, component = on_meta("sd3")
    layers = described(component)
    outside = {layer.path for layer in layers if "transformer_blocks" not in layer.path}
    assert set(resolve(layers, tuple(model.skips["ends"])).kept) == outside


def test_every_space_names_only_skip_lists_that_every_model_has():
    folder = conf_dir()
    spaces = {file.stem: yaml.safe_load(file.read_text()).get("skip", []) for file in folder.glob("space/*.yaml")}
    models = [file.stem for file in folder.glob("model/*.yaml")]
    assert set(FULL_SIZE) < set(models)
    assert spaces["full"]
    for name in models:
        skips = compose("run", [f"model={name}"]).model.skips
        for space, named in spaces.items():
            lists = {entry.removeprefix("auto").removeprefix("+") for entry in named} - {""}
            assert lists <= skips.keys(), (name, space)


@pytest.mark.parametrize("name", [*FULL_SIZE, "tiny_sd3"])
def test_conditioning_and_call_are_arguments_of_the_pipeline(name):
    model = model_of(name)
    cls = diffusers_class(model.architecture.pipeline, "")
    known = inspect.signature(cls.__call__).parameters.keys()
    assert model.architecture.conditioning.keys() | model.call.keys() <= known


@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_thin_model_of_the_architecture_is_called_with_the_conditioning(name):
    """The pipeline's own ``__call__`` on embeddings of the true shape, with a transformer of one head and one block."""
    model = copy.deepcopy(model_of(name))
    config = model.architecture.config
    config |= {"num_layers": 1, "num_attention_heads": 1}
    for field, value in (
        ("caption_projection_dim", config["attention_head_dim"]),
        ("num_single_layers", 1),
        ("dual_attention_layers", [0]),
    ):
        if field in config:
            config[field] = value
    model.call |= {"height": 128, "width": 128, "num_inference_steps": 1}
    seen = {}

    def note(module, args, kwargs):
        seen.update(kwargs)

    component = random_component(model, CPU)
    component.register_forward_pre_hook(note, with_kwargs=True)
    latent = called(random_pipeline(model, component), model)("", 0, "latent")
    assert torch.isfinite(latent).all()
    given = model.architecture.conditioning
    guided = 2 if "negative_prompt_embeds" in given else 1
    assert list(seen["encoder_hidden_states"].shape) == [guided, *given["prompt_embeds"][1:]]
    assert list(seen["pooled_projections"].shape) == [guided, *given["pooled_prompt_embeds"][1:]]
    assert ("guidance" in seen and seen["guidance"] is not None) == (name == "flux_dev")
