"""What the local executor does beside the contract: it opens late, closes for a proof, and knows a lost device."""

import traceback

import pytest
import torch
from executors.contract import INT8, LOCAL, NF4, SCHEMES, setup
from torch import nn

from quantlab.config import ExecutorConfig
from quantlab.errors import ConfigError, DeviceLostError, KernelError, OutOfMemoryError
from quantlab.executors import Describe, Evaluate, GenerateImages, MeasureSensitivities, open_executor
from quantlab.executors.local import MESSAGE_LENGTH, LocalExecutor
from quantlab.frozen import FrozenDict
from quantlab.lab import evaluate as evaluations
from quantlab.lab import lab as labs
from quantlab.lab import layer_cache, warm_up
from quantlab.lab.guard import DeviceGuard
from quantlab.metrics import Metric, metric
from quantlab.metrics.metric import Paired, from_samples
from quantlab.outcomes import ErrorType, Failure, GeneratedImages, Measurement
from quantlab.spec import PipelineSpec


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(setup()) as executor:
        assert isinstance(executor.submit(Describe()).result().samples, int)
        yield executor


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_no_lab_is_opened_before_a_task_needs_one(monkeypatch):
    monkeypatch.setattr("quantlab.lab.Lab", raising(AssertionError("opened")))
    with open_executor(setup(), LOCAL) as executor:
        assert executor.slots == 1
        with pytest.raises(AssertionError, match="opened"):
            executor.submit(Describe()).result()


def test_options_are_refused_because_none_acts():
    with pytest.raises(ConfigError, match=r"executor\.options=.*'workers': 2.* has no meaning"):
        open_executor(setup(), ExecutorConfig(options={"workers": 2}))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KernelError("N must be divisible\nby block_n " + "x" * 999), ErrorType.kernel_refused),
        (OutOfMemoryError("out of memory: CUDA out of memory"), ErrorType.out_of_memory),
    ],
    ids=["kernel", "memory"],
)
def test_a_setting_s_doing_is_a_failure_with_one_line(executor, monkeypatch, error, expected):
    monkeypatch.setattr(evaluations, "replay", raising(error))
    outcome = executor.submit(Evaluate(NF4)).result()
    assert outcome == Failure(NF4, expected, outcome.message, outcome.wall_s)
    assert outcome.message == " ".join(str(error).split())[:MESSAGE_LENGTH]
    assert outcome.wall_s > 0


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), RuntimeError("a bug"), AssertionError("a bug")])
def test_a_bug_of_ours_is_no_failure_of_the_setting(executor, monkeypatch, error):
    monkeypatch.setattr(evaluations, "replay", raising(error))
    assert executor.submit(Evaluate(NF4)).exception() is error


@pytest.mark.parametrize("module", [layer_cache, warm_up], ids=["making", "running"])
def test_a_bug_of_ours_while_layers_are_made_or_run_shows_its_traceback(monkeypatch, module):
    name = {layer_cache: "layer_bytes", warm_up: "peak_above_start"}[module]
    monkeypatch.delattr(module, name)
    with LocalExecutor(setup()) as executor:
        error = executor.submit(Evaluate(NF4)).exception()
        assert isinstance(error, NameError)
        assert name in str(error)
        monkeypatch.undo()
        assert isinstance(executor.submit(Evaluate(NF4)).result(), Measurement)


def test_a_missing_attribute_that_a_line_of_ours_asks_a_module_for_is_a_bug_of_ours(monkeypatch):
    monkeypatch.setattr(layer_cache.bnb_layers, "make", lambda spec, layer, device: nn.Embedding(2, 2))
    with LocalExecutor(setup()) as executor:
        error = executor.submit(Evaluate(NF4)).exception()
    assert isinstance(error, AttributeError)
    assert "'Embedding' object has no attribute 'bias'" in str(error)


OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError("the list is too long"),
    RuntimeError("CUDA error: out of memory"),
    KeyError("CUDA error: out of memory"),
]
PLACES = ["observe", "aggregate", "compute", "static"]


@pytest.mark.parametrize(
    ("where", "error"),
    [
        pytest.param(where, error, marks=[] if one == other else pytest.mark.long, id=f"{where}-{type(error).__name__}")
        for one, where in enumerate(PLACES)
        for other, error in enumerate(OF_MEMORY)
    ],
)
def test_what_a_person_s_own_metric_raises_is_raised_as_it_was(where, error):
    tries = []

    def own(*args):
        tries.append(args)
        raise error

    paired = Paired("own")
    metrics = {
        "observe": metric(own, name="own"),
        "aggregate": from_samples("own", "", "minimize", "own", lambda *args: {"own": 0.0}, own, paired),
        "compute": Metric("own", "", "minimize", "own", own),
        "static": Metric("own", "", "minimize", "own", own, static=True),
    }
    with LocalExecutor(setup(metrics=("snr_db", metrics[where]))) as executor:
        executor.submit(Evaluate(INT8)).exception()  # its layers stay, and are what the guard would drop
        tries.clear()
        found = executor.submit(Evaluate(NF4)).exception()
    assert found is error
    assert len(tries) == 1  # not once more beside fewer layers: the metric is not the setting's doing
    assert traceback.extract_tb(found.__traceback__)[-1].name == "own"


def test_an_interruption_goes_through(executor, monkeypatch):
    monkeypatch.setattr(evaluations, "replay", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        executor.submit(Evaluate(NF4))
    monkeypatch.undo()
    assert isinstance(executor.submit(Evaluate(NF4)).result(), Measurement)


def test_sensitivities_that_fail_are_a_failure_of_the_reference(executor, monkeypatch):
    monkeypatch.setattr("quantlab.lab.measure_sensitivities", raising(OutOfMemoryError("out of memory")))
    task = MeasureSensitivities("transformer", SCHEMES, FrozenDict())
    outcome = executor.submit(task).result()
    assert (outcome.spec, outcome.error) == (PipelineSpec.reference(("transformer",)), ErrorType.out_of_memory)


def test_running_out_of_memory_while_the_lab_opens_is_no_setting_s_failure(monkeypatch):
    monkeypatch.setattr("quantlab.lab.Lab", raising(OutOfMemoryError("out of memory while loading tiny_sd3")))
    with LocalExecutor(setup()) as executor:
        for _ in range(2):
            with pytest.raises(OutOfMemoryError, match="while loading tiny_sd3"):
                executor.submit(Evaluate(NF4)).result()


def test_the_reference_s_images_are_generated_once_and_equal_themselves(executor, monkeypatch):
    reference = PipelineSpec.reference(("transformer",))
    first = executor.submit(GenerateImages(reference)).result()
    assert isinstance(first, GeneratedImages)
    assert first.scores["psnr_db"] == 100
    assert first.suffix == ".png"
    assert first.files[0].startswith(b"\x89PNG")
    monkeypatch.setattr(labs.Lab, "generate", raising(AssertionError("generated again")))
    assert executor.submit(GenerateImages(reference)).result().files == first.files


def test_what_broke_the_device_is_a_failure_and_every_later_task_says_so(monkeypatch):
    def lose(guard):
        guard.lost = "CUDA error: device-side assert triggered"

    with LocalExecutor(setup()) as executor:
        executor.submit(Describe()).result()
        monkeypatch.setattr(DeviceGuard, "check", lose)
        monkeypatch.setattr(evaluations, "replay", raising(RuntimeError("CUDA error:\n device-side assert")))
        outcome = executor.submit(Evaluate(NF4)).result()
        assert (outcome.error, outcome.message) == (ErrorType.device_lost, "CUDA error: device-side assert")
        for task in (Evaluate(NF4), Describe()):
            with pytest.raises(DeviceLostError, match="device-side assert triggered"):
                executor.submit(task).result()
