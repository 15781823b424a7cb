"""``quantlab sensitivity``: what every layer costs and saves, and the front that follows from it, measured."""

from __future__ import annotations

from quantlab import session
from quantlab.cli.follow import follow
from quantlab.config import SensitivityCommandConfig


def main(config: SensitivityCommandConfig) -> int:
    """Run or resume a study. Returns 0, or 1 where the user stopped it or the winner was not verified."""
    return follow(session.run_sensitivity, config)
