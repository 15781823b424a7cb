from __future__ import annotations

import itertools
import math

import optuna
import pytest
from fakes import COMPONENT, MODEL, pipeline, small_space
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config import Dtype, ModelConfig, SpaceConfig
from quantlab.config.compose import compose
from quantlab.errors import ConfigError
from quantlab.search.space import Params, Space
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec
from quantlab.study.baselines import baselines


def make(**changes: object) -> Space:
    return Space(small_space(**changes), MODEL)


def drawn(space: Space, seed: int = 0, count: int = 1) -> list[Params]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def spec_of(space: Space, params: Params) -> QuantSpec:
    return space.setting(params).spec[COMPONENT]


def int8_of(space: Space, params: Params) -> Int8Spec:
    spec = spec_of(space, params)
    assert isinstance(spec, Int8Spec)
    return spec


configs = st.builds(
    small_space,
    method=st.sampled_from([["llm_int8"], ["bnb_4bit"], ["bnb_4bit", "llm_int8"]]),
    llm_int8_threshold=st.lists(st.sampled_from([0.0, 1.0, 2.5, 6.0]), min_size=1),
    llm_int8_has_fp16_weight=st.lists(st.booleans(), min_size=1),
    bnb_4bit_quant_type=st.lists(st.sampled_from(["nf4", "fp4"]), min_size=1),
    bnb_4bit_use_double_quant=st.lists(st.booleans(), min_size=1),
    bnb_4bit_compute_dtype=st.lists(st.sampled_from(["float16", "float32"]), min_size=1),
    skip=st.lists(st.sampled_from(["none", "attn", "ff"]), min_size=1),
)


@given(configs)
def test_the_grid_is_the_conditional_product_with_nothing_twice(config: SpaceConfig) -> None:
    space = Space(config, MODEL)
    skips = [tuple(MODEL.skips[name]) for name in config.skip]
    int8 = itertools.product(config.llm_int8_threshold, skips, config.llm_int8_has_fp16_weight)
    int4 = itertools.product(
        config.bnb_4bit_quant_type,
        config.bnb_4bit_use_double_quant,
        config.bnb_4bit_compute_dtype,
        skips,
        config.bnb_4bit_quant_storage,
    )
    expected = {Int8Spec(*values) for values in int8} if "llm_int8" in config.method else set()
    if "bnb_4bit" in config.method:
        expected |= {Int4Spec(*values) for values in int4}
    specs = [spec_of(space, params) for params in space.grid()]
    assert len(specs) == len(set(specs)) == space.size()
    assert set(specs) == expected


@given(configs)
def test_parameters_of_a_spec_of_the_space_stand_for_it(config: SpaceConfig) -> None:
    space = Space(config, MODEL)
    for cell in space.grid():
        spec = space.setting(cell).spec
        params = space.params(spec)
        assert params is not None
        assert space.setting(params).spec == spec
        assert list(params) == list(space.distributions)


@given(st.integers(0, 1000))
def test_parameters_that_optuna_draws_stand_for_a_spec_that_stands_for_them(seed: int) -> None:
    space = make(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])
    (params,) = drawn(space, seed)
    spec = space.setting(params).spec
    back = space.params(spec)
    assert back is not None
    assert space.setting(back).spec == spec


@pytest.mark.parametrize(
    ("overrides", "count"),
    [(["sweeps=grid"], 8 * 7 + 2 * 2 * 3 * 7), ([], 8 * 3 + 2 * 2 * 2 * 3), (["space=threshold"], 8)],
    ids=["grid", "default", "threshold"],
)
def test_the_shipped_spaces_have_as_many_settings_as_they_say(overrides: list[str], count: int) -> None:
    config = compose("sweep", overrides)
    space = Space(config.space, config.model)
    assert len(space.grid()) == space.size() == count


def test_every_trial_carries_every_parameter() -> None:
    space = make()
    assert all(list(params) == list(space.distributions) for params in drawn(space, count=10))
    assert list(space.distributions)[:2] == ["transformer.method", "transformer.llm_int8_threshold"]


def test_two_names_of_one_skip_list_are_one_setting() -> None:
    space = Space(small_space(skip=["none", "empty"]), ModelConfig(name="fake", skips={"none": [], "empty": []}))
    assert space.size() == 7


def test_baselines_inside_have_parameters_and_those_outside_have_none() -> None:
    specs = [setting.spec for setting in baselines(MODEL)]
    assert [spec for spec in specs if make().params(spec) is None] == [PipelineSpec.reference((COMPONENT,))]
    narrow = make(method=["llm_int8"], llm_int8_threshold=[6], skip=["none"])
    assert [spec for spec in specs if narrow.params(spec) is not None] == [pipeline(Int8Spec(6.0))]
    only_attn = make(skip=["attn"])
    assert [spec for spec in specs if only_attn.params(spec) is not None] == []


def test_a_baseline_of_the_space_is_called_the_same_by_both() -> None:
    space = make(skip=["none"])
    names = {space.setting(params).spec: space.setting(params).name for params in space.grid()}
    shared = [setting for setting in baselines(MODEL) if setting.spec in names]
    assert len(shared) == 5
    assert all(names[setting.spec] == setting.name for setting in shared)


def test_a_continuous_threshold_keeps_zero_as_a_choice_of_its_own() -> None:
    space = make(method=["llm_int8"], llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12], skip=["none"])
    assert space.size() == math.inf
    thresholds = [int8_of(space, params).threshold for params in drawn(space, count=200)]
    assert 0.25 < sum(t == 0 for t in thresholds) / len(thresholds) < 0.75
    assert all(t == 0 or 0.5 <= t <= 12 for t in thresholds)
    assert len(set(thresholds)) > 50
    zero = space.params(pipeline(Int8Spec(0.0)))
    assert zero is not None
    assert spec_of(space, zero) == Int8Spec(0.0)
    assert space.params(pipeline(Int8Spec(0.25))) is None
    assert space.params(pipeline(Int8Spec(12.0))) is not None


def test_a_continuous_threshold_without_zero_never_draws_it() -> None:
    space = make(method=["llm_int8"], llm_int8_threshold=[], llm_int8_threshold_range=[0.5, 12], skip=["none"])
    assert all(int8_of(space, params).threshold > 0 for params in drawn(space, count=50))
    assert space.params(pipeline(Int8Spec(0.0))) is None


def test_a_continuous_space_has_no_grid() -> None:
    space = make(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])
    with pytest.raises(ConfigError, match=r"^sampler\.name='grid'.*space\.llm_int8_threshold_range"):
        space.grid()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": []}, r"space\.method=\[\] is empty"),
        ({"skip": []}, r"space\.skip=\[\] is empty"),
        ({"llm_int8_threshold": []}, r"space\.llm_int8_threshold=\[\] is empty"),
        ({"bnb_4bit_quant_type": []}, r"space\.bnb_4bit_quant_type=\[\] is empty"),
        ({"bnb_4bit_use_double_quant": []}, r"space\.bnb_4bit_use_double_quant=\[\] is empty"),
        ({"llm_int8_has_fp16_weight": []}, r"space\.llm_int8_has_fp16_weight=\[\] is empty"),
        ({"method": ["llm_int9"]}, r"space\.method='llm_int9'.*Did you mean 'llm_int8'"),
        ({"method": ["reference"]}, r"space\.method='reference'"),
        ({"skip": ["atn"]}, r"space\.skip='atn'.*none, attn, ff.*Did you mean 'attn'"),
        ({"llm_int8_threshold": [-1.0]}, r"llm_int8_threshold=-1\.0"),
        ({"llm_int8_threshold": [float("nan")]}, r"llm_int8_threshold=nan"),
        ({"bnb_4bit_quant_type": ["nf4", "nf5"]}, r"bnb_4bit_quant_type='nf5'"),
        ({"bnb_4bit_compute_dtype": ["half"]}, r"bnb_4bit_compute_dtype='half'"),
        ({"bnb_4bit_quant_storage": ["int3"]}, r"bnb_4bit_quant_storage='int3'"),
    ],
)
def test_an_empty_space_or_a_value_that_no_spec_accepts_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(**changes)


def test_lists_of_a_method_that_is_not_tried_may_be_empty() -> None:
    space = make(method=["llm_int8"], bnb_4bit_quant_type=[], bnb_4bit_compute_dtype=[])
    assert space.size() == 6


@pytest.mark.parametrize("bounds", [[1.0], [0.0, 5.0], [-1.0, 5.0], [5.0, 5.0], [6.0, 1.0], [1.0, math.inf], [1, 2, 3]])
def test_a_range_must_have_two_ends_above_zero(bounds: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"space\.llm_int8_threshold_range=\["):
        make(llm_int8_threshold=[0], llm_int8_threshold_range=bounds)


def test_a_range_beside_a_list_of_other_thresholds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"space\.llm_int8_threshold=\[0, 3, 6\] must be \[0\] or \[\]"):
        make(llm_int8_threshold_range=[0.5, 12])


def test_a_space_with_other_choices_has_another_identity() -> None:
    assert make().identity() == make().identity()
    assert make().identity() != make(skip=["none", "ff"]).identity()
    assert "['attn']" in make().identity()["space.skip"]


# Names


def test_a_setting_has_a_short_name_with_its_list_s_own() -> None:
    space = Space(
        small_space(bnb_4bit_compute_dtype=["float16", "float32"], llm_int8_has_fp16_weight=[False, True]), MODEL
    )
    names = [space.setting(params).name for params in space.grid()]
    assert len(set(names)) == len(names) == space.size()
    assert {"int8 t=6", "int8 t=3, skip attn", "int8 t=0 fp16_weight", "nf4", "fp4 double_quant, skip attn"} <= set(
        names
    )
    assert "nf4 compute=float32" in names


def test_the_model_s_own_dtype_is_left_out_of_a_name() -> None:
    model = ModelConfig(name="fake", dtype=Dtype.bfloat16, skips=MODEL.skips)
    space = Space(small_space(method=["bnb_4bit"], bnb_4bit_compute_dtype=["float16", "bfloat16"]), model)
    names = {spec_of(space, params): space.setting(params).name for params in space.grid()}
    assert names[Int4Spec(compute_dtype="bfloat16")] == "nf4"
    assert names[Int4Spec()] == "nf4 compute=float16"


# Several components

BOTH = ModelConfig(name="fake", components=["transformer", "text_encoder"], skips=MODEL.skips)


def both(**changes: object) -> Space:
    return Space(small_space(**{"method": ["llm_int8"], **changes}), BOTH)


def test_the_space_of_two_components_is_the_product_of_theirs() -> None:
    space, alone = both(), make(method=["llm_int8"])
    specs = [space.setting(params).spec for params in space.grid()]
    assert len(specs) == len(set(specs)) == space.size() == alone.size() ** 2 == 36
    own = [spec_of(alone, params) for params in alone.grid()]
    assert specs == [PipelineSpec({"transformer": a, "text_encoder": b}) for a in own for b in own]


def test_parameters_of_two_components_carry_the_component_s_name() -> None:
    space = both()
    assert {"transformer.skip", "text_encoder.skip"} < set(space.distributions)
    (params,) = drawn(space)
    assert list(params) == list(space.distributions)
    own = space.own_params("text_encoder", params)
    assert own["skip"] == params["text_encoder.skip"]
    assert space.joined({name: space.own_params(name, params) for name in BOTH.components}) == params


@given(st.integers(0, 1000))
def test_parameters_of_two_components_stand_for_a_setting_that_stands_for_them(seed: int) -> None:
    space = both(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])
    assert space.is_continuous
    (params,) = drawn(space, seed)
    spec = space.setting(params).spec
    assert set(spec) == set(BOTH.components)
    back = space.params(spec)
    assert back is not None
    assert space.setting(back).spec == spec


def test_a_setting_of_other_components_has_no_parameters() -> None:
    assert both().params(pipeline(Int8Spec(6.0))) is None
    spec = PipelineSpec({"transformer": Int8Spec(6.0), "text_encoder": Int8Spec(6.0)})
    assert both().params(spec) is not None
    assert make().params(spec) is None


def test_a_setting_of_two_components_names_both() -> None:
    space = both(llm_int8_threshold=[6], skip=["attn", "none"])
    names = [space.setting(params).name for params in space.grid()]
    assert "text_encoder int8 t=6 | transformer int8 t=6, skip attn" in names
    assert len(set(names)) == len(names) == 4


def test_a_model_without_components_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^component=\[\] is empty"):
        Space(small_space(), ModelConfig(name="fake", components=[], skips=MODEL.skips))
