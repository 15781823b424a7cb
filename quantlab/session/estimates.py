"""How long a part of a session will take, from what was measured so far; None where nothing was."""

from __future__ import annotations

from quantlab.config import SweepConfig
from quantlab.metrics.latency import IN_TURNS
from quantlab.outcomes import LabDescription


def image_s(config: SweepConfig, description: LabDescription) -> float | None:
    """Seconds that one image takes: those of a run of the pipeline while the samples were recorded."""
    runs = max(config.evaluation.prompts, config.evaluation.images)
    return description.recording_s / runs or None


def sensitivities_s(config: SweepConfig, description: LabDescription, forwards: int) -> float | None:
    """Seconds that layer sensitivities take: so many forwards, each of which starts at the layer's own block.

    Half a forward in the mean. It is known where the samples were recorded in this session and the configuration says
    in how many denoising steps.
    """
    steps, run = config.model.call.get("num_inference_steps"), image_s(config, description)
    return forwards * run / steps / 2 if steps and run else None


def setting_s(config: SweepConfig, description: LabDescription) -> float | None:
    """Seconds that a setting takes: a forward a sample and one before them, each as fast as the reference's.

    In turns with the reference there are twice as many. It is known where `sensitivities_s` is.
    """
    turns = 2 if description.provenance.get("latency") == IN_TURNS else 1
    both_halves = 2 * (turns * description.samples + 1)
    return sensitivities_s(config, description, both_halves)
