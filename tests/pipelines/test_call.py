import dataclasses

import pytest
import torch
from torch import nn

from quantlab.config.compose import compose
from quantlab.errors import ConfigError
from quantlab.pipelines import tensors
from quantlab.pipelines.call import Caller, Embeddings
from quantlab.pipelines.load import load_pipeline

CPU = torch.device("cpu")


class Component(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, hidden):
        self.calls += 1
        return hidden


class Pipeline:
    """Embeds its prompt and a negative one by `encode_prompt`, then calls its component."""

    def __init__(self, negative="nothing"):
        self.transformer = Component()
        self.negative = negative
        self.embedded = []

    def encode_prompt(self, prompt, device=None):
        self.embedded.append(prompt)
        value = float(len(self.embedded))
        return torch.full((1, 2), value), None, [torch.tensor([value, float(len(prompt))])]

    def __call__(self, prompt, generator, output_type, return_dict):
        positive, none, (length,) = self.encode_prompt(prompt, device="cpu")
        negative, _, _ = self.encode_prompt(self.negative)
        assert none is None
        return (self.transformer(torch.cat([positive.flatten(), negative.flatten(), length])).tolist(),)


class WithoutEncodePrompt:
    def __init__(self):
        self.transformer = Component()

    def __call__(self, prompt, generator, output_type, return_dict):
        return (self.transformer(torch.tensor([float(len(prompt))])).tolist(),)


@pytest.fixture
def embeddings(tmp_path):
    return Embeddings(tmp_path, CPU)


def call(pipeline, embeddings, prompt):
    return Caller(pipeline, None, embeddings)(prompt, 0, "latent")


def test_a_second_call_of_a_prompt_embeds_nothing_and_gives_the_same(embeddings):
    pipeline = Pipeline()
    assert not embeddings.has("a cat")
    first = call(pipeline, embeddings, "a cat")
    assert pipeline.embedded == ["a cat", "nothing"]
    assert embeddings.has("a cat")
    assert call(pipeline, embeddings, "a cat") == first
    assert pipeline.embedded == ["a cat", "nothing"]
    assert pipeline.transformer.calls == 2


def test_embeddings_outlive_the_pipeline_and_the_object(tmp_path):
    first = call(Pipeline(), Embeddings(tmp_path, CPU), "a cat")
    other = Pipeline()
    assert call(other, Embeddings(tmp_path, CPU), "a cat") == first
    assert other.embedded == []


def test_several_embeddings_of_one_call_are_answered_in_their_order(embeddings):
    first = call(Pipeline(), embeddings, "a cat")
    assert first == [1, 1, 2, 2, 1, len("a cat")]
    assert call(Pipeline(negative="something else"), embeddings, "a cat") == first


def test_another_prompt_is_embedded_afresh(embeddings):
    pipeline = Pipeline()
    call(pipeline, embeddings, "a cat")
    assert not embeddings.has("a dog")
    assert call(pipeline, embeddings, "a dog") == [3, 3, 4, 4, 3, len("a dog")]
    assert pipeline.embedded == ["a cat", "nothing", "a dog", "nothing"]


def test_another_folder_knows_nothing(tmp_path):
    call(Pipeline(), Embeddings(tmp_path, CPU), "a cat")
    (tmp_path / "other").mkdir()
    assert not Embeddings(tmp_path / "other", CPU).has("a cat")


def test_without_embeddings_every_call_embeds(tmp_path):
    pipeline = Pipeline()
    assert call(pipeline, None, "a cat") != call(pipeline, None, "a cat")
    assert len(pipeline.embedded) == 4


def test_a_pipeline_that_embeds_more_than_it_did_is_answered_and_the_rest_embedded(embeddings):
    pipeline = Pipeline()
    with embeddings.used(pipeline, "a cat"):
        pipeline.encode_prompt("a cat")
    call(pipeline, embeddings, "a cat")
    assert pipeline.embedded == ["a cat", "nothing"]
    call(pipeline, embeddings, "a cat")
    assert pipeline.embedded == ["a cat", "nothing"]


def test_encode_prompt_is_the_pipeline_s_own_again_afterwards(embeddings):
    pipeline = Pipeline()
    call(pipeline, embeddings, "a cat")
    assert "encode_prompt" not in vars(pipeline)


def test_encode_prompt_is_the_pipeline_s_own_again_after_an_error_and_half_an_answer_is_not_kept(embeddings):
    pipeline = Pipeline()
    with pytest.raises(KeyError), embeddings.used(pipeline, "a cat"):
        raise KeyError(pipeline.encode_prompt("a cat"))
    assert "encode_prompt" not in vars(pipeline)
    assert not embeddings.has("a cat")


def test_an_encode_prompt_that_fails_leaves_the_prompt_unknown(embeddings, tmp_path):
    pipeline = Pipeline()
    pipeline.__class__ = type("Failing", (Pipeline,), {"encode_prompt": lambda self, *args, **kwargs: 1 / 0})
    with pytest.raises(ConfigError, match="Failing cannot be called with a prompt: ZeroDivisionError"):
        call(pipeline, embeddings, "a cat")
    assert not embeddings.has("a cat")
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_without_encode_prompt_is_called_as_it_is(embeddings, tmp_path):
    pipeline = WithoutEncodePrompt()
    assert call(pipeline, embeddings, "a cat") == [5]
    assert vars(pipeline).keys() == {"transformer"}
    assert not embeddings.has("a cat")
    assert list(tmp_path.iterdir()) == []


def test_embed_embeds_every_prompt_of_the_call_and_stops_before_the_component_computes(embeddings):
    pipeline = Pipeline()
    Caller(pipeline, None, embeddings).embed([pipeline.transformer], "a cat")
    assert pipeline.embedded == ["a cat", "nothing"]
    assert pipeline.transformer.calls == 0
    assert embeddings.has("a cat")
    assert call(pipeline, embeddings, "a cat") == [1, 1, 2, 2, 1, 5]
    assert pipeline.embedded == ["a cat", "nothing"]
    assert pipeline.transformer.calls == 1


def test_embed_leaves_the_component_free_to_compute_even_after_an_error(embeddings):
    pipeline = Pipeline(negative=None)
    with pytest.raises(ConfigError, match="TypeError"):
        Caller(pipeline, None, embeddings).embed([pipeline.transformer], "a dog")
    pipeline.negative = "nothing"
    assert call(pipeline, embeddings, "a cat")
    assert pipeline.transformer.calls == 1


def test_embed_of_a_pipeline_without_encode_prompt_learns_nothing_and_computes_nothing(embeddings):
    pipeline = WithoutEncodePrompt()
    Caller(pipeline, None, embeddings).embed([pipeline.transformer], "a cat")
    assert pipeline.transformer.calls == 0
    assert not embeddings.has("a cat")


def test_a_keyword_that_the_pipeline_does_not_take_is_an_error_that_names_it(embeddings):
    with pytest.raises(ConfigError, match=r"model\.call does not fit Pipeline: .*'guidnace_scale'"):
        Caller(Pipeline(), {"guidnace_scale": 3.0}, embeddings)("a cat", 0, "latent")


def test_whatever_a_pipeline_raises_for_a_call_is_one_line_that_names_the_call():
    with pytest.raises(ConfigError, match=r"Pipeline cannot be called with a prompt: TypeError: object") as error:
        Caller(Pipeline())(None, 0, "latent")
    assert isinstance(error.value.__cause__, TypeError)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"num_inference_steps": -2}, "num_inference_steps: -2"),
        ({"num_inference_steps": "abc"}, "num_inference_steps: 'abc'"),
        ({"num_inference_steps": 2, "height": 17}, "height"),
        ({"num_inference_steps": 2, "guidance_scale": "much"}, "guidance_scale: 'much'"),
    ],
)
def test_what_a_real_pipeline_refuses_at_its_first_call_is_one_line(tiny, pipeline, call, said):
    line = rf"^StableDiffusion3Pipeline cannot be called with .*{said}.*: \w+Error: [^\n]+$"
    with pytest.raises(ConfigError, match=line):
        Caller(pipeline, call)(tiny.prompts[0], 0, "latent")


@pytest.mark.parametrize("name", ["generator", "prompt", "return_dict"])
def test_what_quantlab_gives_a_pipeline_cannot_be_set(tiny, pipeline, name):
    with pytest.raises(ConfigError, match=rf"model\.call\.{name} cannot be set"):
        Caller(pipeline, {name: "x"})(tiny.prompts[0], 0, "latent")


class Choosy:
    """Takes some kinds of output alone, and draws without a generator."""

    takes = ("np", "pil")

    def __init__(self):
        self.asked = []

    def __call__(self, output_type="pil", return_dict=True):
        self.asked.append(output_type)
        if output_type not in self.takes:
            raise ValueError(f"the output type {output_type} is not supported")
        return ([torch.rand(1).item()],)


def choosy(*takes, call=None):
    pipeline = Choosy()
    pipeline.takes = takes
    return pipeline, Caller(pipeline, call, inputs=lambda pipeline, prompt, seed: {})


def test_a_pipeline_that_gives_no_latents_is_asked_for_the_next_and_never_again_for_what_it_refused():
    pipeline, caller = choosy("np", "pil")
    caller("a cat", 0, "latent")
    assert pipeline.asked == ["latent", "np"]
    caller("a cat", 0, "latent")
    assert pipeline.asked == ["latent", "np", "np"]
    pipeline, caller = choosy("pil")
    caller("a cat", 0, "np")
    assert pipeline.asked == ["np", "pil"]


def test_a_pipeline_that_takes_no_kind_of_output_is_refused_in_its_own_words():
    pipeline, caller = choosy()
    with pytest.raises(ConfigError, match="Choosy cannot be called with a prompt: ValueError: the output type pil"):
        caller("a cat", 0, "latent")
    assert pipeline.asked == ["latent", "np", "pil"]


def test_an_output_type_of_the_model_s_call_goes_before_ours():
    pipeline, caller = choosy("pt", call={"output_type": "pt"})
    caller("a cat", 0, "latent")
    assert pipeline.asked == ["pt"]


def test_a_pipeline_without_a_generator_draws_from_the_seed_and_leaves_other_draws_as_they_are():
    _, caller = choosy("np")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (caller("a cat", seed, "np") for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_a_bug_in_what_a_pipeline_calls_of_ours_shows_its_traceback(tiny, pipeline, monkeypatch):
    def hook(module, args):
        return tensors.digest(object())  # a TypeError in a line of quantlab's

    handle = pipeline.transformer.register_forward_pre_hook(hook)
    try:
        with pytest.raises(TypeError):
            Caller(pipeline, tiny.call)(tiny.prompts[0], 0, "latent")
    finally:
        handle.remove()


def deeper(hidden):
    return hidden


def test_a_keyword_that_something_deeper_does_not_take_is_no_matter_of_the_call(monkeypatch):
    pipeline = Pipeline()
    monkeypatch.setattr(pipeline.transformer, "forward", lambda hidden: deeper(hidden, no_such_keyword=1))
    with pytest.raises(ConfigError, match=r"cannot be called with a prompt: TypeError: deeper\(\) got an unexpected"):
        Caller(pipeline)("a cat", 0, "latent")


@pytest.fixture(scope="module")
def tiny():
    model = compose("run", ["model=tiny_sd3"]).model
    return dataclasses.replace(model, call={**model.call, "num_inference_steps": 2})


@pytest.fixture(scope="module")
def pipeline(tiny):
    return load_pipeline(tiny)


def test_a_call_from_known_embeddings_needs_no_text_encoder_and_gives_the_same_bits(tiny, pipeline, embeddings):
    prompt = tiny.prompts[0]
    plain = Caller(pipeline, tiny.call)(prompt, 3, "latent")
    Caller(pipeline, tiny.call, embeddings).embed([pipeline.transformer], prompt)
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    bare = Caller(load_pipeline(tiny, {"transformer": pipeline.transformer}, without=encoders), tiny.call, embeddings)
    assert all(getattr(bare.pipeline, name) is None for name in encoders)
    assert bare.pipeline.transformer is pipeline.transformer
    assert torch.equal(bare(prompt, 3, "latent"), plain)
    assert not torch.equal(bare(prompt, 4, "latent"), plain)
    with pytest.raises(ConfigError, match="'NoneType' object is not callable"):
        bare(tiny.prompts[1], 3, "latent")


def test_what_is_kept_is_what_encode_prompt_gave(tiny, pipeline, embeddings, tmp_path):
    Caller(pipeline, tiny.call, embeddings).embed([pipeline.transformer], tiny.prompts[0])
    (file,) = tmp_path.iterdir()
    (kept,) = tensors.load(file, CPU)
    with torch.no_grad():
        given = pipeline.encode_prompt(tiny.prompts[0], None, None, max_sequence_length=32, device=CPU)
    assert len(kept) == len(given) == 4
    for left, right in zip(kept, given, strict=True):
        assert left.dtype == right.dtype == torch.float16
        assert torch.equal(left, right)


def test_steps_are_those_of_the_call_else_the_scheduler_s_else_the_calls_counted(tiny, pipeline):
    assert Caller(pipeline, tiny.call).steps(7) == 2
    assert Caller(WithoutEncodePrompt()).steps(7) == 7
    scheduled = WithoutEncodePrompt()
    scheduled.num_timesteps = 28
    assert Caller(scheduled).steps(7) == 28
