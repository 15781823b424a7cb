import contextlib
import json
import logging
import runpy
import shutil

import pytest
from diffusers import BitsAndBytesConfig
from hypothesis import given
from lab.parity_cases import SPECS, int4_specs, int8_specs

from quantlab import Int8Spec, ReferenceSpec
from quantlab.config import Device
from quantlab.errors import StudyError
from quantlab.export.config_file import config_to_json, read_config
from quantlab.export.verify import verify
from quantlab.export.write import export
from quantlab.intervals import snr_interval
from quantlab.lab.forms import is_quantized
from quantlab.lab.probes import load as load_probes
from quantlab.lab.replay import replay
from quantlab.models.load import resolve_device
from quantlab.report import open_study
from quantlab.study.front import front


@pytest.fixture
def study(small_study, tmp_path):
    shutil.copytree(small_study, tmp_path / "small")
    return open_study("small", str(tmp_path))


@pytest.fixture(scope="module")
def read_only_study(small_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(small_study, folder / "small")
    return open_study("small", str(folder))


@contextlib.contextmanager
def warnings_of_diffusers():
    """Messages that diffusers logs inside, whatever its level is set to."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_diffusers_complains_of_a_field_that_it_does_not_know():
    with warnings_of_diffusers() as messages:
        BitsAndBytesConfig.from_dict({"load_in_8bit": True, "no_such_field": 1})
    assert any("Unused kwargs" in message for message in messages)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_the_config_s_json_is_accepted_without_a_word(spec):
    with warnings_of_diffusers() as messages:
        BitsAndBytesConfig.from_dict(json.loads(config_to_json(spec.to_config())))
    assert messages == []


@given(spec=int8_specs | int4_specs)
def test_the_config_survives_its_json(spec):
    loaded = BitsAndBytesConfig.from_dict(json.loads(config_to_json(spec.to_config())))
    assert loaded.to_dict() == spec.to_config().to_dict()
    assert loaded.quantization_method() == spec.to_config().quantization_method()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', '{"load_in_8bit": true, "load_in_4bit": true}'])
def test_a_file_that_is_no_config_is_an_error_that_names_it(tmp_path, text):
    file = tmp_path / "quantization_config.json"
    file.write_text(text)
    with pytest.raises(StudyError, match=r"quantization_config\.json is no BitsAndBytesConfig"):
        read_config(file)


def test_a_config_that_is_not_there_is_an_error_that_says_how_to_write_it(tmp_path):
    with pytest.raises(StudyError, match="quantlab export study=NAME"):
        read_config(tmp_path / "quantization_config.json")


def test_the_winner_s_folder_holds_the_config_of_its_row(study):
    winner = study.winner.row
    folder = export(study, winner, "it is a test")
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "export.json",
        "load.py",
        "quantization_config.json",
    }
    assert read_config(folder / "quantization_config.json").to_dict() == winner.spec.to_config().to_dict()
    chosen = {"number": winner.number, "key": winner.spec.key, "notes": study.notes}
    assert json.loads((folder / "export.json").read_text()).items() >= chosen.items()


def test_the_readme_says_what_was_measured_on_what_and_why_it_won(study):
    winner = study.winner.row
    text = (export(study, winner, study.winner.reason) / "README.md").read_text()
    m = winner.measurement
    assert winner.spec.key in text
    assert study.winner.reason in text
    assert f"| prediction SNR, dB (100: identical) | {m.snr_db:.4g} |" in text
    interval = snr_interval(m.probes)
    assert f"| 95 % interval of the SNR, dB | {interval.low:.4g} to {interval.high:.4g} | 100 to 100 |" in text
    assert f"{m.layers_quantized} linear layers quantized" in text.replace("\n", " ")
    assert study.identity["device"] in text
    assert f"torch {m.provenance['versions']['torch']}" in text


def test_cpu_offload_is_written_where_it_is_asked_for(study):
    winner = study.winner.row
    file = export(study, winner, "it is a test") / "quantization_config.json"
    assert read_config(file).llm_int8_enable_fp32_cpu_offload is False
    export(study, winner, "it is a test", fp32_cpu_offload=True)
    assert read_config(file).llm_int8_enable_fp32_cpu_offload is True


def test_the_reference_has_nothing_to_export(study):
    row = next(row for row in study.rows if isinstance(row.spec, ReferenceSpec))
    with pytest.raises(StudyError, match="no config to export"):
        export(study, row, "it is a test")


@pytest.mark.parametrize("method", ["llm_int8", "bnb_4bit"])
def test_the_snippet_loads_a_pipeline_whose_component_gives_the_measured_outputs(study, method):
    row = next(row for row in study.rows if row.measurement and row.spec.method == method)
    folder = export(study, row, "it is a test")
    assert len((folder / "load.py").read_text().splitlines()) <= 20
    component = runpy.run_path(str(folder / "load.py"))["pipe"].transformer.eval()
    assert sum(map(is_quantized, component.modules())) == row.measurement.layers_quantized > 0
    device = resolve_device(Device.cpu)
    result = replay(component, load_probes(study.folder / "probes.safetensors", device), device)
    assert result.output_sha256 == row.measurement.output_sha256


def test_every_member_of_the_front_is_verified(read_only_study):
    members = front(read_only_study.rows)
    assert len(members) > 1
    for row in members:
        config = row.spec.to_config()
        through_file = None if config is None else BitsAndBytesConfig.from_dict(json.loads(config_to_json(config)))
        proof = verify(read_only_study, row, through_file, Device.cpu)
        assert proof.equal, row.spec.key
        assert proof.snr_db == pytest.approx(row.measurement.snr_db)


def test_another_threshold_is_not_verified(read_only_study):
    row = next(row for row in read_only_study.rows if row.spec == Int8Spec(6))
    config = row.spec.to_config()
    config.llm_int8_threshold = 3.0
    proof = verify(read_only_study, row, config, Device.cpu)
    assert not proof.equal
    assert proof.snr_db != pytest.approx(row.measurement.snr_db)


def test_the_reference_is_not_taken_for_a_quantized_row(read_only_study):
    row = next(row for row in read_only_study.rows if row.spec == Int8Spec(6))
    assert not verify(read_only_study, row, None, Device.cpu).equal


def test_what_was_measured_elsewhere_is_not_verified_here(study):
    study.identity["device"] = "another GPU"
    with pytest.raises(StudyError, match="measured with device 'another GPU'"):
        verify(study, study.winner.row, study.winner.row.spec.to_config(), Device.cpu)
