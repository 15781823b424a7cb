"""Configurations as plain JSON: what is exported is what is loaded."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from diffusers import BitsAndBytesConfig
from hypothesis import given
from lab.parity_cases import SPECS, int4_specs, int8_specs

from quantlab.errors import StudyError
from quantlab.export import configs_for_verification, read_configs, read_export
from quantlab.export.configs import CONFIG_FILE, EXPORT_FILE, component_config
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec


@contextlib.contextmanager
def warnings_of_diffusers() -> Iterator[list[str]]:
    """Messages that diffusers logs inside, whatever its level is set to."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_diffusers_complains_of_a_field_that_it_does_not_know() -> None:
    with warnings_of_diffusers() as messages:
        BitsAndBytesConfig.from_dict({"load_in_8bit": True, "no_such_field": 1})
    assert any("Unused kwargs" in message for message in messages)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_the_config_s_json_is_accepted_without_a_word(spec: QuantSpec) -> None:
    with warnings_of_diffusers() as messages:
        BitsAndBytesConfig.from_dict(json.loads(json.dumps(component_config(spec))))
    assert messages == []


@given(spec=int8_specs | int4_specs)
def test_the_config_survives_its_json(spec: QuantSpec) -> None:
    loaded = BitsAndBytesConfig.from_dict(json.loads(json.dumps(component_config(spec))))
    expected = spec.to_config()
    assert expected is not None
    assert loaded.to_dict() == expected.to_dict()
    assert loaded.quantization_method() == expected.quantization_method()


def test_the_reference_has_no_config() -> None:
    assert component_config(ReferenceSpec()) is None


def test_a_component_that_is_not_quantized_is_absent_from_what_is_verified() -> None:
    spec = PipelineSpec({"transformer": Int4Spec(), "text_encoder": ReferenceSpec(), "vae": Int8Spec(3)})
    found = configs_for_verification(spec)
    assert sorted(found) == ["transformer", "vae"]
    assert found["vae"]["llm_int8_threshold"] == 3.0
    with pytest.raises(TypeError):
        found["vae"]["llm_int8_threshold"] = 4.0  # it is part of a task


def test_a_folder_gives_the_configs_that_were_written_to_it(tmp_path: Path) -> None:
    written = {"transformer": component_config(Int8Spec(3, ("proj_out",)))}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(written))
    assert read_configs(tmp_path) == written
    assert configs_for_verification(tmp_path) == configs_for_verification(
        PipelineSpec({"transformer": Int8Spec(3, ("proj_out",))})
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", '"text"', "{}", '{"transformer": 3}', '{"transformer": {}}'),
        '{"transformer": {"load_in_8bit": true, "load_in_4bit": true}}',
        '{"load_in_8bit": true, "llm_int8_threshold": 6.0}',  # of one component, without its name
    ],
)
def test_a_file_that_holds_no_configs_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(StudyError, match=rf"{CONFIG_FILE} (holds no BitsAndBytesConfig|cannot be read)"):
        read_configs(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *(("", "cannot be read"), ('{"version": 99}', "cannot be read")),
        *((text, "holds no export") for text in ("[]", "null", "{}", '{"version": 1, "trial": 3}')),
    ],
)
def test_a_damaged_record_of_an_export_is_an_error_that_names_it(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / EXPORT_FILE).write_text(text)
    with pytest.raises(StudyError, match=f"{EXPORT_FILE} {told}"):
        read_export(tmp_path)


@pytest.mark.parametrize("read", [read_configs, read_export])
def test_what_is_not_there_is_an_error_that_says_how_to_write_it(tmp_path: Path, read: object) -> None:
    with pytest.raises(StudyError, match="quantlab export study=NAME"):
        read(tmp_path)  # type: ignore[operator]
