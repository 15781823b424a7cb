from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.errors import ConfigError
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec

components = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)
skips = st.lists(st.sampled_from(["attn", "ff", "proj_out"]), max_size=2).map(tuple)
quant_specs = st.one_of(
    st.just(ReferenceSpec()),
    st.builds(Int8Spec, st.sampled_from([0.0, 3.0, 6.0]), skips, st.booleans()),
    st.builds(Int4Spec, st.sampled_from(["nf4", "fp4"]), st.booleans(), skip=skips),
)
mappings = st.dictionaries(components, quant_specs, min_size=1, max_size=4)
specs = mappings.map(PipelineSpec)


@given(specs)
def test_a_spec_survives_json_pickle_and_copies(spec: PipelineSpec) -> None:
    for back in (
        PipelineSpec.from_dict(json.loads(json.dumps(spec.to_dict()))),
        pickle.loads(pickle.dumps(spec)),
        copy.deepcopy(spec),
        PipelineSpec(spec),
    ):
        assert back == spec
        assert hash(back) == hash(spec)
        assert list(back) == list(spec)


@given(mappings, st.randoms())
def test_the_order_of_components_does_not_matter(mapping: dict[str, QuantSpec], chance: object) -> None:
    names = list(mapping)
    chance.shuffle(names)  # type: ignore[attr-defined]
    one, other = PipelineSpec(mapping), PipelineSpec({name: mapping[name] for name in names})
    assert (one, hash(one), one.key, list(one)) == (other, hash(other), other.key, list(other))


@given(specs, specs)
def test_two_specs_are_equal_exactly_when_their_keys_are(one: PipelineSpec, other: PipelineSpec) -> None:
    assert (one == other) == (one.key == other.key)


@given(mappings)
def test_it_is_a_mapping_of_its_components(mapping: dict[str, QuantSpec]) -> None:
    spec = PipelineSpec(mapping)
    assert dict(spec) == mapping
    assert len(spec) == len(mapping)
    assert all(name in spec and spec[name] == value for name, value in mapping.items())
    with pytest.raises(KeyError):
        spec["no component"]


@given(mappings)
def test_it_does_not_change_with_what_it_was_made_of(mapping: dict[str, QuantSpec]) -> None:
    spec = PipelineSpec(mapping)
    before = hash(spec)
    mapping.clear()
    assert hash(spec) == before
    with pytest.raises(TypeError):
        spec["transformer"] = Int8Spec()  # type: ignore[index]
    with pytest.raises(AttributeError):
        spec.other = 1  # type: ignore[attr-defined]


@given(specs)
def test_it_is_a_reference_exactly_where_no_component_is_quantized(spec: PipelineSpec) -> None:
    assert spec.is_reference == (spec == PipelineSpec.reference(list(spec))) == (spec.family == "reference")


def test_its_family_is_that_of_what_is_quantized() -> None:
    def family(*specs: QuantSpec) -> str:
        return PipelineSpec({f"c{index}": spec for index, spec in enumerate(specs)}).family

    assert family(Int8Spec(0.0)) == family(Int8Spec(0.0), ReferenceSpec(), Int8Spec(3.0)) == "int8"
    assert family(Int4Spec(), Int4Spec("fp4")) == family(Int8Spec(), Int4Spec()) == "mixed"
    assert family(ReferenceSpec(), ReferenceSpec()) == "reference"


def test_one_setting_can_hold_everywhere() -> None:
    spec = PipelineSpec.everywhere(Int4Spec(), ["b", "a"])
    assert dict(spec) == {"a": Int4Spec(), "b": Int4Spec()}


def test_keys_are_readable() -> None:
    spec = PipelineSpec({"transformer": Int8Spec(3.0), "text_encoder": ReferenceSpec()})
    assert spec.key == "text_encoder: reference; transformer: llm_int8 t=3"


def test_a_pipeline_without_components_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one component"):
        PipelineSpec({})


@pytest.mark.parametrize("version", [None, 2])
def test_a_setting_of_another_version_is_refused(version: object) -> None:
    with pytest.raises(ConfigError, match=rf"version {version!r} cannot be read"):
        PipelineSpec.from_dict({**PipelineSpec({"a": Int8Spec()}).to_dict(), "version": version})


def test_it_makes_the_pipeline_s_quantization_config_of_what_is_quantized() -> None:
    spec = PipelineSpec({"transformer": Int4Spec("nf4"), "text_encoder": Int8Spec(), "vae": ReferenceSpec()})
    config = spec.to_config()
    assert config is not None
    assert set(config.quant_mapping) == {"transformer", "text_encoder"}
    assert config.quant_mapping["transformer"].load_in_4bit
    assert config.quant_mapping["text_encoder"].load_in_8bit
    assert spec.to_config() is not config
    assert PipelineSpec.reference(["transformer"]).to_config() is None
