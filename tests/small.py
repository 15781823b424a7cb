"""The study of a few settings that several tests look at."""

from __future__ import annotations

SMALL_STUDY = (
    *("study=small", "device=cpu", "evaluation=quick", "evaluation.finalists=5", "model.call.num_inference_steps=6"),
    *("space.llm_int8_threshold=[0,3,6]", "space.bnb_4bit_quant_type=[nf4]", "space.bnb_4bit_use_double_quant=[false]"),
    *("space.bnb_4bit_compute_dtype=[float16]", "space.skip=[none,proj_out]"),
)
"""What makes it: baselines, three thresholds, nf4, two skip lists."""
