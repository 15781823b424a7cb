"""Under compiled blocks settings are swapped without compiling a layout twice, and measure as a fresh load does."""

from __future__ import annotations

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, Lab
from quantlab.config import Device
from quantlab.config.compose import compose
from quantlab.errors import ConfigError, KernelError
from quantlab.lab import measure_noise_floor, verify
from quantlab.lab.compilation import Compilations, Compiler
from quantlab.outcomes.noise_floor import COMPILED
from quantlab.spec import PipelineSpec, QuantSpec, ReferenceSpec

QUICK = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0", "model.call.num_inference_steps=2")
COMPILING = (*QUICK, "deployment=compiled")
NF4 = Int4Spec(quant_type="nf4", compute_dtype="float16")


def verified(spec: QuantSpec, output_sha256: str) -> bool:
    config = compose("run", [*COMPILING, "device=cpu"])
    whole, what = PipelineSpec({"transformer": spec}), spec.to_config()
    assert what is not None
    how = whole, {"transformer": what.to_dict()}, output_sha256, None, config.deployment
    return verify(config.model, config.evaluation, Device.cpu, config.lab, None, *how).equal


def test_a_layout_is_compiled_once_and_equals_a_fresh_compiled_load() -> None:
    with Lab.open("tiny_sd3", *COMPILING, device="cpu") as lab:
        first = lab.measure(NF4)
        reference = lab.measure(ReferenceSpec())
        again = lab.measure(NF4)
        floor = measure_noise_floor(lab)
        blocks = lab.reference.components["transformer"].transformer_blocks
        assert all(block._compiled_call_impl is not None for block in blocks)
    assert first.compilations > 0
    assert first.compile_s > 0
    assert (again.compilations, again.output_sha256) == (0, first.output_sha256)
    assert reference.snr_db == 100
    assert 30 < floor.snr_db[COMPILED] < 100
    assert all(block._compiled_call_impl is None for block in blocks)
    with Lab.open("tiny_sd3", *QUICK, device="cpu") as lab:
        assert lab.measure(NF4).output_sha256 != first.output_sha256
    assert verified(NF4, first.output_sha256)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:bf16 and fp16 are mixed")  # torch's C++ code generator says so
@pytest.mark.parametrize("spec", [Int8Spec(threshold=3.0), Int4Spec(quant_type="nf4", compute_dtype="bfloat16")])
def test_a_setting_that_breaks_the_graph_leaves_the_others_as_they_were(spec: QuantSpec) -> None:
    with Lab.open("tiny_sd3", *COMPILING, device="cpu") as lab:
        before = lab.measure(NF4)
        breaking = lab.measure(spec)
        after = lab.measure(NF4)
    assert breaking.graph_breaks > 0
    assert after.output_sha256 == before.output_sha256
    assert verified(spec, breaking.output_sha256)


@pytest.mark.long
def test_a_setting_that_cannot_be_one_graph_is_a_failure_with_its_reason() -> None:
    with (
        Lab.open("tiny_sd3", *COMPILING, "deployment.fullgraph=true", device="cpu") as lab,
        pytest.raises(KernelError, match="Unsupported"),
    ):
        lab.measure(Int4Spec(quant_type="nf4", compute_dtype="bfloat16"))


def test_an_attention_backend_that_nothing_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"deployment.attention='nativ' is not known.*'native'"):
        Lab.open("tiny_sd3", *QUICK, "deployment.attention=nativ", device="cpu")
    with pytest.raises(ConfigError, match=r"deployment.attention='native' has no effect"):
        Lab.open("tiny_sd3", *QUICK, "deployment.attention=native", device="cpu")


def test_settings_that_are_known_to_break_graphs_share_code_with_those_of_their_kind_and_skip_list_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resets: list[str] = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append("reset"))
    counts = Compilations()
    monkeypatch.setattr("quantlab.lab.compilation.compilations", lambda: counts)

    def runs(graphs: int, breaks: int) -> object:
        left = [graphs]

        def run() -> None:
            nonlocal counts
            counts, left[0] = counts + Compilations(left[0], breaks if left[0] else 0), 0

        return run

    compiler = Compiler(is_used=True)
    clean, breaking, alike, keeping = (
        PipelineSpec({"transformer": spec})
        for spec in (NF4, Int8Spec(threshold=6.0), Int8Spec(threshold=3.0), Int8Spec(threshold=6.0, skip=("ff",)))
    )
    renewed: list[str] = []
    for spec, graphs, breaks in (
        *((clean, 2, 0), (breaking, 5, 3), (clean, 2, 0)),
        *((breaking, 5, 3), (breaking, 1, 1), (alike, 1, 1), (keeping, 5, 3)),
    ):
        compiler.ready(spec, lambda: renewed.append("renewed"), runs(graphs, breaks))  # type: ignore[arg-type]
    assert len(renewed) == 1  # the first that broke graphs, which nobody knew of
    assert len(resets) == 4  # then, before the clean one, the next that breaks them, and another skip list
