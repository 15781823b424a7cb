"""What can be wrong with a pipeline's folder is one line that names the file, before anything is measured or asked."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantlab.config import ModelConfig
from quantlab.errors import ModelError
from quantlab.pipelines.load import load_component, load_pipeline
from quantlab.pipelines.source import open_source

WEIGHTS = "diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


@pytest.fixture
def folder(random_sd3: Path, tmp_path: Path) -> Path:
    return shutil.copytree(random_sd3, tmp_path / "pipeline")


def model(folder: Path, **fields: Any) -> ModelConfig:
    return ModelConfig(name="sd3", path=str(folder), **fields)


def changed(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Replace a JSON file by what becomes of it."""
    data = json.loads(file.read_text())
    file.write_text(json.dumps(change(data)))


def with_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Store one matrix of the transformer in another dtype."""
    tensors = load_file(folder / "transformer" / WEIGHTS)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    save_file({**tensors, name: tensors[name].to(dtype)}, folder / "transformer" / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "\x00", "[" * 10**5]
)
def test_an_index_of_shards_that_names_no_files_is_refused_by_name(folder: Path, text: str) -> None:
    """Kind: JSON that is damaged, of another type, or nested so deep that reading it ends in a RecursionError."""
    (folder / "transformer" / f"{WEIGHTS}.index.json").write_text(text)
    with pytest.raises(ModelError, match=rf"transformer/{WEIGHTS}\.index\.json cannot be read"):
        open_source(model(folder))


@pytest.mark.parametrize("text", ['"owner/name"', '["owner/name"]', "3", "null", "{", "", "[" * 10**5, "\ufeff"])
@pytest.mark.parametrize("file", ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
def test_a_part_s_configuration_that_is_no_object_is_refused_by_name(folder: Path, file: str, text: str) -> None:
    """Kind: what a library would take for the name of a repository, and ask a hub for."""
    (folder / file).write_text(text)
    with pytest.raises(ModelError, match=rf"{file} cannot be read"):
        open_source(model(folder))


@pytest.mark.parametrize("offline", [True, False])
def test_a_local_folder_opens_no_socket_whatever_is_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """Kind: a folder that makes the program ask a hub."""

    def refuse(*args: Any) -> None:
        raise AssertionError(f"a socket was asked for: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    load_pipeline(model(folder))
    for part in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        for name in sorted(file.name for file in (folder / part).iterdir()):
            other = shutil.copytree(folder, folder.parent / f"{part}-{name}")
            (other / part / name).unlink()
            with contextlib.suppress(ModelError):  # any other error, a refused socket's among them, fails the test
                open_source(model(other)).sizes("transformer")
                load_pipeline(model(other))
            shutil.rmtree(other)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is offline


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao"}, "torchao"),
    ],
)
def test_a_checkpoint_that_is_quantized_already_is_no_reference(
    folder: Path, config: dict[str, Any], told: str
) -> None:
    """Kind: weights that no unquantized reference can be made of; its layers would pass for unquantized ones."""
    changed(folder / "transformer" / "config.json", lambda data: {**data, "quantization_config": config})
    with pytest.raises(ModelError, match=rf"transformer/config\.json says .* quantized already \({told}\)"):
        open_source(model(folder))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8])
def test_weights_in_8_bit_are_no_reference(folder: Path, dtype: torch.dtype) -> None:
    """Kind: weights that a plain load turns into 16 bits, and a quantized one refuses."""
    with_dtype(folder, dtype)
    with pytest.raises(ModelError, match=rf"{WEIGHTS}: .* is in [FUI]8.*, quantized already; .*16-bit or 32-bit"):
        open_source(model(folder))


def test_a_text_encoder_may_be_quantized_already(folder: Path) -> None:
    changed(
        folder / "text_encoder" / "config.json", lambda data: {**data, "quantization_config": {"quant_method": "x"}}
    )
    open_source(model(folder))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_in_any_floating_dtype_are_a_reference(folder: Path, dtype: torch.dtype) -> None:
    with_dtype(folder, dtype)
    open_source(model(folder))


@pytest.mark.parametrize("layers", [1, 99])
def test_a_configuration_that_does_not_fit_the_weights_is_refused(folder: Path, layers: int) -> None:
    """Kind: weights that are left out, or made up, without a word."""
    changed(folder / "transformer" / "config.json", lambda data: {**data, "num_layers": layers})
    with pytest.raises(
        ModelError, match=r"leaves \d+ weights unused, transformer_blocks|weights lack \d+ that|cannot be read"
    ):
        load_component(model(folder), "transformer", None, CPU)


def test_another_part_whose_configuration_asks_for_more_weights_is_refused_by_name(folder: Path) -> None:
    """Kind: a part beside the components, whose missing weights only its first move would show."""
    changed(folder / "vae" / "config.json", lambda data: {**data, "use_quant_conv": True})
    with pytest.raises(ModelError, match=r"vae: its weights lack \d+ that config\.json asks for, quant_conv"):
        load_pipeline(model(folder))


@pytest.mark.parametrize("text", ["null", "[]", "{"])
def test_a_damaged_file_of_a_tokenizer_is_named(folder: Path, text: str) -> None:
    """Kind: JSON that only a library reads; what it raises names no file."""
    (folder / "tokenizer" / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        load_pipeline(model(folder))


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_3"])
def test_a_tokenizer_without_its_vocabulary_is_refused_by_name(folder: Path, part: str) -> None:
    """Kind: a part that is there and holds nothing; the library makes one of no words of it."""
    shutil.rmtree(folder / part)
    (folder / part).mkdir()
    with pytest.raises(ModelError, match=rf"{part} holds no vocabulary"):
        load_pipeline(model(folder))
