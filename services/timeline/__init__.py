"""Read models of the event stream: its history, the runs in it, and a sentence for each event."""

from services.timeline import history, runs, wording
from services.timeline.runs import Run, RunEvent, Stage

__all__ = ["Run", "RunEvent", "Stage", "history", "runs", "wording"]
