"""Which prompts are drawn in full, from which seeds, and which ones the search never sees."""

from __future__ import annotations

from quantlab.config import ModelConfig, ScoreConfig


def drawings(model: ModelConfig, score: ScoreConfig) -> list[tuple[str, int]]:
    """Prompt and seed of each drawing: drawing i takes prompt i, round and round, and seed ``score.seed`` + i.

    The first ones are the runs that the probe set is recorded along.
    """
    prompts = model.prompts
    return [(prompts[i % len(prompts)], score.seed + i) for i in range(score.images if prompts else 0)]


def recorded_prompts(model: ModelConfig, score: ScoreConfig) -> list[str]:
    """The prompts that are run while the probe set is recorded: those of the probes and those that are drawn."""
    return model.prompts[: max(score.prompts, score.images)]


def held_out(model: ModelConfig, score: ScoreConfig) -> range:
    """Indices of the prompts that confirm the winner: the first ``score.held_out`` after those of the probe set.

    Empty where none are left. Prompt i is run from seed ``score.seed`` + i, as in the probe set.
    """
    return range(score.prompts, min(len(model.prompts), score.prompts + score.held_out))
