"""data.pushed, drift.detected (retrain) → trainer → model.trained, data.rejected, training.failed.

`app.py` wires, `domain.py` chooses project and data, `training.py` runs the steps of one training as children,
`failures.py` words what went wrong in them. What touches data or a model is entered through `job.py` and runs only in
children: `table.py` reads, `checks.py` holds the data to its `schema.py`, `split.py` holds rows out, `profiles.py`
counts, `estimators.py` builds, seeds and saves, `scores.py` measures.
"""
