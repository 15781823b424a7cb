from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import yaml

from quantlab import compose as compose_module
from quantlab.cli.run import compose_spec
from quantlab.compose import compose, from_yaml, to_yaml
from quantlab.conf_path import conf_dir
from quantlab.config import COMMANDS, Dtype, RunConfig, Sampler, SweepConfig
from quantlab.drawings import held_out
from quantlab.errors import ConfigError
from quantlab.messages import field_names, groups, options
from quantlab.search.space import Space
from quantlab.spec import Int4Spec, Int8Spec, ReferenceSpec

REQUIRED = {"report": ["study=x"], "export": ["study=x"], "verify": ["study=x"]}


def files(*groups: str) -> list[tuple[str, str]]:
    return [(group, name) for group in groups for name in options(group)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_to_its_schema(command: str) -> None:
    assert type(compose(command, REQUIRED.get(command, []))) is COMMANDS[command][0]


@pytest.mark.parametrize("command", ["report", "export", "verify"])
def test_a_command_on_a_study_must_be_told_which(command: str) -> None:
    with pytest.raises(ConfigError, match="study"):
        compose(command, [])


@pytest.mark.parametrize(("group", "name"), files("model", "space", "search", "score", "budget", "sweeps"))
def test_every_option_of_sweep_composes_and_its_space_holds_settings(group: str, name: str) -> None:
    config = compose("sweep", [f"{group}={name}"])
    assert isinstance(config, SweepConfig)
    space = Space(config.space, config.model.skips)
    assert space.needs_profile or space.size() > 0
    assert 1 <= config.score.prompts <= len(config.model.prompts)
    assert config.score.images >= 0
    assert held_out(config.model, config.score)
    assert config.model.embedded or config.model.repo
    assert isinstance(config.search.sampler, Sampler)
    assert isinstance(config.model.dtype, Dtype)


@pytest.mark.parametrize(("group", "name"), files("model", "quant", "score"))
def test_every_option_of_run_composes_to_a_spec(group: str, name: str) -> None:
    config = compose("run", [f"{group}={name}"])
    assert isinstance(config, RunConfig)
    assert compose_spec(config.quant, ()).key


@pytest.mark.parametrize("sweep", options("sweeps"))
@pytest.mark.parametrize("model", options("model"))
def test_every_sweep_fits_every_model(sweep: str, model: str) -> None:
    config = compose("sweep", [f"sweeps={sweep}", f"model={model}"])
    assert config.sweep == sweep
    assert config.study == f"{model}-{sweep}"
    space = Space(config.space, config.model.skips)
    assert space.needs_profile or space.size() > 0


@pytest.mark.parametrize("name", options("skips"))
def test_named_skip_lists_are_lists_of_module_names_and_one_of_them_is_empty(name: str) -> None:
    skips = yaml.safe_load((conf_dir() / "skips" / f"{name}.yaml").read_text())
    assert [] in skips.values()
    for entries in skips.values():
        Int8Spec(skip=tuple(entries))


def test_quant_options_mean_what_they_are_called() -> None:
    def spec(name: str) -> object:
        return compose_spec(compose("run", [f"quant={name}"]).quant, ())

    assert spec("reference") == ReferenceSpec()
    assert spec("int8") == Int8Spec(6.0)
    assert spec("nf4") == Int4Spec("nf4")
    assert spec("fp4") == Int4Spec("fp4")
    assert spec("nf4_double_quant") == Int4Spec("nf4", double_quant=True)


def test_the_default_sweep_has_at_least_40_settings() -> None:
    config = compose("sweep", [])
    assert len(Space(config.space, config.model.skips).grid()) >= 40


def test_the_threshold_sweep_is_int8_over_the_eight_thresholds() -> None:
    config = compose("sweep", ["sweeps=threshold"])
    space = Space(config.space, config.model.skips)
    assert [space.spec(params) for params in space.grid()] == [Int8Spec(t) for t in (0, 1, 2, 3, 4, 6, 8, 10)]


def test_the_search_sweep_has_a_continuous_threshold() -> None:
    config = compose("sweep", ["sweeps=search"])
    assert Space(config.space, config.model.skips).size() == float("inf")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_configuration_survives_yaml(command: str) -> None:
    schema = COMMANDS[command][0]
    config = compose(command, REQUIRED.get(command, []))
    assert from_yaml(to_yaml(config), schema) == config


def test_a_configuration_with_changes_survives_yaml() -> None:
    changes = ["search=tpe", "budget.memory_mb=2.5", "rule=knee", "model.dtype=bfloat16", "space.skip=[none]"]
    config = compose("sweep", changes)
    assert from_yaml(to_yaml(config), SweepConfig) == config
    assert config.budget.memory_mb == 2.5


def test_fields_that_the_schema_no_longer_has_are_left_out() -> None:
    config = compose("sweep", [])
    assert from_yaml(to_yaml(config) + "retired_field: 1\n", SweepConfig) == config


def test_the_folder_of_a_checkout_is_conf_at_its_root() -> None:
    root = Path(compose_module.__file__).parents[1]
    packaged = Path(compose_module.__file__).parent / "conf"
    assert conf_dir() == (packaged if packaged.is_dir() else root / "conf")
    assert (conf_dir() / "sweep.yaml").is_file()


def test_an_installed_package_uses_the_folder_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quantlab" / "conf").mkdir(parents=True)
    monkeypatch.setattr("quantlab.conf_path.__file__", str(tmp_path / "quantlab" / "conf_path.py"))
    assert conf_dir() == tmp_path / "quantlab" / "conf"


def test_groups_and_fields_do_not_share_a_name_unless_the_group_fills_the_field() -> None:
    filled = {"model", "space", "search", "score", "budget", "quant"}
    for command in COMMANDS:
        fields = {name for name in field_names(command) if "." not in name}
        assert fields & set(groups()) <= filled


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model=sd33"], ["model='sd33'", "tiny_sd3", "Did you mean 'sd3'"]),
        (["sweeps=treshold"], ["sweeps='treshold'", "Did you mean 'threshold'"]),
        (["search.n_trial=3"], ["'search.n_trial'", "'search.n_trials'"]),
        (["search.sampler=tpee"], ["search.sampler", "'tpee'", "Did you mean 'tpe'"]),
        (["search.n_trials=many"], ["search.n_trials", "many"]),
        (["model.dtype=float8"], ["model.dtype", "float8", "bfloat16"]),
        (["budget.memory_mb=small"], ["budget.memory_mb", "small"]),
        (["rule=best"], ["rule", "best", "knee"]),
        (["modell=sd3"], ["'modell'", "'model'"]),
        (["model.kall.height=3"], ["model.kall"]),
    ],
)
def test_a_mistyped_override_names_the_field_the_value_and_the_choices(overrides: list[str], told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("sweep", overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in told if part not in message] == []


def test_every_schema_field_has_a_type_that_is_not_a_dictionary_of_hydras() -> None:
    for schema, _ in COMMANDS.values():
        assert dataclasses.is_dataclass(schema)
    config = compose("sweep", [])
    assert type(config.model.call) is dict
    assert type(config.space.skip) is list
    assert "omegaconf" in sys.modules
