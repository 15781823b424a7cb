"""Sentences about data: everything that is said of a study in words, for the terminal, plots and exported files."""

from quantlab.report.text.calibration import calibration_line, off_words
from quantlab.report.text.drift import drift_line
from quantlab.report.text.front import front_size, indistinguishable_line, ties_legend
from quantlab.report.text.held_out import held_out_line
from quantlab.report.text.images import correlations_line, images_skipped_line, unavailable_lines
from quantlab.report.text.noise_floor import noise_floor_line
from quantlab.report.text.notes import large_skip_entry_line, study_notes
from quantlab.report.text.objectives import objectives_line
from quantlab.report.text.outcomes import failure_line, outcome_line, pruned_line, row_figures, saved_line
from quantlab.report.text.placement import placement_line
from quantlab.report.text.values import MEANINGLESS, cell, count, format_metric, heading, join, number
from quantlab.report.text.winner import choice_line, no_winner_line, reason_line, winner_reason

__all__ = [
    "MEANINGLESS",
    "calibration_line",
    "cell",
    "choice_line",
    "correlations_line",
    "count",
    "drift_line",
    "failure_line",
    "format_metric",
    "front_size",
    "heading",
    "held_out_line",
    "images_skipped_line",
    "indistinguishable_line",
    "join",
    "large_skip_entry_line",
    "no_winner_line",
    "noise_floor_line",
    "number",
    "objectives_line",
    "off_words",
    "outcome_line",
    "placement_line",
    "pruned_line",
    "reason_line",
    "row_figures",
    "saved_line",
    "study_notes",
    "ties_legend",
    "unavailable_lines",
    "winner_reason",
]
