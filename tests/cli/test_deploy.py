"""`quantlab deploy`: settings in whole deployments, on the embedded pipeline, each measured once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typed import Quantlab

from quantlab.study.study import open_study

STUDY = (
    *("study=s", "device=cpu", "evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0"),
    *("evaluation.held_out=0", "model.call.num_inference_steps=2", "objectives=[snr_db,memory_bytes]"),
    *("metrics=[memory_bytes]", "space.method=[bnb_4bit]", "space.llm_int8_threshold=[]"),
    *("space.bnb_4bit_quant_type=[nf4]", "space.bnb_4bit_use_double_quant=[false]", "space.skip=[none]"),
)
DEPLOY = ("study=s", "device=cpu", "images=1", "trials=[3]")


@pytest.mark.timeout(300)
def test_settings_are_measured_once_in_every_deployment_and_what_is_refused_says_why(
    quantlab: Quantlab, tmp_path: Path
) -> None:
    results = f"results_dir={tmp_path}"
    assert quantlab("sweep", *STUDY, results).status == 0
    asked = "deployments=[eager,batch4,lora,group_offload]"
    done = quantlab("deploy", *DEPLOY, asked, results)
    assert done.status == 0, done.err
    assert "[8/8] group_offload, nf4: failed, the deployment refused the setting: offloading needs a GPU" in done.out
    assert "group_offload: reference, nf4 failed" in done.out
    table = pd.read_csv(tmp_path / "s" / "deployments.csv").set_index(["deployment", "number"])
    assert len(table) == 8
    assert table.loc[("batch4", 3), "images_per_call"] == 4
    assert table.loc[("eager", 0), "image_ratio"] == 1
    assert table.loc[("eager", 0), "psnr_db"] == 100
    assert 10 < table.loc[("eager", 3), "psnr_db"] < 60
    assert table.loc[("lora", 3), "psnr_db"] != table.loc[("eager", 3), "psnr_db"]
    assert (tmp_path / "s" / "deployments.png").stat().st_size > 10_000
    assert "batch4: trial 3, nf4 wins, because it is the only setting on the front" in done.out
    written = quantlab("export", "study=s", "deployment=batch4", results)
    assert written.status == 0, written.err
    assert "measured batch4" in written.out
    script = (tmp_path / "s" / "trial-3-batch4" / "load.py").read_text()
    assert "# It was measured with num_images_per_prompt=4." in script
    refused = quantlab("export", "study=s", "deployment=compiled", results)
    assert refused.status == 2
    assert "no settings measured in that deployment, only in eager, batch4, lora, group_offload" in refused.err
    before = open_study(tmp_path / "s").deployments
    assert quantlab("deploy", *DEPLOY, asked, results).status == 0
    assert open_study(tmp_path / "s").deployments == before


def test_an_argument_that_the_pipeline_does_not_take_is_no_refusal_of_a_setting(
    quantlab: Quantlab, tmp_path: Path
) -> None:
    assert quantlab("sweep", *STUDY, f"results_dir={tmp_path}").status == 0
    done = quantlab("deploy", *DEPLOY, "deployments=[eager]", "call.heigth=64", f"results_dir={tmp_path}")
    assert done.status == 2
    assert "did you mean 'height'?" in done.err
    assert len(done.err.splitlines()) == 1
    assert open_study(tmp_path / "s").deployments == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("study=s", "deployments=[eagr]"), "deployment='eagr' is not known"),
        (("study=s", "deployments=[]"), "deployments=[] is empty"),
        (("study=s", "images=0"), "images=0 must be at least 1"),
        (("study=nothing",), "nothing"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    quantlab: Quantlab, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = quantlab("deploy", *words, f"results_dir={tmp_path}")
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
