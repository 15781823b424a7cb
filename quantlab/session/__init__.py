"""Runs a study from configuration to verified winner, as events. Prints nothing; the only writer of a study."""

from quantlab.session.events import Event
from quantlab.session.run import run
from quantlab.session.run_sensitivity import run_sensitivity

__all__ = ["Event", "run", "run_sensitivity"]
