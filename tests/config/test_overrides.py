"""What may be written beyond Hydra's own overrides, and how a mistake in one is answered."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.config import COMMANDS, LimitConfig
from quantlab.config.compose import compose
from quantlab.config.culprit import culprit
from quantlab.config.overrides import prepared
from quantlab.config.schema import groups, options
from quantlab.errors import ConfigError

# Free keys


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("model.call.height=512", lambda c: c.model.call["height"], 512),
        ("model.call={height:512}", lambda c: (c.model.call["height"], c.model.call["guidance_scale"]), (512, 3.0)),
        ("model.skips.mine=[attn]", lambda c: c.model.skips["mine"], ["attn"]),
        ("model.architecture.config.num_layers=2", lambda c: c.model.architecture.config["num_layers"], 2),
        ("executor.options.workers=2", lambda c: c.executor.options, {"workers": 2}),
        ("budget.memory_bytes.max=2.2GB", lambda c: c.budget, {"memory_bytes": LimitConfig(max="2.2GB")}),
        ("budget.memory_bytes={max:3}", lambda c: c.budget, {"memory_bytes": LimitConfig(max=3)}),
        ("budget={snr_db:{min:20}}", lambda c: c.budget, {"snr_db": LimitConfig(min=20)}),
    ],
)
@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_free_key_needs_no_plus_sign(override: str, read: Any, expected: Any, plus: str) -> None:
    assert read(compose("sweep", [plus + override])) == expected


def test_limits_of_several_metrics_and_both_bounds_add_up() -> None:
    config = compose("sweep", ["budget.snr_db.min=20", "budget.latency_ms.max=50ms", "budget.latency_ms.min=10"])
    assert config.budget == {"snr_db": LimitConfig(min=20), "latency_ms": LimitConfig(max="50ms", min=10)}


def test_a_limit_can_be_given_to_report_and_export() -> None:
    for command in ("report", "export"):
        config = compose(command, ["study=x", "budget.memory_bytes.max=2GB"])
        assert config.budget == {"memory_bytes": LimitConfig(max="2GB")}


def test_several_values_of_a_free_key_stay_a_sweep_for_hydra() -> None:
    words = prepared("sweep", ["-m", "budget.memory_bytes.max=1GB,2GB", "model.call.height=256,512"])
    assert words == [
        *("-m", "++budget={memory_bytes:{}}", "budget.memory_bytes.max=1GB,2GB"),
        "++model.call.height=256,512",
    ]


def test_flags_and_everything_else_reach_hydra_as_they_were_typed() -> None:
    words = [
        "--config-dir",
        "own",
        "-m",
        "model=sd3,tiny_sd3",
        "~model.call.height",
        "sampler.n_trials=3",
        "a b",
        "x=[a",
    ]
    assert prepared("sweep", words) == words


# Labels


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("sweep=threshold", "sweeps=threshold"),
        ("sweep=tpe", "sampler=tpe"),
        ("study=threshold", "sweeps=threshold"),
        ("study=sd3", "model=sd3"),
        ("model.name=sd3", "model=sd3"),
        ("sweep=mine,threshold", "sweeps=threshold"),
    ],
)
def test_a_label_that_was_meant_for_a_group_is_refused_with_the_group_s_name(override: str, meant: str) -> None:
    label, _, value = override.replace("mine,", "").partition("=")
    with pytest.raises(ConfigError) as told:
        compose("sweep", [override])
    assert str(told.value).startswith(f"{label}='{value}' is a label; did you mean {meant}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "overrides", [["sweep=mine"], ["study=my-sd3"], ["sweeps=threshold", "study=threshold"], ["sweep=default"]]
)
def test_a_label_that_cannot_be_mistaken_is_kept(overrides: list[str]) -> None:
    name, _, value = overrides[-1].partition("=")
    assert getattr(compose("sweep", overrides), name) == value


def test_the_name_of_a_study_on_disk_is_never_mistaken() -> None:
    for command in ("report", "export", "verify"):
        assert compose(command, ["study=threshold"]).study == "threshold"


# Mistakes


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model=sd33"], ["model='sd33'", "tiny_sd3", "Did you mean 'sd3'"]),
        (["sweeps=treshold"], ["sweeps='treshold'", "Did you mean 'threshold'"]),
        (["sampler.n_trial=3"], ["'sampler.n_trial'", "'sampler.n_trials'"]),
        (["sampler.name=tpee"], ["sampler.name", "'tpee'", "Did you mean 'tpe'"]),
        (["sampler.n_trials=many"], ["sampler.n_trials", "many"]),
        (["model.dtype=float8"], ["model.dtype", "float8", "bfloat16"]),
        (["modell=sd3"], ["'modell'", "model=sd3"]),
        (["model.kall.height=3"], ["model.kall", "'model.call'"]),
        (["model.component=transformer"], ["'model.component'", "'model.components'"]),
        (["model.skips.mine=attn"], ["model.skips.mine=attn", "must be a list", "[attn]"]),
        (["metrics=snr_db"], ["metrics=snr_db", "must be a list", "[snr_db]"]),
        (["search=tpe"], ["'search'", "did you mean sampler=tpe"]),
        (["search.n_trials=3"], ["'search.n_trials'", "'sampler.n_trials'"]),
        (["score=quick"], ["'score'", "did you mean evaluation=quick"]),
        (["score.prompts=2"], ["'score.prompts'", "'evaluation.prompts'"]),
        (["profile.samples=2"], ["'profile.samples'", "'sensitivity.samples'"]),
        (["budget.memory_mb=3"], ["budget='memory_mb'", "Did you mean 'memory_bytes'", "budget.METRIC.max=VALUE"]),
        (["budget.memory_bytes=3"], ["budget.memory_bytes.max=3 or budget.memory_bytes.min=3"]),
        (["budget.memory_bytes.most=3"], ["'budget.memory_bytes.most'", "budget.memory_bytes.max"]),
        (["budget=none"], ["budget=none", "budget.NAME=VALUE"]),
        (["skips=flux"], ["'skips'", "'skips@model.skips'"]),
        (["+colour=red"], ["quantlab sweep has no option 'colour'"]),
        (["+model.colour=red"], ["'model.colour'", "model.call"]),
        (["~budget.latency_ms"], ["budget.latency_ms"]),
        (["threshold"], ["'threshold'", "OPTION=VALUE"]),
        (["space.skip=[none"], ["cannot be read", "'space.skip=\"[none\"'"]),
    ],
)
def test_a_mistyped_override_names_the_field_the_value_and_the_choices(overrides: list[str], told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("sweep", overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in told if part not in message] == []


def test_a_group_that_a_command_does_not_take_is_no_option_of_it() -> None:
    with pytest.raises(ConfigError, match="quantlab run has no option 'sampler'"):
        compose("run", ["sampler=tpe"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_usual_option_of_a_group_is_there(command: str) -> None:
    for group, usual in groups(command).items():
        assert usual is None or usual in options(group)


def test_an_option_of_a_folder_of_one_s_own_is_not_taken_for_the_culprit() -> None:
    """Kind: what the search composes by itself, without the folder that --config-dir names."""
    assert culprit("run", ["model=elsewhere", "evaluation.images=${nowhere}"]) == "evaluation.images=${nowhere}"
    assert culprit("run", ["model=elsewhere"]) is None
