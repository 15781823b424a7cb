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
from quantlab.pipelines.folder import check_weights
from quantlab.pipelines.layout import is_lfs_pointer, read_layout
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


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def test_a_pointer_of_git_lfs_is_told_from_weights_and_from_nothing(tmp_path: Path) -> None:
    for name, content in {"a": POINTER, "b": "version https://example.org", "c": "", "d": "version"}.items():
        (tmp_path / name).write_text(content)
    assert [is_lfs_pointer(tmp_path / name) for name in "abcd"] == [True, False, False, False]
    assert not is_lfs_pointer(tmp_path / "nowhere")
    assert not is_lfs_pointer(tmp_path)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_weights_that_git_lfs_did_not_fetch_are_refused_with_what_to_run(folder: Path, part: str) -> None:
    """Kind: a clone without Git LFS; a library would say that a header is too large."""
    (folder / part / WEIGHTS).write_text(POINTER)
    with pytest.raises(ModelError, match=rf"{part}/{WEIGHTS} is a Git LFS pointer, .*; run `git lfs pull`"):
        open_source(model(folder))


def renamed(folder: Path, part: str, name: str) -> None:
    (folder / part / WEIGHTS).rename(folder / part / name)


@pytest.mark.parametrize(
    "name",
    [
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "diffusion_pytorch_model-00001-of-00001.fp16.safetensors",
    ],
)
@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_weights_of_one_variant_alone_are_refused_with_the_option_to_add(folder: Path, part: str, name: str) -> None:
    """Kind: a folder of which a library says that there are no weights."""
    renamed(folder, part, name)
    message = rf"{part} holds weights of the variant fp16 alone; add model\.variant=fp16$"
    with pytest.raises(ModelError, match=message):
        open_source(model(folder))


def test_weights_beside_a_variant_or_in_shards_are_no_variant_alone(folder: Path) -> None:
    shutil.copy(folder / "vae" / WEIGHTS, folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    open_source(model(folder))
    check_weights(folder / "vae")
    shutil.rmtree(folder / "vae")
    (folder / "vae").mkdir()
    save_file({"a": torch.ones(2)}, folder / "vae" / "diffusion_pytorch_model-00001-of-00002.safetensors")
    check_weights(folder / "vae")


def test_a_variant_that_one_part_has_is_enough_and_one_that_none_has_is_refused(folder: Path) -> None:
    renamed(folder, "vae", "diffusion_pytorch_model.fp16.safetensors")
    open_source(model(folder, variant="fp16"))
    with pytest.raises(ModelError, match=r"no part of it has weights of model\.variant='bf16'"):
        open_source(model(folder, variant="bf16"))


def test_a_component_of_a_class_that_its_library_lacks_is_refused_and_one_that_has_code_besides_is_not(
    folder: Path,
) -> None:
    changed(folder / "transformer" / "config.json", lambda data: {**data, "auto_map": {"AutoModel": "my.Model"}})
    open_source(model(folder))  # the library's own class is taken
    changed(folder / "model_index.json", lambda data: {**data, "transformer": ["diffusers", "MyTransformer"]})
    with pytest.raises(ModelError, match=r"names the class 'MyTransformer', which diffusers [\d.]+ lacks; it needs"):
        open_source(model(folder))


def test_a_pipeline_that_needs_code_of_the_repository_s_own_is_refused(folder: Path) -> None:
    changed(folder / "model_index.json", lambda data: {**data, "_class_name": ["my_pipeline", "Mine"]})
    with pytest.raises(ModelError, match="its pipeline Mine is code of the repository's own, "):
        open_source(model(folder))


@pytest.mark.parametrize("class_name", [None, [], 3, {}])
def test_an_index_whose_class_is_no_name_is_refused(folder: Path, class_name: object) -> None:
    """Kind: JSON that is damaged, of another type."""
    changed(folder / "model_index.json", lambda data: {**data, "_class_name": class_name})
    with pytest.raises(ModelError):
        load_pipeline(model(folder))


def test_the_layout_of_a_pipeline_is_its_parts_with_their_libraries(folder: Path) -> None:
    changed(folder / "model_index.json", lambda data: {**data, "safety_checker": [None, None], "_note": ["a", "b"]})
    layout = read_layout(folder, "it")
    assert (layout.class_name, layout.is_pipeline) == ("StableDiffusion3Pipeline", True)
    assert layout.parts["transformer"] == ("diffusers", "SD3Transformer2DModel")
    assert layout.parts["text_encoder_3"] == ("transformers", "T5EncoderModel")
    assert not {"safety_checker", "_note", "_class_name"} & set(layout.parts)
    assert layout.home("vae") == folder / "vae"
    assert layout.dtype("transformer") == "F16"
    assert layout.dtype("scheduler") is None


@pytest.fixture
def encoder(folder: Path) -> Path:
    """A model of transformers alone, in a folder."""
    return folder / "text_encoder_3"


def test_a_folder_with_a_config_json_alone_is_a_transformers_model(encoder: Path) -> None:
    layout = read_layout(encoder, "it")
    assert (layout.class_name, layout.is_pipeline) == ("T5EncoderModel", False)
    assert layout.parts == {"model": ("transformers", "T5EncoderModel")}
    assert layout.home("model") == encoder
    assert layout.dtype("model") == "F16"
    source = open_source(model(encoder, components=["model"]))
    assert source.sizes("model").linear_weights > 0
    component = source.component("model", CPU)
    assert type(component).__name__ == "T5EncoderModel"


@pytest.mark.parametrize("architectures", [None, [], "T5EncoderModel"])
def test_a_model_that_does_not_say_its_class_is_an_auto_model(encoder: Path, architectures: object) -> None:
    changed(encoder / "config.json", lambda data: {**data, "architectures": architectures})
    assert read_layout(encoder, "it").class_name == "AutoModel"


def test_a_part_of_a_pipeline_alone_is_refused_with_what_to_give(folder: Path) -> None:
    message = "it holds a SD3Transformer2DModel alone; give the folder of the pipeline around it"
    with pytest.raises(ModelError, match=message):
        read_layout(folder / "transformer", "it")


def test_a_folder_of_nothing_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^it is no model: it has neither a model_index\.json .* nor a config\.json"):
        read_layout(tmp_path, "it")


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}", b"\xff" * 8 + b"{}", b"\x02\0\0\0\0\0\0\0[]"])
def test_damaged_weights_have_no_dtype(folder: Path, content: bytes) -> None:
    (folder / "transformer" / WEIGHTS).write_bytes(content)
    assert read_layout(folder, "it").dtype("transformer") is None
