"""model.rejected, data.rejected, drift.detected, *.failed, dlq.> → notifier → alert.raised, and a word to a person."""
