"""What every executor must do. A test file of an executor imports all of this and defines the fixture ``opener``.

``opener`` is the ``open_executor`` of the executor's module.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from quantlab import Int4Spec, Int8Spec, PipelineSpec
from quantlab.config import Device, ExecutorConfig, SensitivityConfig
from quantlab.config.compose import compose
from quantlab.errors import ConfigError
from quantlab.executors import (
    Describe,
    Evaluate,
    EvaluateHeldOut,
    GenerateImages,
    LabSetup,
    MeasureNoiseFloor,
    MeasureSensitivities,
    Verify,
)
from quantlab.executors import serialization as tasks_as_json
from quantlab.executors.local import LocalExecutor
from quantlab.frozen import FrozenDict
from quantlab.metrics.metric import Paired
from quantlab.outcomes import (
    ErrorType,
    Failure,
    GeneratedImages,
    LabDescription,
    Measurement,
    NoiseFloor,
    Pruned,
    SensitivityTable,
    Verification,
)
from quantlab.outcomes import serialization as outcomes_as_json
from quantlab.search.racing import RacingPruner, Rule, rival

NF4, INT8 = (PipelineSpec({"transformer": spec}) for spec in (Int4Spec(), Int8Spec(6)))
EVERYTHING = ("transformer_blocks", "proj_out", "norm_out", "context_embedder", "time_text_embed")
NOTHING = PipelineSpec({"transformer": Int4Spec(skip=EVERYTHING)})
SCHEMES = SensitivityConfig(samples=1, llm_int8_threshold=[0.0], bnb_4bit_quant_type=[])
TIMED = ("latency_ms", "latency_change_ms", "reference_latency_ms")
LOCAL = ExecutorConfig()


def setup(*overrides: str, **changes: object) -> LabSetup:
    """A lab on the embedded pipeline: five samples of one prompt, one image, one held-out prompt."""
    small = ("evaluation.prompts=1", "evaluation.timesteps=5", "evaluation.images=1", "evaluation.held_out=1")
    config = compose("run", ["model=tiny_sd3", "model.call.num_inference_steps=5", *small, *overrides])
    return replace(LabSetup(config.model, config.evaluation, Device.cpu), **changes)


@pytest.fixture(scope="module")
def progress():
    """What the executor reported."""
    return []


@pytest.fixture(scope="module")
def executor(opener, progress):
    with opener(setup(), LOCAL, progress.append) as executor:
        yield executor


@pytest.fixture(scope="module")
def nf4_row(executor):
    return executor.submit(Evaluate(NF4)).result()


@pytest.fixture(scope="module")
def tasks(nf4_row):
    """One task of each type by the type of its outcome."""
    return _tasks(nf4_row)


def _tasks(nf4_row):
    beaten = RacingPruner(
        (Rule("memory_bytes", 1, None), Rule("snr_db", -1, Paired("error", log=True))),
        (rival(3, _better(nf4_row), (Rule("memory_bytes", 1, None),)),),
        0.9,
    )
    config = {name: value for name, value in NF4["transformer"].to_config().to_dict().items() if name[0] != "_"}
    plain = FrozenDict({"transformer": FrozenDict(config | {"quant_method": "bitsandbytes"})})
    return {
        Measurement: Evaluate(NF4, samples=2),
        Pruned: Evaluate(NF4, pruner=beaten),
        Failure: Evaluate(NOTHING),
        LabDescription: Describe(),
        SensitivityTable: MeasureSensitivities("transformer", SCHEMES, FrozenDict({"model": "contract"})),
        NoiseFloor: MeasureNoiseFloor(),
        GeneratedImages: GenerateImages(NF4),
        Verification: Verify(NF4, plain, nf4_row.output_sha256, 1),
    }


def _better(row: Measurement) -> Measurement:
    """A measurement that beats another at every sample."""
    samples = [replace(s, values={**s.values, "error": s["error"] * (0.4 + 0.01 * s.step)}) for s in row.samples]
    return replace(row, samples=tuple(samples))


@pytest.fixture(scope="module")
def outcomes(executor, tasks):
    """What came of the tasks, all submitted before the first is waited for."""
    futures = {kind: executor.submit(task) for kind, task in tasks.items()}
    return {kind: future.result() for kind, future in reversed(futures.items())}


@pytest.fixture(scope="session")
def local_outcomes():
    """What the same tasks come to in this process."""
    with LocalExecutor(setup()) as executor:
        tasks = _tasks(executor.submit(Evaluate(NF4)).result())
        return {kind: executor.submit(task).result() for kind, task in tasks.items()}


def test_it_says_how_many_tasks_it_does_at_a_time(executor):
    assert executor.slots >= 1


def test_each_task_comes_to_its_type_of_outcome_in_whatever_order_they_end(outcomes):
    assert [kind for kind, outcome in outcomes.items() if type(outcome) is not kind] == []


def test_an_outcome_is_of_the_setting_that_was_asked_for(executor):
    futures = {spec: executor.submit(Evaluate(spec, samples=1)) for spec in (INT8, NF4, INT8)}
    assert {spec: future.result().spec for spec, future in reversed(futures.items())} == {INT8: INT8, NF4: NF4}


def test_equal_tasks_come_to_equal_outcomes_in_every_executor(outcomes, local_outcomes):
    for kind, outcome in outcomes.items():
        assert figures(outcome) == figures(local_outcomes[kind]), kind


def figures(outcome):
    """All of an outcome that no clock decides, as JSON."""

    def untimed(value):
        if isinstance(value, dict):
            plain = {name: untimed(item) for name, item in value.items() if name not in TIMED}
            return {name: item for name, item in plain.items() if not name.endswith("_s")}
        return [untimed(item) for item in value] if isinstance(value, list) else value

    return json.dumps(untimed(outcomes_as_json.to_dict(outcome)), sort_keys=True)


def test_held_out_prompts_are_others_than_those_of_the_samples(executor, nf4_row):
    unseen = executor.submit(EvaluateHeldOut(NF4)).result()
    assert {sample.prompt for sample in unseen.samples} == {1}
    assert {sample.prompt for sample in nf4_row.samples} == {0}


def test_a_setting_that_gives_no_measurement_is_a_failure_of_its_type(executor, outcomes):
    assert outcomes[Failure].spec == NOTHING
    assert outcomes[Failure].error is ErrorType.nothing_quantized
    assert "nothing is quantized" in outcomes[Failure].message
    assert executor.submit(GenerateImages(NOTHING)).result().error is ErrorType.nothing_quantized


def test_a_measurement_that_is_stopped_says_by_what(outcomes):
    stopped = outcomes[Pruned]
    assert (stopped.dominated_by, stopped.confidence, stopped.planned, stopped.saved) == (3, 0.9, 5, 1)


def test_a_verification_compares_with_what_was_measured(executor, tasks, outcomes):
    assert outcomes[Verification].equal
    other = executor.submit(replace(tasks[Verification], output_sha256="another")).result()
    assert not other.equal
    assert other.output_sha256 == outcomes[Verification].output_sha256


def test_a_mistake_of_the_user_s_is_raised_as_a_message(executor):
    typo = PipelineSpec({"transformer": Int4Spec(skip=("attention",))})
    with pytest.raises(ConfigError, match="'attention' matches no linear layer of transformer"):
        executor.submit(Evaluate(typo)).result()


def test_a_bug_is_raised_as_it_is_and_the_next_task_is_done(executor):
    with pytest.raises(TypeError, match="is no task"):
        executor.submit("not a task").result()
    assert isinstance(executor.submit(Evaluate(NF4, samples=1)).result(), Measurement)


OWN_METRICS = """
import pathlib

def largest_error(output, reference):
    return (output - reference).abs().max()

def broken(output, reference):
    if pathlib.Path(__file__).with_name("whole").exists():
        return 0.0
    raise ZeroDivisionError("the user's own")
"""


def test_a_metric_of_the_user_s_is_measured_and_what_it_raises_is_raised_as_it_is(opener, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN_METRICS)
    (tmp_path / "whole").touch()
    with opener(setup(metrics=("snr_db", f"{file}:largest_error", f"{file}:broken")), LOCAL, print) as executor:
        row = executor.submit(Evaluate(NF4, samples=2)).result()
        (tmp_path / "whole").unlink()
        with pytest.raises(ZeroDivisionError, match="the user's own"):
            executor.submit(Evaluate(NF4, samples=1)).result()
    assert set(row.metrics) == {"snr_db", "largest_error", "broken"}
    assert row.largest_error == pytest.approx(sum(sample["largest_error"] for sample in row.samples) / 2)
    assert row.largest_error > 0


def test_what_opening_a_lab_comes_to_is_no_setting_s_failure(opener):
    with (
        opener(setup("evaluation.prompts=9"), LOCAL, print) as executor,
        pytest.raises(ConfigError, match=r"evaluation\.prompts=9"),
    ):
        executor.submit(Evaluate(NF4)).result()


def test_a_long_task_reports_how_far_it_is(tasks, outcomes, progress):
    task, table = tasks[SensitivityTable], outcomes[SensitivityTable]
    done = threading.Event()
    for _ in range(50):  # reports may lag behind
        mine = [report for report in list(progress) if report.task == task]
        if mine and mine[-1].done == mine[-1].total:
            break
        done.wait(0.1)
    assert mine[-1].done == mine[-1].total == len(table.layers)


def test_tasks_survive_json(tasks):
    for task in tasks.values():
        assert tasks_as_json.from_dict(json.loads(json.dumps(tasks_as_json.to_dict(task)))) == task


def test_outcomes_survive_json(outcomes):
    for kind, outcome in outcomes.items():
        text = json.dumps(outcomes_as_json.to_dict(outcome))
        again = outcomes_as_json.from_dict(json.loads(text))
        assert type(again) is kind
        assert json.dumps(outcomes_as_json.to_dict(again)) == text
        if kind is not SensitivityTable:  # a table is compared by its text
            assert again == outcome
