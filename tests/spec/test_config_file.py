"""Configurations that exist already: every shape that the libraries write, and what in them does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantlab import Int4Spec, Int8Spec, PipelineSpec, ReferenceSpec
from quantlab.errors import ConfigError
from quantlab.spec.config_file import Inert, read_quantization

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "torch.bfloat16"}
BOTH = ("transformer", "text_encoder")


def read(folder: Path, data: Any, components: tuple[str, ...] = ("transformer",)) -> tuple[PipelineSpec, Any]:
    file = folder / "config.json"
    file.write_text(json.dumps(data))
    return read_quantization(file, components)


@pytest.mark.parametrize(
    "data",
    [
        NF4,
        {"_class_name": "SD3Transformer2DModel", "quantization_config": {**NF4, "quant_method": "bitsandbytes"}},
        {"transformer": NF4},
        {"quant_mapping": {"transformer": NF4}},
        {
            "quant_backend": "bitsandbytes_4bit",
            "quant_kwargs": {name: value for name, value in NF4.items() if name != "load_in_4bit"},
            "components_to_quantize": ["transformer"],
        },
    ],
)
def test_a_setting_is_read_from_every_shape(tmp_path: Path, data: dict[str, Any]) -> None:
    spec, inert = read(tmp_path, data)
    assert spec == PipelineSpec({"transformer": Int4Spec("nf4", compute_dtype="bfloat16")})
    assert inert == ()


def test_what_the_libraries_write_is_read_as_what_they_mean(tmp_path: Path) -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        config = library.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["proj_out"])  # type: ignore[attr-defined]
        assert read(tmp_path, json.loads(config.to_json_string(use_diff=False)))[0] == PipelineSpec(
            {"transformer": Int8Spec(6.0, ("proj_out",))}
        )
        assert read(tmp_path, json.loads(config.to_json_string()))[0]["transformer"].skip == ("proj_out",)


def test_what_is_left_out_has_the_defaults_of_bitsandbytes_config(tmp_path: Path) -> None:
    spec, _ = read(tmp_path, {"load_in_4bit": True})
    assert spec["transformer"] == Int4Spec("fp4", compute_dtype="float32")
    assert read(tmp_path, {"load_in_8bit": True})[0]["transformer"] == Int8Spec(6.0)


def test_components_that_a_file_leaves_out_stay_the_reference(tmp_path: Path) -> None:
    spec, _ = read(tmp_path, {"quant_mapping": {"transformer": NF4}}, BOTH)
    assert spec["text_encoder"] == ReferenceSpec()


def test_fields_that_do_nothing_are_named_with_the_reason(tmp_path: Path) -> None:
    data = {**NF4, "llm_int8_threshold": 5.0, "llm_int8_enable_fp32_cpu_offload": True, "bnb_4bit_foo": 1}
    _, inert = read(tmp_path, {"quant_mapping": {"transformer": data, "vae": NF4}})
    assert inert == (
        Inert("", "vae", "", "component"),
        Inert("transformer", "llm_int8_threshold", 5.0, "method"),
        Inert("transformer", "llm_int8_enable_fp32_cpu_offload", True, "placement"),
        Inert("transformer", "bnb_4bit_foo", 1, "unknown"),
    )
    assert read(tmp_path, {**NF4, "llm_int8_threshold": 6.0, "llm_int8_skip_modules": None})[1] == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "holds no JSON object"),
        ({}, "neither load_in_8bit nor load_in_4bit"),
        ({"quant_method": "gptq", "bits": 4}, "quant_method='gptq' is none of bitsandbytes'"),
        ({"quant_backend": "quanto"}, "quant_backend='quanto', not of bitsandbytes"),
        ({"load_in_8bit": False}, "so it quantizes nothing"),
        ({"quant_mapping": {"vae": NF4}}, "quantizes none of transformer, but vae"),
        ({**NF4, "llm_int8_skip_modules": "proj_out"}, "must be a list of module names"),
        ({**NF4, "bnb_4bit_quant_type": "int4"}, "int4"),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_names_the_file(tmp_path: Path, data: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, data)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quant='.*gone\.json' cannot be read"):
        read_quantization(tmp_path / "gone.json", ("transformer",))
