"""A space whose skip lists a profile finds: ``skip=auto`` and ``auto+NAME``, with a list or a range of shares."""

from __future__ import annotations

import math

import optuna
import pytest
from fakes import fake_profile, small_space
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config import SpaceConfig
from quantlab.errors import ConfigError
from quantlab.profile.auto import AutoSkip
from quantlab.profile.keys import kept_by
from quantlab.search.space import Space
from quantlab.spec import Int4Spec, Int8Spec

SKIPS = {"none": [], "attn": ["attn"], "last": ["blocks.3.ff"]}
LAYERS = [f"blocks.{index}.{part}" for index in range(4) for part in ("attn", "ff")]
SIZES = [100, 400] * 4
ERRORS = {
    Int8Spec(6.0).key: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    Int8Spec(0.0).key: [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5],
    Int4Spec().key: [90.0, 20.0, 30.0, 80.0, 10.0, 60.0, 50.0, 70.0],
    Int4Spec("fp4").key: [20.0, 90.0, 80.0, 30.0, 60.0, 10.0, 70.0, 50.0],
}
PROFILE = fake_profile(ERRORS, SIZES, LAYERS, ["all"] * 8)


def auto_space(**changes: object) -> SpaceConfig:
    return small_space(**{"skip": ["none", "auto", "auto+last"], "skip_share": [0.05, 0.1, 0.3], **changes})


def make(**changes: object) -> Space:
    return Space(auto_space(**changes), SKIPS, AutoSkip(PROFILE))


def drawn(space: Space, count: int) -> list[dict[str, object]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def kept_weights(skip: tuple[str, ...], besides: tuple[str, ...] = ()) -> int:
    kept = kept_by(PROFILE.layers, skip) - kept_by(PROFILE.layers, besides)
    return sum(size for layer, size in zip(LAYERS, SIZES, strict=True) if layer in kept)


def test_auto_keeps_the_layers_with_most_error_for_their_weights_under_the_form_itself() -> None:
    space = make(skip=["auto"], skip_share=[0.1], llm_int8_threshold=[0, 6])
    skips = {space.spec(params).key.partition(" skip=")[0]: space.spec(params).skip for params in space.grid()}
    assert skips[Int8Spec(6.0).key] == ("blocks.2.attn", "blocks.3.attn")
    assert skips[Int8Spec(0.0).key] == ("blocks.0.attn", "blocks.1.attn")
    assert skips[Int4Spec().key] == skips[Int4Spec(double_quant=True).key] == ("blocks.0.attn", "blocks.3.attn")


def test_auto_on_top_of_a_named_list_keeps_the_list_beside_the_share() -> None:
    space = make(skip=["auto+last"], skip_share=[0.05, 0.1])
    for params in space.grid():
        spec = space.spec(params)
        assert kept_by(PROFILE.layers, spec.skip) > {"blocks.3.ff"}
        assert kept_weights(spec.skip, ("blocks.3.ff",)) == params["skip_share"] * sum(SIZES)


SPACE = make()


@given(st.sampled_from(list(SPACE.points(2))))
def test_a_share_is_never_exceeded_and_parameters_stand_for_what_they_stand_for(params: dict[str, object]) -> None:
    space, spec = SPACE, SPACE.spec(params)
    named = ("blocks.3.ff",) if params["skip"] == "auto+last" else ()
    if params["skip"] != "none":
        assert kept_weights(spec.skip, named) <= params["skip_share"] * sum(SIZES)
    form, kept = space.form_and_kept(params)
    assert form.skip == ()
    assert {layer for layer, k in zip(LAYERS, kept, strict=True) if k} == kept_by(PROFILE.layers, spec.skip)
    back = space.params(spec)
    assert back is not None
    assert list(back) == list(space.distributions)
    assert space.spec(back) == spec


def test_a_setting_that_several_shares_stand_for_is_in_the_grid_once() -> None:
    space = make(skip=["none", "auto"], skip_share=[0.0, 0.01, 0.05])
    keys = [space.spec(params).key for params in space.grid()]
    assert len(keys) == len(set(keys)) == space.size()
    assert space.size() == 7 * 2  # shares too small for any layer are the list "none"


def test_a_share_does_not_act_on_named_lists() -> None:
    shares = [params["skip_share"] for params in make().points(3) if params["skip"] == "none"]
    assert set(shares) == {0.05}
    assert len(shares) == 7


def test_a_range_of_shares_is_continuous_between_its_ends() -> None:
    space = make(skip_share=[], skip_share_range=[0.0, 0.4])
    assert space.is_continuous
    assert space.size() == math.inf
    shares = [params["skip_share"] for params in drawn(space, 200) if params["skip"] != "none"]
    assert all(0 <= share <= 0.4 for share in shares)
    assert len(set(shares)) > 50
    with pytest.raises(ConfigError, match=r"search\.sampler='grid'.*space\.skip_share_range is continuous"):
        space.grid()


def test_under_a_range_only_named_lists_have_parameters() -> None:
    space = make(skip=["none", "last", "auto"], skip_share=[], skip_share_range=[0.0, 0.4])
    for skip in ((), ("blocks.3.ff",)):
        params = space.params(Int4Spec(skip=skip))
        assert params is not None
        assert space.spec(params) == Int4Spec(skip=skip)
    assert space.params(Int4Spec(skip=("blocks.0.attn",))) is None


@pytest.mark.parametrize("per_range", [2, 5])
def test_points_are_all_over_the_space_and_hold_both_ends_of_a_range(per_range: int) -> None:
    space = make(skip=["none", "auto"], skip_share=[], skip_share_range=[0.1, 0.4])
    points = list(space.points(per_range))
    assert len(points) == 7 + 7 * per_range
    assert all(list(params) == list(space.distributions) for params in points)
    shares = sorted({params["skip_share"] for params in points if params["skip"] == "auto"})
    assert len(shares) == per_range
    assert (shares[0], shares[-1]) == (0.1, 0.4)
    for params in points:
        space.spec(params)


def test_shares_that_differ_in_the_fifth_digit_are_one_setting() -> None:
    space = make(skip=["auto"], skip_share=[], skip_share_range=[0.0, 0.4])
    (params,) = drawn(space, 1)
    assert space.spec({**params, "skip_share": 0.30001}) == space.spec({**params, "skip_share": 0.3})


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
        ({"skip_share_range": [0.1, 0.2]}, r"space\.skip_share empty beside it"),
        ({"skip": ["auto+lst"]}, r"space\.skip='auto\+lst'.*Did you mean 'auto\+last'"),
        ({"skip": ["aut"]}, r"space\.skip='aut'.*Did you mean 'auto'"),
        ({"skip": ["auto+"]}, r"space\.skip='auto\+' is not known"),
        ({"skip": ["auto+auto"]}, r"space\.skip='auto\+auto' is not known"),
    ],
)
def test_shares_and_names_that_cannot_be_meant_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(**changes)


def test_a_space_knows_whether_it_needs_a_profile_before_it_has_one() -> None:
    bare = Space(auto_space(), SKIPS)
    assert bare.needs_profile
    assert not Space(small_space(skip=["none"]), SKIPS).needs_profile
    space = bare.with_auto(AutoSkip(PROFILE))
    assert space.profile is PROFILE
    assert space.size() == make().size()
    with pytest.raises(AssertionError, match="needs a profile"):
        bare.spec(next(params for params in bare.points(2) if params["skip"] == "auto"))


def test_the_identity_names_the_profile_that_lists_come_from_and_the_shares() -> None:
    found = make().identity()
    assert found["space.profile"] == PROFILE.fingerprint
    assert found["space.skip_share"] == "[0.05, 0.1, 0.3]"
    assert "auto+last=['blocks.3.ff']" in found["space.skip"]
    other = fake_profile({**ERRORS, Int4Spec().key: [1.0] * 8}, SIZES, LAYERS, ["all"] * 8)
    assert Space(auto_space(), SKIPS, AutoSkip(other)).identity() != found
    ranged = make(skip_share=[], skip_share_range=[0.0, 0.4]).identity()
    assert ranged["space.skip_share"] == "from 0 to 0.4"
    named = Space(small_space(skip=["none"]), SKIPS, AutoSkip(PROFILE)).identity()
    assert "space.profile" not in named
