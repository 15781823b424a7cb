from __future__ import annotations

import itertools
import math

import optuna
import pytest
from fakes import MODEL, small_space
from hypothesis import given
from hypothesis import strategies as st

from quantlab.compose import compose
from quantlab.config import ModelConfig, SpaceConfig
from quantlab.errors import ConfigError
from quantlab.search.space import Space
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.study.anchors import anchors


def make(**changes: object) -> Space:
    return Space(small_space(**changes), MODEL.skips)


def drawn(space: Space, seed: int = 0, count: int = 1) -> list[dict[str, object]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


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
    space = Space(config, MODEL.skips)
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
    keys = [space.spec(params).key for params in space.grid()]
    assert len(keys) == len(set(keys)) == space.size()
    assert set(keys) == {spec.key for spec in expected}


@given(configs)
def test_parameters_of_a_spec_of_the_space_stand_for_it(config: SpaceConfig) -> None:
    space = Space(config, MODEL.skips)
    for cell in space.grid():
        spec = space.spec(cell)
        params = space.params(spec)
        assert params is not None
        assert space.spec(params) == spec
        assert list(params) == list(space.distributions)


@given(st.integers(0, 1000))
def test_parameters_that_optuna_draws_stand_for_a_spec_that_stands_for_them(seed: int) -> None:
    space = make(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])
    (params,) = drawn(space, seed)
    spec = space.spec(params)
    back = space.params(spec)
    assert back is not None
    assert space.spec(back) == spec


def test_the_shipped_grid_has_140_settings() -> None:
    config = compose("sweep", ["sweeps=grid"])
    assert len(Space(config.space, config.model.skips).grid()) == 8 * 7 + 2 * 2 * 3 * 7 == 140


def test_every_trial_carries_every_parameter() -> None:
    space = make()
    assert all(list(params) == list(space.distributions) for params in drawn(space, count=10))


def test_two_names_of_one_skip_list_are_one_setting() -> None:
    space = Space(small_space(skip=["none", "empty"]), {"none": [], "empty": []})
    assert space.size() == 7


def test_anchors_inside_have_parameters_and_those_outside_have_none() -> None:
    inside = {spec.key for spec in anchors(MODEL) if make().params(spec) is not None}
    assert inside == {spec.key for spec in anchors(MODEL)} - {"reference"}
    narrow = make(method=["llm_int8"], llm_int8_threshold=[6], skip=["none"])
    assert [spec for spec in anchors(MODEL) if narrow.params(spec) is not None] == [Int8Spec(6.0)]
    only_attn = make(skip=["attn"])
    assert [spec for spec in anchors(MODEL) if only_attn.params(spec) is not None] == []


def test_anchors_are_the_six_that_the_documentation_names() -> None:
    from quantlab.config import Dtype

    assert anchors(ModelConfig(dtype=Dtype.bfloat16)) == [
        ReferenceSpec(),
        Int8Spec(6.0),
        Int8Spec(0.0),
        Int4Spec("nf4", compute_dtype="bfloat16"),
        Int4Spec("nf4", double_quant=True, compute_dtype="bfloat16"),
        Int4Spec("fp4", compute_dtype="bfloat16"),
    ]


def test_a_continuous_threshold_keeps_zero_as_a_choice_of_its_own() -> None:
    space = make(method=["llm_int8"], llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12], skip=["none"])
    assert space.size() == math.inf
    thresholds = [space.spec(params).threshold for params in drawn(space, count=200)]
    assert 0.25 < sum(t == 0 for t in thresholds) / len(thresholds) < 0.75
    assert all(t == 0 or 0.5 <= t <= 12 for t in thresholds)
    assert len(set(thresholds)) > 50
    zero = space.params(Int8Spec(0.0))
    assert zero is not None
    assert space.spec(zero) == Int8Spec(0.0)
    assert space.params(Int8Spec(0.25)) is None
    assert space.params(Int8Spec(12.0)) is not None


def test_a_continuous_threshold_without_zero_never_draws_it() -> None:
    space = make(method=["llm_int8"], llm_int8_threshold=[], llm_int8_threshold_range=[0.5, 12], skip=["none"])
    assert all(space.spec(params).threshold > 0 for params in drawn(space, count=50))
    assert space.params(Int8Spec(0.0)) is None


def test_a_continuous_space_has_no_grid() -> None:
    space = make(llm_int8_threshold=[0], llm_int8_threshold_range=[0.5, 12])
    with pytest.raises(ConfigError, match=r"search.sampler='grid'.*space.llm_int8_threshold_range"):
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
