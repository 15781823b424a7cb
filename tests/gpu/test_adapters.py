"""Settings under an adapter on CUDA equal a documented load with the adapter put on it."""

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.config import Device
from quantlab.config.compose import compose
from quantlab.lab import verify
from quantlab.spec import PipelineSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

pytest.importorskip("peft")

QUICK = ("evaluation.prompts=1", "evaluation.timesteps=2", "evaluation.images=0", "deployment.lora=random:8")
SPECS = (
    *(Int8Spec(threshold=6.0), Int8Spec(threshold=0.0), Int4Spec("nf4", double_quant=True)),
    *(Int4Spec("fp4", compute_dtype="bfloat16"), ReferenceSpec()),
)


def test_every_setting_equals_a_documented_load_with_the_adapter_on():
    with Lab.open("tiny_sd3", *QUICK, device="cuda") as lab:
        found = {spec: lab.measure(spec) for spec in SPECS}
        again = lab.measure(SPECS[0])
    assert again.output_sha256 == found[SPECS[0]].output_sha256
    config = compose("run", [*QUICK, "device=cuda"])
    for spec, measured in found.items():
        what = spec.to_config()
        configs = {} if what is None else {"transformer": what.to_dict()}
        how = PipelineSpec({"transformer": spec}), configs, measured.output_sha256, None, config.deployment
        assert verify(config.model, config.evaluation, Device.cuda, config.lab, None, *how).equal, spec.key
