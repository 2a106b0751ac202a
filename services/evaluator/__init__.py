"""model.trained → evaluator → model.approved, model.rejected, evaluation.failed; review.decided → the first two.

`app.py` wires, `domain.py` decides, `children.py` starts the forked children that alone touch a model: `job.py` is
what runs there. `gate.py` judges with the intervals of `intervals.py` (means of 0/1, exact) and `bootstrap.py` (the
other metrics, defined in `metrics.py`); `evidence.py` is what an approval promises; `page.py` and `report.py` make
the page for a person.
"""
