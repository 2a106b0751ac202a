"""predictions.*, feedback.*, logs.serving.*, model.deployed → monitor → drift.detected.

model.rejected, data.rejected and *.failed of a retraining run close the incident that started it.
"""
