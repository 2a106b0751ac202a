"""data.pushed, drift.detected (retrain) → trainer → model.trained, data.rejected, training.failed.

`app.py` wires, `domain.py` decides, `failures.py` words what went wrong. What touches data or a model runs in forked
children, entered through `job.py`: `table.py` reads, `checks.py` finds what is wrong, `split.py` holds rows out,
`profiles.py` counts, `estimators.py` builds and seeds, `scores.py` measures.
"""
