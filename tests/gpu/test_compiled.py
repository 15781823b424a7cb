"""Settings swapped under compiled blocks on CUDA are those of a fresh compiled load."""

import pytest
import torch
from lab.parity_cases import save_medium_sd3

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.config import Device
from quantlab.config.compose import compose
from quantlab.lab import verify
from quantlab.spec import PipelineSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

NF4 = Int4Spec(quant_type="nf4", compute_dtype="float16")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("medium_sd3")
    save_medium_sd3(folder)
    samples = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0")
    return [f"model.path={folder}", *samples, "deployment=compiled"]


def test_swapped_settings_equal_a_fresh_compiled_load_and_seen_layouts_compile_nothing(overrides):
    with Lab.open("tiny_sd3", *overrides, device="cuda") as lab:
        first = {spec: lab.measure(spec) for spec in (NF4, Int8Spec(threshold=0.0), ReferenceSpec())}
        again = {spec: lab.measure(spec) for spec in first}
        breaking = lab.measure(Int8Spec(threshold=3.0))
        after = lab.measure(NF4)
    assert [found.compilations for found in again.values()] == [0, 0, 0]
    assert [again[spec].output_sha256 for spec in first] == [found.output_sha256 for found in first.values()]
    assert breaking.graph_breaks > 0
    assert after.output_sha256 == first[NF4].output_sha256
    config = compose("run", [*overrides, "device=cuda"])
    for spec, found in ((NF4, first[NF4]), (Int8Spec(threshold=3.0), breaking)):
        how = PipelineSpec({"transformer": spec}), {"transformer": spec.to_config().to_dict()}, found.output_sha256
        assert verify(
            config.model, config.evaluation, Device.cuda, config.lab, None, *how, None, config.deployment
        ).equal
