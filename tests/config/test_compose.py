from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import quantlab
from quantlab.cli.run import compose_spec
from quantlab.config import COMMANDS, Dtype, LimitConfig, RunConfig, Sampler, SweepConfig
from quantlab.config.compose import compose, from_yaml, to_yaml
from quantlab.config.paths import conf_dir, sweeps_parent
from quantlab.config.prompts import held_out
from quantlab.config.schema import field_names, groups, options
from quantlab.errors import ConfigError
from quantlab.metrics.budget import parse_budget
from quantlab.metrics.registry import measured
from quantlab.search.space import Space
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec

REQUIRED = {"deploy": ["study=x"], "report": ["study=x"], "export": ["study=x"], "verify": ["study=x"]}

ROOT = Path(__file__).parents[2]


def files(*groups: str) -> list[tuple[str, str]]:
    return [(group, name) for group in groups for name in options(group)]


def usable(config: SweepConfig) -> bool:
    """Whether a sweep has settings to try."""
    space = Space(config.space, config.model)
    return space.needs_sensitivities or space.size() > 0


# Every YAML file


def test_every_yaml_file_of_a_group_is_an_option_and_every_other_one_a_command() -> None:
    composed = {(group, name) for command in COMMANDS for group in groups(command) for name in options(group)}
    nested = {(group, name) for group in ("skips", "prompts") for name in options(group)}
    commands = {("", name) for name in [*COMMANDS, "base"]}
    found = {
        ("" if file.parent == ROOT / "conf" else file.parent.name, file.stem) for file in ROOT.glob("conf/**/*.yaml")
    }
    found |= {("sweeps", file.stem) for file in ROOT.glob("sweeps/*.yaml")}
    assert found == composed | nested | commands


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_to_its_schema(command: str) -> None:
    assert type(compose(command, REQUIRED.get(command, []))) is COMMANDS[command][0]


@pytest.mark.parametrize("command", ["report", "export", "verify"])
def test_a_command_on_a_study_must_be_told_which(command: str) -> None:
    with pytest.raises(ConfigError, match="study"):
        compose(command, [])


@pytest.mark.parametrize(("group", "name"), files(*groups("sweep")))
def test_every_option_of_sweep_composes_and_its_space_holds_settings(group: str, name: str) -> None:
    config = compose("sweep", [f"{group}={name}"])
    assert isinstance(config, SweepConfig)
    assert usable(config)
    assert 1 <= config.evaluation.prompts <= len(config.model.prompts)
    assert config.evaluation.images >= 0
    assert config.evaluation.finalists == 8
    assert held_out(config.model, config.evaluation)
    assert config.model.embedded or config.model.repo
    assert config.model.components in (["transformer"], ["transformer", "transformer_2"], ["unet"])
    assert isinstance(config.sampler.name, Sampler)
    assert isinstance(config.model.dtype, Dtype)
    metrics, objectives = measured(config.metrics, config.objectives, "cpu")
    assert [metric.name for metric in objectives] == ["snr_db", "memory_bytes", "latency_ms"]
    assert not parse_budget(config.budget, metrics)


@pytest.mark.parametrize(("group", "name"), files(*groups("run")))
def test_every_option_of_run_composes_to_a_spec(group: str, name: str) -> None:
    config = compose("run", [f"{group}={name}"])
    assert isinstance(config, RunConfig)
    assert compose_spec(config.quant, ()).key


@pytest.mark.parametrize("name", options("sampler"))
def test_a_sampler_s_option_is_the_sampler_of_that_name(name: str) -> None:
    assert compose("sweep", [f"sampler={name}"]).sampler.name is Sampler[name]


@pytest.mark.parametrize(
    ("sweep", "model"),
    [
        *(("default", model) for model in options("model")),
        *((sweep, "flux_dev") for sweep in options("sweeps") if sweep != "default"),
    ],
)
def test_every_sweep_fits_every_model(sweep: str, model: str) -> None:
    config = compose("sweep", [f"sweeps={sweep}", f"model={model}"])
    assert config.sweep == sweep
    assert config.study == f"{model}-{sweep}"
    assert usable(config)


@pytest.mark.parametrize("name", options("skips"))
def test_named_skip_lists_are_lists_of_module_names_and_one_of_them_is_empty(name: str) -> None:
    skips = yaml.safe_load((conf_dir() / "skips" / f"{name}.yaml").read_text())
    assert [] in skips.values()
    for entries in skips.values():
        Int8Spec(skip=tuple(entries))


# What they mean


def test_quant_options_mean_what_they_are_called() -> None:
    def spec(name: str) -> object:
        return compose_spec(compose("run", [f"quant={name}"]).quant, ())

    assert spec("reference") == ReferenceSpec()
    assert spec("int8") == Int8Spec(6.0)
    assert spec("nf4") == Int4Spec("nf4")
    assert spec("fp4") == Int4Spec("fp4")
    assert spec("nf4_double_quant") == Int4Spec("nf4", double_quant=True)


def test_the_default_sweep_has_48_settings_and_auto_rule() -> None:
    config = compose("sweep")
    assert len(Space(config.space, config.model).grid()) == 48
    assert config.rule == "auto"


def test_the_threshold_sweep_is_int8_over_the_eight_thresholds() -> None:
    config = compose("sweep", ["sweeps=threshold"])
    space = Space(config.space, config.model)
    found = [space.setting(params).spec["transformer"] for params in space.grid()]
    assert found == [Int8Spec(t) for t in (0, 1, 2, 3, 4, 6, 8, 10)]


def test_the_search_sweep_has_a_continuous_threshold() -> None:
    config = compose("sweep", ["sweeps=search"])
    assert Space(config.space, config.model).size() == float("inf")


def test_the_study_of_layer_sensitivities_has_a_name_of_its_own() -> None:
    assert compose("sensitivity", ["model=sd3"]).study == "sd3-sensitivity"


# Back and forth


@pytest.mark.parametrize("command", COMMANDS)
def test_a_configuration_survives_yaml(command: str) -> None:
    schema = COMMANDS[command][0]
    config = compose(command, REQUIRED.get(command, []))
    assert from_yaml(to_yaml(config), schema) == config


def test_a_configuration_with_changes_survives_yaml() -> None:
    changes = [
        "sampler=tpe",
        "budget.memory_bytes.max=2.5GB",
        "rule=snr_db",
        "model.dtype=bfloat16",
        "space.skip=[none]",
    ]
    config = compose("sweep", changes)
    assert from_yaml(to_yaml(config), SweepConfig) == config
    assert config.budget == {"memory_bytes": LimitConfig(max="2.5GB")}


def test_fields_that_the_schema_no_longer_has_are_left_out() -> None:
    config = compose("sweep")
    assert from_yaml(to_yaml(config) + "retired_field: 1\n", SweepConfig) == config


def test_a_composed_configuration_holds_plain_python_types() -> None:
    config = compose("sweep", ["budget.snr_db.min=10"])
    assert type(config.model.call) is dict
    assert type(config.space.skip) is list
    assert type(config.budget["snr_db"]) is LimitConfig


# Where the files are


def test_the_folders_of_a_checkout_are_at_its_root() -> None:
    assert Path(quantlab.__file__).parents[1] == ROOT
    assert conf_dir() == ROOT / "conf"
    assert sweeps_parent() == ROOT


def test_an_installed_package_uses_the_folder_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quantlab" / "conf" / "sweeps").mkdir(parents=True)
    monkeypatch.setattr("quantlab.config.paths.__file__", str(tmp_path / "quantlab" / "config" / "paths.py"))
    assert conf_dir() == sweeps_parent() == tmp_path / "quantlab" / "conf"


def test_groups_and_fields_do_not_share_a_name_unless_the_group_fills_the_field() -> None:
    filled = {"model", "space", "sampler", "evaluation", "quant", "deployment"}
    for command in COMMANDS:
        fields = {name for name in field_names(command) if "." not in name}
        assert fields & set(groups(command)) <= filled
