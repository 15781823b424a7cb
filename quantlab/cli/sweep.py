"""``quantlab sweep``: from a model and a space to an exported, verified config."""

from __future__ import annotations

from quantlab import session
from quantlab.cli.follow import follow
from quantlab.config import SweepConfig


def main(config: SweepConfig) -> int:
    """Run or resume a study. Returns 0, or 1 where the user stopped it or the winner was not verified."""
    return follow(session.run, config)
