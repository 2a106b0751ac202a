"""data.pushed, drift.detected (retrain) → trainer → model.trained, data.rejected, training.failed.

`app.py` is wiring, `domain.py` chooses project and data, `pipeline.py` runs the steps of one training, `errors.py`
names what can go wrong. `jobs/` runs in child processes: `fit` has the jobs; `reading` reads a table, `validation`
checks it against its `data_schema`, `holdout` holds rows out, `profiling` counts, `estimators` builds, seeds and saves,
`metrics` measures.
"""
