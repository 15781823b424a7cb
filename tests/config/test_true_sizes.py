"""Each shipped architecture has the number of parameters that its authors publish, and skip lists as they are said."""

import functools
import re

import pytest
import yaml
from accelerate import init_empty_weights

from quantlab.bnb.linear import linear_layers
from quantlab.bnb.matching import matches
from quantlab.config.compose import compose
from quantlab.config.paths import conf_dir
from quantlab.config.schema import options
from quantlab.pipelines.random import diffusers_class

TOLERANCE = 0.035
"""Authors round: FLUX.2 [klein] 4B has 3.88 billion."""

PUBLISHED = {  # billions of parameters, and who says so
    "flux_fill": (12, "card of black-forest-labs/FLUX.1-Fill-dev"),
    "flux_kontext": (12, "card of black-forest-labs/FLUX.1-Kontext-dev"),
    "flux2_dev": (32, "card of black-forest-labs/FLUX.2-dev"),
    "flux2_klein_9b": (9, "card of black-forest-labs/FLUX.2-klein-9B"),
    "flux2_klein_4b": (4, "card of black-forest-labs/FLUX.2-klein-4B"),
    "qwen_image": (20.43, "the checkpoint's 40.86 GB in bfloat16; 20 by its card"),
    "qwen_image_edit": (20.43, "the checkpoint's 40.86 GB in bfloat16; 20 by its card"),
    "z_image_turbo": (6, "card of Tongyi-MAI/Z-Image-Turbo"),
    "wan21_14b": (14, "card of Wan-AI/Wan2.1-T2V-14B-Diffusers"),
    "wan21_1_3b": (1.42, "the checkpoint's 5.68 GB in float32; 1.3 by its name"),
    "wan22_a14b": (14, "card of Wan-AI/Wan2.2-T2V-A14B-Diffusers: 14 in each of two"),
    "wan22_5b": (5, "card of Wan-AI/Wan2.2-TI2V-5B-Diffusers"),
    "ltx_video": (1.9, "arXiv:2501.00103"),
    "hunyuan_video": (13, "arXiv:2412.03603"),
    "chroma": (8.9, "card of lodestones/Chroma1-HD"),
    "hidream_i1_full": (17, "card of HiDream-ai/HiDream-I1-Full"),
    "sana_1600m": (1.6, "arXiv:2410.10629"),
    "pixart_sigma": (0.6, "arXiv:2403.04692"),
    "pixart_alpha": (0.6, "arXiv:2310.00426"),
    "sdxl": (2.6, "arXiv:2307.01952"),
    "sd15": (0.86, "README of CompVis/stable-diffusion"),
}
FAMILIES = {  # of which model the shares in conf/skips/ are
    "flux2": "flux2_dev",
    "qwen_image": "qwen_image",
    "z_image": "z_image_turbo",
    "wan": "wan21_14b",
    "ltx": "ltx_video",
    "hunyuan_video": "hunyuan_video",
    "chroma": "chroma",
    "hidream": "hidream_i1_full",
    "sana": "sana_1600m",
    "pixart": "pixart_sigma",
    "sdxl": "sdxl",
    "sd15": "sd15",
}


@functools.cache
def on_meta(name):
    """A model of conf/model/ and its component at true size, without a byte of weights."""
    model = compose("run", [f"model={name}", "model.weights=random"]).model
    with init_empty_weights(include_buffers=True):
        return model, diffusers_class(model.architecture.component, "")(**model.architecture.config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_architecture_has_the_published_number_of_parameters_and_skip_lists_that_match(name):
    model, component = on_meta(name)
    billions, _ = PUBLISHED[name]
    counted = sum(p.numel() for p in component.parameters()) / 1e9
    assert counted == pytest.approx(billions, rel=TOLERANCE)
    paths = list(linear_layers(component))
    for skip_list, entries in model.skips.items():
        for entry in entries:
            assert any(matches(entry, path) for path in paths), (skip_list, entry)


def test_every_shipped_model_is_described_in_one_line_and_names_its_source():
    for name in PUBLISHED:
        first, second, third = (conf_dir() / "model" / f"{name}.yaml").read_text().splitlines()[:3]
        assert re.fullmatch(r"# \S.*\.", first), name
        assert re.fullmatch(r"# Sizes: .+\.", second), name
        assert third == "defaults:", name
    assert PUBLISHED.keys() < set(options("model"))


def said_of(text):
    """What a file of conf/skips/ says of each list: its number of layers, if it does, and its share in percent."""
    found = re.findall(r"^(\w+): \[.+?\] *#.*?(?:(\d+) layers)?, ([\d.]+) %$", text, re.M)
    return {name: (int(layers) if layers else None, share) for name, layers, share in found}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_conf_skips_says_of_its_lists_is_so(family):
    _, component = on_meta(FAMILIES[family])
    text = (conf_dir() / "skips" / f"{family}.yaml").read_text()
    lists, said = yaml.safe_load(text), said_of(text)
    weights = {path: layer.weight.numel() for path, layer in linear_layers(component).items()}
    whole = sum(weights.values())
    assert f"of the {whole / 1e9:.2f} B linear weights" in text
    assert said.keys() == {name for name, entries in lists.items() if entries}
    for name, (layers, share) in said.items():
        kept = [path for path in weights if any(matches(entry, path) for entry in lists[name])]
        assert f"{100 * sum(weights[path] for path in kept) / whole:.1f}" == share, name
        assert layers in (None, len(kept)), name
