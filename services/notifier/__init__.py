"""model.rejected, data.rejected, drift.detected, *.failed, dlq.> → notifier → alert.raised, and messages to people."""
