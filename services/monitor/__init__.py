"""predictions.*, feedback.*, logs.serving.*, model.deployed → monitor → drift.detected.

model.rejected, data.rejected and *.failed of a retraining run close the incident that started it.

The path of a row, by folder:

- `ingest/` reads predictions and labels from the bus, in order.
- `state/` counts each row once for its version, and joins each label with its prediction.
- `detection/` has the statistical tests, and the rules for when evidence is enough.
- `domain.py` opens and closes incidents.
- `alerts/` publishes an incident as `drift.detected`.
- `jobs/` runs in child processes and makes the files that the event names.
"""
