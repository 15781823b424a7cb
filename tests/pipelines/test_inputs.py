"""What a pipeline is given for an example: files, drawn ones, and each entry of a list in its turn."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quantlab.config import ModelConfig
from quantlab.errors import ConfigError
from quantlab.metrics.results import pictured, to_file
from quantlab.pipelines.inputs import FRAMES, RATE, SIDE, digest, drawn_for, example


class Takes:
    """A pipeline that needs an image and a mask, and may be given more."""

    def __call__(
        self, prompt: str, image: Any, mask_image: Any, video: Any | None = None, strength: float = 0.5
    ) -> None:
        pass


class Promptless:
    def __call__(self, image: Any = None) -> None:
        pass


def model(inputs: dict[str, Any] | None = None, call: dict[str, Any] | None = None) -> ModelConfig:
    return ModelConfig(name="a", inputs=inputs or {}, call=call or {})


def given(inputs: dict[str, Any], seed: int = 0, pipeline: Any = None, **call: Any) -> dict[str, Any]:
    return example(model(inputs, call), pipeline or Takes(), "a cat", seed)


def save_wav(file: Path, samples: Any, width: int = 2) -> None:
    with wave.open(str(file), "wb") as stream:
        stream.setnchannels(samples.shape[1])
        stream.setsampwidth(width)
        stream.setframerate(RATE)
        stream.writeframes(samples.tobytes())


def test_text_and_numbers_are_given_as_they_are() -> None:
    found = given({"strength": 0.25, "text": "a photo.of something", "none": None, "image": "image"})
    assert (found["prompt"], found["strength"], found["text"]) == ("a cat", 0.25, "a photo.of something")
    assert found["none"] is None


@pytest.mark.parametrize(("seed", "strength"), [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.1), (7, 0.2)])
def test_each_example_takes_its_entry_of_a_list_round_and_round(seed: int, strength: float) -> None:
    assert given({"strength": [0.1, 0.2, 0.3]}, seed)["strength"] == strength


def test_a_list_in_a_list_is_one_example_s() -> None:
    assert given({"sizes": [[1, 2], [3, 4]]}, 1)["sizes"] == [3, 4]
    assert given({"sizes": []})["sizes"] == []


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.webp", "a.bmp"])
def test_an_image_s_file_is_that_image_in_rgb(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    image = given({"image": str(tmp_path / name)})["image"]
    assert (image.mode, image.size) == ("RGB", (9, 6))
    assert np.array_equal(np.asarray(image), values)


def test_a_moving_image_s_file_is_the_list_of_its_frames(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(to_file(pictured(values))[0])
    video = given({"video": str(tmp_path / "a.png")})["video"]
    assert np.array_equal(np.stack([np.asarray(frame) for frame in video]), values)


def test_an_array_s_file_is_a_tensor_of_its_dtype(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    found = given({"embeds": str(tmp_path / "a.npy")})["embeds"]
    assert torch.equal(found, torch.arange(6.0).reshape(2, 3))


def test_audio_is_read_from_minus_1_to_1_with_its_channels_mixed(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", np.array([[2**14, 2**14], [-(2**15), -(2**15)], [2**14, 0]], np.int16))
    found = given({"audio": str(tmp_path / "a.wav")})["audio"]
    assert (found.dtype, found.tolist()) == (np.float32, [0.5, -1.0, 0.25])


def test_a_file_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", np.ones(2))
    assert given({"embeds": "~/a.npy"})["embeds"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "name", ["nowhere.png", "text.png", "empty.wav", "text.wav", "deep.wav", "text.npy", "object.npy"]
)
def test_a_file_that_cannot_be_read_is_one_line_that_names_the_argument(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.wav").touch()
    for kind in ("png", "wav", "npy"):
        (tmp_path / f"text.{kind}").write_text("this is text")
    save_wav(tmp_path / "deep.wav", np.zeros((4, 1), np.int32), width=4)
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match=rf"^model\.inputs\.image='.*{name}' cannot be read: ") as error:
        given({"image": str(tmp_path / name)})
    assert "\n" not in str(error.value)


def test_a_word_for_an_image_is_a_file_or_the_name_of_a_drawn_one() -> None:
    message = r"model\.inputs\.image='kitten' is no file of a known kind; give one, or of image, mask, video, audio"
    with pytest.raises(ConfigError, match=message):
        given({"image": "kitten"})
    assert given({"caption": "kitten"})["caption"] == "kitten"


def test_what_a_pipeline_needs_and_nobody_gives_is_drawn() -> None:
    assert drawn_for(model(), Takes()) == {"image": "image", "mask_image": "mask"}
    found = given({})
    assert found.keys() == {"prompt", "image", "mask_image"}
    assert found["image"].size == found["mask_image"].size == (SIDE, SIDE)
    assert found["image"].mode == "RGB"


@pytest.mark.parametrize("where", ["inputs", "call"])
def test_nothing_is_drawn_for_what_is_given(where: str) -> None:
    assert drawn_for(model(**{where: {"image": 3, "mask_image": 4}}), Takes()) == {}


def test_a_transformers_model_says_itself_what_it_needs() -> None:
    class Knows(Promptless):
        needs = ("audio",)

    assert drawn_for(model(), Knows()) == {"audio": "audio"}
    assert drawn_for(model({"audio": "a.wav"}), Knows()) == {}


def test_a_pipeline_without_a_prompt_is_given_none() -> None:
    assert "prompt" not in given({}, pipeline=Promptless())


def test_what_is_drawn_is_of_the_size_and_length_that_are_called_for() -> None:
    image, mask = (given({}, width=48, height=32)[name] for name in ("image", "mask_image"))
    assert image.size == mask.size == (48, 32)
    assert len(given({"video": "video"}, width=32, height=32)["video"]) == FRAMES
    video = given({"video": "video"}, width=32, height=16, num_frames=4)["video"]
    assert [frame.size for frame in video] == [(32, 16)] * 4


def test_what_is_drawn_shows_something_and_is_the_same_each_time() -> None:
    found, again = (given({"video": "video", "audio": "audio"}, width=64, height=64) for _ in range(2))
    for name in ("image", "mask_image", "audio"):
        assert np.array_equal(np.asarray(found[name]), np.asarray(again[name]))
    assert np.asarray(found["image"]).std() > 30
    assert len({frame.tobytes() for frame in found["video"]}) == FRAMES
    assert set(np.unique(np.asarray(found["mask_image"]))) == {0, 255}
    audio = found["audio"]
    assert (audio.shape, audio.dtype) == ((2 * RATE,), np.float32)
    assert 0.1 < np.abs(audio).max() <= 1


def test_the_digest_of_inputs_knows_the_content_of_files(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"

    def digested(value: Any) -> str:
        return digest(model({"embeds": value}))

    assert digest(model()) == ""
    np.save(file, np.zeros(2))
    first, listed = digested(str(file)), digested([str(file), 3])
    assert first == digested(str(file))
    assert len({first, listed, digested("b.npy"), digested(3)}) == 4
    np.save(file, np.ones(2))
    assert digested(str(file)) != first
    assert digested([str(file), 3]) != listed


def test_the_digest_of_inputs_knows_a_file_whose_suffix_is_in_capitals(tmp_path: Path) -> None:
    file = tmp_path / "A.PNG"
    Image.new("RGB", (4, 4)).save(file)
    before = digest(model({"image": str(file)}))
    Image.new("RGB", (4, 4), (9, 9, 9)).save(file)
    assert digest(model({"image": str(file)})) != before
