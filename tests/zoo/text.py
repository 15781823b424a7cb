"""Pipelines whose results are tokens."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from zoo.exhibit import exhibit
from zoo.parts import decoder_sizes, qwen_tokenizer


@exhibit(
    "LLaDA 2",
    "text to text",
    {
        "num_inference_steps": 2,
        "gen_length": 8,
        "block_length": 8,
        "mask_token_id": 1,
        "eos_token_id": 0,
        "output_type": "seq",
    },
    {"input_ids": "tokens 1 8"},
    has_prompt=False,
)
def llada2() -> Any:
    """Without its tokenizer, which the pipeline does not save."""
    config = transformers.LlamaConfig(**decoder_sizes(qwen_tokenizer()))
    return diffusers.LLaDA2Pipeline(
        model=transformers.LlamaForCausalLM(config), scheduler=diffusers.BlockRefinementScheduler()
    )
