"""The workers. One event's way, folder by folder:

    data.pushed     → trainer    → model.trained
    model.trained   → evaluator  → model.approved   (or model.rejected: a person decides)
    model.approved  → builder    → image.pushed
    image.pushed    → deployer   → model.deployed
    predictions.*, feedback.*    → monitor  → drift.detected → trainer …
    what fails or is rejected    → notifier → alert.raised

Every worker is a process of its own: `app.py` connects events to `domain.py` (pure functions) through adapters that are
named for what they reach. Workers share `messaging` (what a worker is), `storage` (artifacts, registry, models),
`sandbox` (work on models, which only happens in child processes), `docker_engine`, `host` and `timeline`.
"""
