"""A study on disk: storage and resume, the table, the front, the winner, and `Study`, the one read model of it."""

from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore
from quantlab.study.study import Study, load_view, open_study
from quantlab.study.winner import NoWinner, Winner

__all__ = ["NoWinner", "Row", "Source", "Study", "StudyStore", "Winner", "load_view", "open_study"]
