"""Read models of the event stream, for whoever shows it: events, the runs they add up to, a sentence for each."""

from services.timeline import history, runs, wording
from services.timeline.runs import Run, Stage

__all__ = ["Run", "Stage", "history", "runs", "wording"]
