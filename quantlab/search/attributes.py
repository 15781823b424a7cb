"""User attributes of Optuna trials that a sampler reads."""

PARTIAL = "partial_values"
"""Objective values so far of a trial that was stopped early, in the objectives' order; Optuna itself ignores them."""
