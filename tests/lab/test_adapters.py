"""Settings under an adapter, assembled in memory, equal a documented load with the adapter put on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from quantlab import Int4Spec, Int8Spec, Lab
from quantlab.config import Device
from quantlab.config.compose import compose
from quantlab.errors import ConfigError
from quantlab.lab import measure_noise_floor, verify
from quantlab.lab.adapters import fingerprint
from quantlab.outcomes.noise_floor import FLOAT32, RUN_TWICE
from quantlab.pipelines.source import open_source
from quantlab.spec import PipelineSpec, QuantSpec, ReferenceSpec

QUICK = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0", "model.call.num_inference_steps=2")


def weights(prefix: str, dtype: torch.dtype) -> tuple[Any, dict[str, torch.Tensor]]:
    """An adapter on attention, feed-forward and a layer outside of blocks."""
    from peft import LoraConfig, get_peft_model_state_dict

    source = open_source(compose("run", [*QUICK, "device=cpu"]).model)
    component: Any = source.component("transformer", torch.device("cpu"))
    torch.manual_seed(0)
    layers = ["to_q", "add_k_proj", "ff.net.2", "proj_out"]
    component.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=layers, init_lora_weights=False))
    state = get_peft_model_state_dict(component)
    return component.peft_config["default"], {prefix + n: t.to(dtype).contiguous() for n, t in state.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in ("float16", "float32", "peft", "encoders")}
    for name in ("float16", "float32"):
        _, state = weights("transformer.", getattr(torch, name))
        save_file(state, found[name] / "pytorch_lora_weights.safetensors")
    config, state = weights("base_model.model.", torch.float32)
    config.save_pretrained(found["peft"])
    save_file(state, found["peft"] / "adapter_model.safetensors")
    layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_"
    some = {f"{layer}A.weight": torch.ones(2, 32), f"{layer}B.weight": torch.ones(32, 2)}
    save_file(some, found["encoders"] / "pytorch_lora_weights.safetensors")
    return found


def equal_to_a_documented_load(lora: str, spec: QuantSpec, sha: str) -> bool:
    config = compose("run", [*QUICK, f"deployment.lora={lora}", "device=cpu"])
    what = spec.to_config()
    configs = {} if what is None else {"transformer": what.to_dict()}
    how = PipelineSpec({"transformer": spec}), configs, sha, None, config.deployment
    return verify(config.model, config.evaluation, Device.cpu, config.lab, None, *how).equal


@pytest.mark.parametrize(
    "name",
    [
        "float16",
        "float32",
        pytest.param("peft", marks=pytest.mark.long),
        pytest.param("random:4", marks=pytest.mark.long),
    ],
)
def test_every_setting_equals_a_documented_load_with_the_adapter_on(name: str, folders: dict[str, Path]) -> None:
    lora = str(folders.get(name, name))
    specs = (
        *(Int8Spec(threshold=6.0), Int8Spec(threshold=0.0, skip=("ff",)), Int4Spec("nf4", double_quant=True)),
        *(Int4Spec("nf4", double_quant=True, compute_dtype="bfloat16"), ReferenceSpec()),
        *(Int4Spec("fp4", compute_dtype="float32"), Int8Spec(threshold=6.0)),
    )
    with Lab.open("tiny_sd3", *QUICK, f"deployment.lora={lora}", device="cpu") as lab:
        found = [lab.measure(spec) for spec in specs]
    assert found[0].output_sha256 == found[-1].output_sha256
    assert found[4].snr_db == 100
    for spec, measured in zip(specs, found, strict=True):
        assert equal_to_a_documented_load(lora, spec, measured.output_sha256), spec.key


def test_an_adapter_changes_what_is_measured_and_is_gone_afterwards(folders: dict[str, Path]) -> None:
    spec = Int4Spec("nf4")
    source = open_source(compose("run", [*QUICK, "device=cpu"]).model)
    pipeline = source.pipeline({"transformer": source.component("transformer", torch.device("cpu"))})
    before = dict(pipeline.transformer.named_modules())
    with Lab.open(pipeline, *QUICK, f"deployment.lora={folders['float16']}", device="cpu") as lab:
        with_it, floor = lab.measure(spec), measure_noise_floor(lab)
    assert dict(pipeline.transformer.named_modules()) == before
    with Lab.open(pipeline, *QUICK, device="cpu") as lab:
        without = lab.measure(spec)
    assert with_it.metrics["memory_bytes"] > without.metrics["memory_bytes"]
    assert with_it.snr_db != without.snr_db
    assert floor.snr_db[RUN_TWICE] == 100


def test_the_reference_in_another_dtype_has_the_adapter_as_well(folders: dict[str, Path]) -> None:
    with Lab.open("tiny_sd3", *QUICK, f"deployment.lora={folders['float16']}", device="cpu") as lab:
        floor = measure_noise_floor(lab).snr_db[FLOAT32]
    assert floor is not None
    assert floor > 40  # without the adapter it is another model


@pytest.mark.long
def test_sensitivities_are_measured_with_the_adapter_on(folders: dict[str, Path]) -> None:
    from quantlab.config import SensitivityConfig
    from quantlab.lab.sensitivities import measure_sensitivities

    tables = []
    for more in ((), (f"deployment.lora={folders['float16']}",)):
        with Lab.open("tiny_sd3", *QUICK, *more, device="cpu") as lab:
            who = {"sample set": lab.sample_set.fingerprint}
            tables.append(measure_sensitivities(lab, "transformer", SensitivityConfig(), who).table)
    plain, adapted = tables
    assert list(plain["layer"]) == list(adapted["layer"])
    assert list(plain["bytes"]) == list(adapted["bytes"])
    assert (plain["error"] != adapted["error"]).any()


def test_what_cannot_be_put_on_is_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="changes text encoders, whose embeddings are recorded without it"):
        Lab.open("tiny_sd3", *QUICK, f"deployment.lora={folders['encoders']}", device="cpu")
    with pytest.raises(ConfigError, match="cannot be read"):
        Lab.open("tiny_sd3", *QUICK, f"deployment.lora={tmp_path}", device="cpu")
    layer = "transformer.no.layer.lora_"
    other = {f"{layer}A.weight": torch.ones(2, 8), f"{layer}B.weight": torch.ones(8, 2)}
    save_file(other, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(ConfigError, match=r"cannot be put on the reference: .*no.layer"):
        Lab.open("tiny_sd3", *QUICK, f"deployment.lora={tmp_path}", device="cpu")


def test_no_pickle_is_read_and_a_damaged_file_is_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    _, state = weights("transformer.", torch.float16)
    torch.save(state, tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(ConfigError, match=r"deployment.lora="):
        Lab.open("tiny_sd3", *QUICK, f"deployment.lora={tmp_path}", device="cpu")
    for name, file in (("float16", "pytorch_lora_weights"), ("peft", "adapter_model")):
        damaged = tmp_path / name
        shutil.copytree(folders[name], damaged)
        (damaged / f"{file}.safetensors").write_bytes(b"not safetensors")
        with pytest.raises(ConfigError, match=r"deployment.lora="):
            Lab.open("tiny_sd3", *QUICK, f"deployment.lora={damaged}", device="cpu")
    (tmp_path / "peft" / "adapter_config.json").write_text("[")
    with pytest.raises(ConfigError, match=r"deployment.lora="):
        Lab.open("tiny_sd3", *QUICK, f"deployment.lora={tmp_path / 'peft'}", device="cpu")


def test_an_adapter_is_known_by_its_weights_not_by_its_place(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["float16"] / "pytorch_lora_weights.safetensors"
    moved = tmp_path / file.name
    moved.write_bytes(file.read_bytes())
    assert fingerprint(str(tmp_path)) == fingerprint(str(folders["float16"])) == fingerprint(str(moved))
    assert fingerprint(str(folders["float32"])) != fingerprint(str(moved))
