"""The product from Python, line by line; `tests/test_api.py` runs it in an empty folder."""

import torch
from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, StableDiffusion3Pipeline
from matplotlib.figure import Figure

import quantlab
from quantlab.tiny_sd3 import pipeline_folder

budget = {"memory_bytes": {"max": 3e6}}
short = ("evaluation=quick", "evaluation.finalists=2", "evaluation.prompts=1", "model.call.num_inference_steps=4")
study = quantlab.sweep("tiny_sd3", *short, budget=budget, sampler="tpe", n_trials=12, on_event=print)

assert len(study.table) >= 12
assert (study.table["memory_bytes"] > 3e6).any(), "the baselines above the budget are in the table as well"
assert len(study.front)
assert study.winner.row.outcome.memory_bytes <= 3e6
assert isinstance(study.winner.spec["transformer"].to_config(), BitsAndBytesConfig)
assert isinstance(study.winner.spec.to_config(), PipelineQuantizationConfig)
for figure in (study.plot_pareto(), study.plot_images(), study.plot_thresholds()):
    assert isinstance(figure, Figure)

again = quantlab.open_study("results/tiny_sd3-default")
assert again.table["key"].tolist() == study.table["key"].tolist()
assert again.winner.spec == study.winner.spec

folder = pipeline_folder()
pipe = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float16)
few = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0", "model.call.num_inference_steps=4")
with quantlab.Lab.open(pipe, *few) as lab:
    config = lab.measure(BitsAndBytesConfig(load_in_8bit=True))
    spec = lab.measure(quantlab.Int8Spec())
assert config.output_sha256 == spec.output_sha256
assert 20 < config.snr_db < 60

print(f"ran {quantlab.__file__}")
