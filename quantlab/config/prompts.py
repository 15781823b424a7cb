"""Which prompts images are generated from, from which seeds, and which prompts the search never sees."""

from __future__ import annotations

from quantlab.config.model import ModelConfig
from quantlab.config.study import EvaluationConfig


def image_requests(model: ModelConfig, evaluation: EvaluationConfig) -> list[tuple[str, int]]:
    """Prompt and seed of each image: image i takes prompt i, round and round, and seed ``evaluation.seed`` + i.

    The first ones are the runs that the sample set is recorded along.
    """
    prompts = model.prompts
    return [(prompts[i % len(prompts)], evaluation.seed + i) for i in range(evaluation.images if prompts else 0)]


def recorded_prompts(model: ModelConfig, evaluation: EvaluationConfig) -> list[str]:
    """The prompts that are run while the sample set is recorded: those of the samples and those of the images."""
    return model.prompts[: max(evaluation.prompts, evaluation.images)]


def held_out(model: ModelConfig, evaluation: EvaluationConfig) -> range:
    """Indices of the prompts that confirm the winner: the first ``evaluation.held_out`` after those of the sample set.

    Empty where none are left. Prompt i is run from seed ``evaluation.seed`` + i, as in the sample set.
    """
    return range(evaluation.prompts, min(len(model.prompts), evaluation.prompts + evaluation.held_out))
