"""Whole calls of the embedded pipeline in every deployment that needs a GPU."""

import pytest
import torch

from quantlab import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.config import Device
from quantlab.config.compose import compose
from quantlab.errors import DeploymentRefusedError
from quantlab.export import configs_for_verification
from quantlab.lab.deployer import Deployer
from quantlab.session.deploy import deployment
from quantlab.spec import PipelineSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(scope="module")
def deployer():
    config = compose("run", ["evaluation.images=1", "model.call.num_inference_steps=2"])
    deployer = Deployer(config.model, config.evaluation, Device.cuda)
    yield deployer
    deployer.close()


def called(deployer, spec, name):
    whole = PipelineSpec({"transformer": spec})
    return deployer.call(whole, configs_for_verification(whole), deployment(name))


@pytest.mark.parametrize("name", ["eager", "compiled", "model_offload", "sequential_offload", "batch4"])
def test_a_quantized_setting_is_called_beside_the_reference_in_the_same_deployment(deployer, name):
    for spec in (ReferenceSpec(), Int8Spec(threshold=0.0)):
        found = called(deployer, spec, name)
        assert found.image_s > 0
        assert found.first_s > 0
        assert found.peak_bytes > 0
        assert found.images_per_call == (4 if name == "batch4" else 1)
        assert (found.compilations > 0) == (name == "compiled")
    assert 10 < found.scores["psnr_db"] < 100


def test_group_offload_takes_the_reference_and_refuses_what_leaves_scales_on_the_host(deployer):
    assert called(deployer, ReferenceSpec(), "group_offload").image_s > 0
    for spec in (Int8Spec(threshold=0.0), Int4Spec(quant_type="nf4")):
        with pytest.raises(DeploymentRefusedError):
            called(deployer, spec, "group_offload")


def test_an_adapter_takes_time_on_a_quantized_base(deployer):
    pytest.importorskip("peft")
    assert called(deployer, Int4Spec(quant_type="nf4"), "lora").scores["psnr_db"] < 100
