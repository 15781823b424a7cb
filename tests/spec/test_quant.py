from __future__ import annotations

import dataclasses
import json
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError, QuantlabError
from quantlab.spec import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec, from_config
from quantlab.spec.conversion import from_dict, to_dict
from quantlab.spec.quant import COMPUTE_DTYPES, QUANT_STORAGES, QUANT_TYPES

names = st.from_regex(r"[a-z_][a-z0-9_.]{0,12}", fullmatch=True)
skips = st.lists(names, max_size=4).map(tuple)
thresholds = st.one_of(st.integers(0, 20), st.floats(0, 1e6), st.sampled_from([0.0, -0.0, 6.0, 6.0000001]))
int8_specs = st.builds(Int8Spec, thresholds, skips, st.booleans())
int4_specs = st.builds(
    Int4Spec,
    st.sampled_from(QUANT_TYPES),
    st.booleans(),
    st.sampled_from(COMPUTE_DTYPES),
    skips,
    st.sampled_from(QUANT_STORAGES),
)
specs = st.one_of(st.just(ReferenceSpec()), int8_specs, int4_specs)


@given(specs)
def test_a_spec_survives_json_and_pickle(spec: QuantSpec) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(spec)))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_a_setting_of_another_version_is_refused(version: object) -> None:
    with pytest.raises(ConfigError, match=rf"version {version!r} cannot be read; this quantlab reads version 1"):
        from_dict({**to_dict(Int8Spec()), "version": version})


@given(specs, specs)
def test_two_specs_are_equal_exactly_when_their_keys_are(one: QuantSpec, other: QuantSpec) -> None:
    assert (one == other) == (one.key == other.key)


@given(thresholds, thresholds)
def test_two_thresholds_are_equal_exactly_when_their_keys_are(one: float, other: float) -> None:
    assert (Int8Spec(one) == Int8Spec(other)) == (Int8Spec(one).key == Int8Spec(other).key)


def test_thresholds_that_differ_in_the_eighth_digit_have_different_keys() -> None:
    assert Int8Spec(6.0000001).key != Int8Spec(6.0).key


@given(skips, st.randoms())
def test_order_and_duplicates_in_a_skip_list_do_not_matter(skip: tuple[str, ...], shuffle: random.Random) -> None:
    mixed = [*skip, *skip]
    shuffle.shuffle(mixed)
    for spec in (Int8Spec, Int4Spec):
        assert spec(skip=tuple(mixed)) == spec(skip=skip)
        assert spec(skip=tuple(mixed)).key == spec(skip=skip).key
        assert hash(spec(skip=tuple(mixed))) == hash(spec(skip=skip))


def test_keys_are_readable() -> None:
    assert ReferenceSpec().key == "reference"
    assert Int8Spec().key == "llm_int8 t=6"
    assert Int8Spec(2.5, ("b", "a"), has_fp16_weight=True).key == "llm_int8 t=2.5 fp16_weight skip=a,b"
    assert Int4Spec().key == "bnb_4bit nf4 compute=float16"
    key = Int4Spec("fp4", True, "bfloat16", ("proj_out",), "float16").key
    assert key == "bnb_4bit fp4 double_quant compute=bfloat16 storage=float16 skip=proj_out"


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Int8Spec().threshold = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "value", [-1, -1e-9, float("nan"), float("inf"), float("-inf"), "six", "6", True, None, 10**400]
)
def test_a_threshold_must_be_a_finite_number_of_at_least_zero(value: object) -> None:
    with pytest.raises(ConfigError, match="llm_int8_threshold=") as caught:
        Int8Spec(value)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


def test_errors_are_value_errors_of_one_root() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, QuantlabError)


@pytest.mark.parametrize(
    ("fields", "field", "near"),
    [
        ({"quant_type": "nf5"}, "bnb_4bit_quant_type='nf5'", "'nf4'"),
        ({"compute_dtype": "bfloat61"}, "bnb_4bit_compute_dtype='bfloat61'", "'bfloat16'"),
        ({"compute_dtype": "fp16"}, "bnb_4bit_compute_dtype='fp16'", "float16"),
        ({"quant_storage": "uint16"}, "bnb_4bit_quant_storage='uint16'", "'uint8'"),
    ],
)
def test_an_unknown_type_or_dtype_names_the_choices_and_the_nearest(
    fields: dict[str, str], field: str, near: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Int4Spec(**fields)  # type: ignore[arg-type]
    assert field in str(caught.value)
    assert "choose from" in str(caught.value)
    assert near in str(caught.value)


@pytest.mark.parametrize("spec", [Int8Spec, Int4Spec])
@pytest.mark.parametrize("skip", ["attn", (1,), (None,), ("attn", ""), (" ",), ("attn,ff",), None, 3])
def test_a_skip_list_must_be_a_list_of_module_names(spec: type, skip: object) -> None:
    with pytest.raises(ConfigError, match="skip"):
        spec(skip=skip)


@pytest.mark.parametrize(
    "make", [lambda: Int8Spec(has_fp16_weight="yes"), lambda: Int4Spec(double_quant=1)], ids=["int8", "int4"]
)
def test_switches_take_nothing_but_true_and_false(make: object) -> None:
    with pytest.raises(ConfigError, match="must be true or false"):
        make()  # type: ignore[operator]


def test_a_torch_dtype_is_the_same_as_its_name() -> None:
    import torch

    assert Int4Spec(compute_dtype=torch.bfloat16) == Int4Spec(compute_dtype="bfloat16")  # type: ignore[arg-type]


def test_fields_that_do_not_act_under_a_method_do_not_exist() -> None:
    assert {f.name for f in dataclasses.fields(Int8Spec)} == {"threshold", "skip", "has_fp16_weight"}
    assert "threshold" not in {f.name for f in dataclasses.fields(Int4Spec)}
    assert not dataclasses.fields(ReferenceSpec)
    with pytest.raises(ConfigError, match="threshold"):
        from_dict({"version": 1, "method": "bnb_4bit", "threshold": 3.0})
    with pytest.raises(ConfigError, match=r"method='llm_int9' is not known.*Did you mean 'llm_int8'"):
        from_dict({"version": 1, "method": "llm_int9"})


@given(specs)
def test_every_setting_has_the_same_columns(spec: QuantSpec) -> None:
    columns = spec.columns()
    assert list(columns) == list(ReferenceSpec().columns())
    assert columns["method"] == spec.method
    acts = {name for name, value in columns.items() if value is not None} - {"method", "skip"}
    assert all(name.startswith(spec.method) for name in acts)


def test_the_reference_has_no_config() -> None:
    assert ReferenceSpec().to_config() is None


@given(st.one_of(int8_specs, int4_specs))
def test_each_config_is_fresh_with_a_skip_list_of_its_own(spec: Int8Spec | Int4Spec) -> None:
    one, other = spec.to_config(), spec.to_config()
    assert one is not other
    if spec.skip:
        assert isinstance(one.llm_int8_skip_modules, list)
        one.llm_int8_skip_modules.append("changed by diffusers")
        assert other.llm_int8_skip_modules == list(spec.skip)
        assert "changed by diffusers" not in spec.skip
    else:
        assert one.llm_int8_skip_modules is None


@given(int8_specs)
def test_an_int8_config_says_what_the_spec_says(spec: Int8Spec) -> None:
    config = spec.to_config()
    assert config.load_in_8bit
    assert not config.load_in_4bit
    assert isinstance(config.llm_int8_threshold, float)
    assert config.llm_int8_threshold == spec.threshold
    assert config.llm_int8_has_fp16_weight is spec.has_fp16_weight
    assert config.llm_int8_skip_modules == (list(spec.skip) or None)


@given(int4_specs)
def test_a_4bit_config_says_what_the_spec_says(spec: Int4Spec) -> None:
    import torch

    config = spec.to_config()
    assert config.load_in_4bit
    assert not config.load_in_8bit
    assert config.bnb_4bit_quant_type == spec.quant_type
    assert config.bnb_4bit_use_double_quant is spec.double_quant
    assert config.bnb_4bit_compute_dtype is getattr(torch, spec.compute_dtype)
    assert config.bnb_4bit_quant_storage is getattr(torch, spec.quant_storage)
    assert config.llm_int8_skip_modules == (list(spec.skip) or None)


# A configuration of diffusers' or transformers' own


@given(st.one_of(int8_specs, int4_specs))
def test_a_configuration_is_read_as_the_spec_that_makes_it(spec: Int8Spec | Int4Spec) -> None:
    assert from_config(spec.to_config()) == spec


def test_what_a_configuration_leaves_out_has_the_default_of_its_class() -> None:
    from diffusers import BitsAndBytesConfig
    from transformers import BitsAndBytesConfig as TransformersConfig

    for config in (BitsAndBytesConfig, TransformersConfig):
        assert from_config(config(load_in_8bit=True)) == Int8Spec(6.0)
        assert from_config(config(load_in_4bit=True)) == Int4Spec("fp4", compute_dtype="float32")
        assert from_config(config(load_in_8bit=True, llm_int8_skip_modules=["b", "a"])).skip == ("a", "b")


def test_what_is_no_configuration_and_what_quantizes_nothing_are_refused() -> None:
    from diffusers import BitsAndBytesConfig

    with pytest.raises(ConfigError, match="neither load_in_8bit nor load_in_4bit"):
        from_config(BitsAndBytesConfig())
    for other in ({"load_in_8bit": True}, None, "nf4", object()):
        with pytest.raises(ConfigError, match=f"a {type(other).__name__} is no BitsAndBytesConfig"):
            from_config(other)
    with pytest.raises(ConfigError, match="llm_int8_threshold=-1"):
        from_config(BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=-1.0))


# Schemes and families


def test_a_scheme_is_how_a_layer_s_weight_is_stored() -> None:
    assert Int8Spec(0.0).scheme == Int8Spec(6.0, ("ff",)).scheme == "int8"
    assert Int8Spec(has_fp16_weight=True).scheme == "int8_fp16_weight"
    assert Int4Spec(compute_dtype="float32").scheme == Int4Spec().scheme == "nf4"
    assert Int4Spec("fp4", double_quant=True).scheme == "fp4_double_quant"
    assert Int4Spec(quant_storage="bfloat16").scheme == "nf4_bfloat16"
    assert [spec.family for spec in (ReferenceSpec(), Int8Spec(), Int4Spec(), Int4Spec("fp4"))] == [
        "reference",
        "int8",
        "nf4",
        "fp4",
    ]


@given(specs, skips)
def test_another_skip_list_changes_nothing_else(spec: QuantSpec, skip: tuple[str, ...]) -> None:
    other = spec.with_skip(skip)
    assert other.skip == (() if isinstance(spec, ReferenceSpec) else tuple(sorted(set(skip))))
    assert other.with_skip(spec.skip) == spec
    assert (other.scheme, other.family) == (spec.scheme, spec.family)
