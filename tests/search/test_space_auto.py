"""A space whose skip lists layer sensitivities find: ``auto`` and ``auto+NAME``, with a list or a range of shares."""

from __future__ import annotations

import math

import optuna
import pytest
from fakes import COMPONENT, pipeline, sensitivities, small_space
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config import ModelConfig, SpaceConfig
from quantlab.errors import ConfigError
from quantlab.search.space import Params, Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.sensitivity.minimal_skip_list import kept_by
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec

MODEL = ModelConfig(name="fake", skips={"none": [], "attn": ["attn"], "last": ["blocks.3.ff"]})
LAYERS = [f"blocks.{index}.{part}" for index in range(4) for part in ("attn", "ff")]
SIZES = [100, 400] * 4
ERRORS: dict[QuantSpec, list[float | None]] = {
    Int8Spec(6.0): [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    Int8Spec(0.0): [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5],
    Int4Spec(): [90.0, 20.0, 30.0, 80.0, 10.0, 60.0, 50.0, 70.0],
    Int4Spec("fp4"): [20.0, 90.0, 80.0, 30.0, 60.0, 10.0, 70.0, 50.0],
}
TABLE = sensitivities(ERRORS, SIZES, LAYERS, ["all"] * 8)
AUTO = {COMPONENT: AutoSkip(TABLE)}


def auto_space(**changes: object) -> SpaceConfig:
    return small_space(**{"skip": ["none", "auto", "auto+last"], "skip_share": [0.05, 0.1, 0.3], **changes})


def make(**changes: object) -> Space:
    return Space(auto_space(**changes), MODEL, AUTO)


def drawn(space: Space, count: int) -> list[Params]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def spec_of(space: Space, params: Params) -> QuantSpec:
    return space.setting(params).spec[COMPONENT]


SKIP, SHARE = f"{COMPONENT}.skip", f"{COMPONENT}.skip_share"


def kept_weights(skip: tuple[str, ...], besides: tuple[str, ...] = ()) -> int:
    kept = kept_by(TABLE.layers, skip) - kept_by(TABLE.layers, besides)
    return sum(size for layer, size in zip(LAYERS, SIZES, strict=True) if layer in kept)


def test_auto_keeps_the_layers_with_most_error_for_their_weights_under_the_setting_itself() -> None:
    space = make(skip=["auto"], skip_share=[0.1], llm_int8_threshold=[0, 6])
    specs = [spec_of(space, params) for params in space.grid()]
    skips = {spec.with_skip(()): spec.skip for spec in specs}
    assert skips[Int8Spec(6.0)] == ("blocks.2.attn", "blocks.3.attn")
    assert skips[Int8Spec(0.0)] == ("blocks.0.attn", "blocks.1.attn")
    assert skips[Int4Spec()] == skips[Int4Spec(double_quant=True)] == ("blocks.0.attn", "blocks.3.attn")


def test_auto_on_top_of_a_named_list_keeps_the_list_beside_the_share() -> None:
    space = make(skip=["auto+last"], skip_share=[0.05, 0.1])
    for params in space.grid():
        spec = spec_of(space, params)
        assert kept_by(TABLE.layers, spec.skip) > {"blocks.3.ff"}
        assert kept_weights(spec.skip, ("blocks.3.ff",)) == params[SHARE] * sum(SIZES)


SPACE = make()


@given(st.sampled_from(list(SPACE.points(2))))
def test_a_share_is_never_exceeded_and_parameters_stand_for_what_they_stand_for(params: Params) -> None:
    space, spec = SPACE, spec_of(SPACE, params)
    named = ("blocks.3.ff",) if params[SKIP] == "auto+last" else ()
    if params[SKIP] != "none":
        assert kept_weights(spec.skip, named) <= params[SHARE] * sum(SIZES)
    bare, kept = space.components[COMPONENT].bare_and_kept(space.own_params(COMPONENT, params))
    assert bare == spec.with_skip(())
    assert {layer for layer, k in zip(LAYERS, kept, strict=True) if k} == kept_by(TABLE.layers, spec.skip)
    back = space.params(pipeline(spec))
    assert back is not None
    assert list(back) == list(space.distributions)
    assert spec_of(space, back) == spec


def test_a_setting_that_several_shares_stand_for_is_in_the_grid_once() -> None:
    space = make(skip=["none", "auto"], skip_share=[0.0, 0.01, 0.05])
    specs = [spec_of(space, params) for params in space.grid()]
    assert len(specs) == len(set(specs)) == space.size()
    assert space.size() == 7 * 2  # shares too small for any layer are the list "none"


def test_a_share_does_not_act_on_named_lists() -> None:
    shares = [params[SHARE] for params in make().points(3) if params[SKIP] == "none"]
    assert set(shares) == {0.05}
    assert len(shares) == 7


def test_a_range_of_shares_is_continuous_between_its_ends() -> None:
    space = make(skip_share=[], skip_share_range=[0.0, 0.4])
    assert space.is_continuous
    assert space.size() == math.inf
    shares = [params[SHARE] for params in drawn(space, 200) if params[SKIP] != "none"]
    assert all(0 <= share <= 0.4 for share in shares)
    assert len(set(shares)) > 50
    with pytest.raises(ConfigError, match=r"sampler\.name='grid'.*space\.skip_share_range is continuous"):
        space.grid()


def test_under_a_range_only_named_lists_have_parameters() -> None:
    space = make(skip=["none", "last", "auto"], skip_share=[], skip_share_range=[0.0, 0.4])
    for skip in ((), ("blocks.3.ff",)):
        params = space.params(pipeline(Int4Spec(skip=skip)))
        assert params is not None
        assert spec_of(space, params) == Int4Spec(skip=skip)
    assert space.params(pipeline(Int4Spec(skip=("blocks.0.attn",)))) is None


@pytest.mark.parametrize("per_range", [2, 5])
def test_points_are_all_over_the_space_and_hold_both_ends_of_a_range(per_range: int) -> None:
    space = make(skip=["none", "auto"], skip_share=[], skip_share_range=[0.1, 0.4])
    points = list(space.points(per_range))
    assert len(points) == 7 + 7 * per_range
    assert all(list(params) == list(space.distributions) for params in points)
    shares = sorted({params[SHARE] for params in points if params[SKIP] == "auto"})
    assert len(shares) == per_range
    assert (shares[0], shares[-1]) == (0.1, 0.4)
    assert all(isinstance(spec_of(space, params), Int8Spec | Int4Spec) for params in points)


def test_shares_that_differ_in_the_fifth_digit_are_one_setting() -> None:
    space = make(skip=["auto"], skip_share=[], skip_share_range=[0.0, 0.4])
    (params,) = drawn(space, 1)
    assert spec_of(space, {**params, SHARE: 0.30001}) == spec_of(space, {**params, SHARE: 0.3})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"skip_share": [0.1, 1.0]}, r"space\.skip_share=\[0\.1, 1\.0\] must be shares"),
        ({"skip_share": [-0.1]}, r"space\.skip_share=\[-0\.1\] must be shares"),
        ({"skip_share": [math.nan]}, r"space\.skip_share=\[nan\] must be shares"),
        ({"skip_share": []}, r"space\.skip_share=\[\] is empty"),
        ({"skip_share": [], "skip_share_range": [0.1, 1.0]}, r"=\[0\.1, 1\.0\] must be shares"),
        ({"skip_share": [], "skip_share_range": [0.4, 0.1]}, r"space\.skip_share_range=\[0\.4, 0\.1\] must be"),
        ({"skip_share": [], "skip_share_range": [0.1]}, r"space\.skip_share_range=\[0\.1\] must be \[LOW, HIGH\]"),
        ({"skip_share_range": [0.1, 0.2]}, r"space\.skip_share must be empty"),
        ({"skip": ["auto+lst"]}, r"space\.skip='auto\+lst'.*Did you mean 'auto\+last'"),
        ({"skip": ["aut"]}, r"space\.skip='aut'.*Did you mean 'auto'"),
        ({"skip": ["auto+"]}, r"space\.skip='auto\+' is not known"),
        ({"skip": ["auto+auto"]}, r"space\.skip='auto\+auto' is not known"),
    ],
)
def test_shares_and_names_that_cannot_be_meant_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(**changes)


def test_a_list_that_is_called_as_an_automatic_one_is_refused() -> None:
    for name in ("auto", "auto+attn"):
        model = ModelConfig(name="fake", skips={**MODEL.skips, name: ["attn"]})
        with pytest.raises(ConfigError, match=rf"model\.skips\.{name.replace('+', '.')} must have another name"):
            Space(small_space(skip=["none"]), model)


def test_a_space_knows_whether_it_needs_layer_sensitivities_before_it_has_any() -> None:
    bare = Space(auto_space(), MODEL)
    assert bare.needs_sensitivities
    assert not Space(small_space(skip=["none"]), MODEL).needs_sensitivities
    space = bare.with_auto(AUTO)
    assert space.needs_sensitivities
    assert [space.setting(params) for params in space.grid()] == [make().setting(p) for p in make().grid()]
    with pytest.raises(AssertionError, match="needs layer sensitivities"):
        bare.setting(next(params for params in bare.points(2) if params[SKIP] == "auto"))


def test_the_identity_names_the_sensitivities_that_lists_come_from_and_the_shares() -> None:
    found = make().identity()
    assert found["space.sensitivities.transformer"] == TABLE.fingerprint
    assert found["space.skip_share"] == "[0.05, 0.1, 0.3]"
    assert "auto+last=['blocks.3.ff']" in found["space.skip"]
    other = sensitivities({**ERRORS, Int4Spec(): [1.0] * 8}, SIZES, LAYERS, ["all"] * 8)
    assert Space(auto_space(), MODEL, {COMPONENT: AutoSkip(other)}).identity() != found
    ranged = make(skip_share=[], skip_share_range=[0.0, 0.4]).identity()
    assert ranged["space.skip_share"] == "from 0 to 0.4"
    named = Space(small_space(skip=["none"]), MODEL, AUTO).identity()
    assert "space.sensitivities.transformer" not in named


def test_the_named_lists_of_a_space_are_those_that_its_choices_take() -> None:
    assert make().named_lists() == {"none": (), "auto": (), "auto+last": ("blocks.3.ff",)}


# Names


def names(space: Space) -> set[str]:
    return {space.setting(params).name for params in space.grid()}


def test_an_automatic_list_is_called_by_its_share_and_its_number_of_layers() -> None:
    space = make(method=["bnb_4bit"], bnb_4bit_use_double_quant=[False], bnb_4bit_quant_type=["nf4"])
    assert names(space) == {
        "nf4",
        "nf4, skip auto 5 % (1 layer)",
        "nf4, skip auto 10 % (2 layers)",
        "nf4, skip auto 30 % (3 layers)",
        "nf4, skip last + auto 5 % (2 layers)",
        "nf4, skip last + auto 10 % (3 layers)",
        "nf4, skip last + auto 30 % (4 layers)",
    }


def test_an_automatic_list_that_adds_no_layer_is_called_as_what_it_adds_to() -> None:
    changes = {"method": ["llm_int8"], "llm_int8_threshold": [6], "skip_share": [0.0]}
    assert names(make(skip=["auto", "auto+last"], **changes)) == {"int8 t=6", "int8 t=6, skip last"}
    assert names(make(skip=["auto+none"], **(changes | {"skip_share": [0.05]}))) == {
        "int8 t=6, skip auto 5 % (1 layer)"
    }


# Several components


def test_every_component_has_the_lists_of_its_own_sensitivities() -> None:
    model = ModelConfig(name="fake", components=["transformer", "text_encoder"], skips=MODEL.skips)
    swapped = sensitivities({spec: errors[::-1] for spec, errors in ERRORS.items()}, SIZES, LAYERS, ["all"] * 8)
    auto = {"transformer": AutoSkip(TABLE), "text_encoder": AutoSkip(swapped)}
    space = Space(auto_space(method=["llm_int8"], llm_int8_threshold=[6], skip=["auto"], skip_share=[0.1]), model, auto)
    (params,) = space.grid()
    assert space.setting(params).spec == PipelineSpec(
        {
            "transformer": Int8Spec(6.0, ("blocks.2.attn", "blocks.3.attn")),
            "text_encoder": Int8Spec(6.0, ("blocks.0.attn", "blocks.1.attn")),
        }
    )
    found = space.identity()
    assert found["space.sensitivities.transformer"] == TABLE.fingerprint
    assert found["space.sensitivities.text_encoder"] == swapped.fingerprint
