import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.tiny_sd3.architecture import clip_tokenizer, t5_tokenizer, words
from training.tiny_sd3.reading import read_scene, shows
from training.tiny_sd3.rendering import encode_scenes, render
from training.tiny_sd3.scenes import COLOURS, RELATIONS, SIZE, Scene, Thing, every_scene, held_out_scenes

SCENES = list(every_scene())
TRAINED = [scene for scene in SCENES if not scene.held_out]
scenes = st.sampled_from(SCENES)


def retold(scene):
    return Scene(scene.second, scene.background, RELATIONS[scene.relation], scene.first)


def image_of(scene, seed):
    image = render(encode_scenes([scene]), torch.Generator().manual_seed(seed))[0]
    return ((image + 1) * 127.5).round().permute(1, 2, 0).numpy().astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(scene=scenes, seed=st.integers(0, 2**32))
def test_reading_inverts_rendering(scene, seed):
    assert read_scene(image_of(scene, seed)) == scene.canonical


@settings(deadline=None, max_examples=30)
@given(shown=scenes, claimed=scenes, seed=st.integers(0, 99))
def test_an_image_shows_its_own_scene_and_no_other(shown, claimed, seed):
    assert shows(image_of(shown, seed), claimed) is (shown.canonical == claimed.canonical)


def test_an_image_of_noise_or_of_nothing_shows_no_scene():
    assert read_scene(np.full((SIZE, SIZE, 3), 245, np.uint8)) is None
    assert read_scene(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)) is None


def test_debris_beside_a_shape_is_not_a_clean_image():
    scene = Scene(Thing("red", "circle"), "white")
    image = image_of(scene, 0)
    assert shows(image, scene)
    image[5:11, 5:11] = COLOURS["blue"]
    assert not shows(image, scene)


@given(scene=st.sampled_from([scene for scene in SCENES if scene.second]))
def test_a_scene_and_its_other_telling_are_one_image_of(scene):
    assert retold(scene).canonical == scene.canonical
    assert retold(retold(scene)) == scene
    assert scene.canonical.canonical == scene.canonical


@given(scene=st.sampled_from([scene for scene in SCENES if scene.second]))
def test_a_scene_is_held_out_under_both_tellings(scene):
    assert scene.held_out is retold(scene).held_out


def test_no_held_out_image_is_trained_on():
    trained = {scene.canonical for scene in TRAINED}
    captions = {scene.caption for scene in TRAINED}
    held_out = held_out_scenes(len(SCENES))
    assert len(held_out) == len(SCENES) - len(TRAINED)
    assert not trained & {scene.canonical for scene in held_out}
    assert not captions & {scene.caption for scene in held_out}


def test_about_one_pair_in_ten_is_held_out_on_every_background():
    pairs = [scene for scene in SCENES if scene.second]
    assert 0.07 < sum(scene.held_out for scene in pairs) / len(pairs) < 0.13
    by_pair = itertools.groupby(
        sorted(pairs, key=lambda s: (s.first, s.relation, s.second)), key=lambda s: (s.first, s.relation, s.second)
    )
    assert all(len({scene.held_out for scene in group}) == 1 for _, group in by_pair)


def test_held_out_scenes_are_distinct_and_fixed_by_the_seed():
    assert len(set(held_out_scenes(64))) == 64
    assert held_out_scenes(64) == held_out_scenes(64)
    assert held_out_scenes(64, seed=1) != held_out_scenes(64)


def test_every_caption_is_distinct_and_says_an_before_a_vowel():
    assert len({scene.caption for scene in SCENES}) == len(SCENES)
    assert Scene(Thing("orange", "circle"), "grey").caption == "an orange circle on grey"
    assert not [scene.caption for scene in SCENES if "a orange" in scene.caption]


def test_every_word_of_a_caption_is_one_token_of_t5():
    tokenizer = t5_tokenizer()
    ids = [tokenizer(word, add_special_tokens=False).input_ids for word in words()]
    assert all(len(word) == 1 for word in ids)
    assert len({word[0] for word in ids}) == len(words())


@pytest.mark.parametrize("make", [clip_tokenizer, t5_tokenizer])
def test_every_caption_has_tokens_of_its_own_and_none_is_cut_off(make):
    tokenizer = make()
    ids = {tuple(row) for row in tokenizer([scene.caption for scene in SCENES]).input_ids}
    assert len(ids) == len(SCENES)
    assert max(map(len, ids)) <= 24
