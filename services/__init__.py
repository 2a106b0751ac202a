"""The belt. One event's way, folder by folder:

    data.pushed     → trainer    → model.trained
    model.trained   → evaluator  → model.approved   (or model.rejected: a person decides)
    model.approved  → builder    → image.pushed
    image.pushed    → deployer   → model.deployed
    predictions.*, feedback.*    → monitor  → drift.detected → trainer …
    what fails or is rejected    → notifier → alert.raised

Every room is an independent process: `app.py` wires events to `domain.py` (pure) through adapters named for what
they touch. What all rooms share stands here: `worker.py`, `bus.py`, `artifacts.py`, `registry.py`, and for work on
models, which only ever happens in child processes, `environments.py`, `forks.py` and `failures.py`.
"""
