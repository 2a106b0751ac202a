"""model.trained → evaluator → model.approved, model.rejected, evaluation.failed; review.decided → the first two.

`app.py` is wiring, `domain.py` is pure, `scoring.py` runs the jobs in child processes. `jobs/` is what runs there:
`predict` (the model, untrusted), `judge` (from predictions), `register` (into the model store), `report`. `gate/` makes
the verdict: `judge` with the intervals of `proportion_intervals` (means of 0/1, exact) and `bootstrap` (all other
metrics, defined in `metrics`); `evidence` is what an approval carries. `verdict_page` is the page for a person.
"""
