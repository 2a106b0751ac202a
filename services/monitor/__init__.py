"""predictions.*, feedback.*, logs.serving.*, model.deployed → monitor → drift.detected.

model.rejected, data.rejected and *.failed of a retraining run close the incident that started it.

The way of a row: stream → traffic (of which version?) → watch (its label) → windows (has its data moved?) and judged
(is the promise kept?) → domain (an incident?) → alarms → telling.
"""
