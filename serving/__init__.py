"""HTTP → serving → predictions.<model>, feedback.<model>, logs.serving.<model>

The one BentoML service that goes into every Bento, whatever the model. Read it in this order: `service` (what BentoML
loads), `app` (wiring and endpoints), `asgi` (a request), `prediction_request` → `batching` → `model` (a prediction),
`prediction_log` → `bus` (the events of it). `entrypoints/` has the processes that run it.
"""

SERVICE = "serving.service:service"
"""The service that a Bento is built from, with `args={"model_tag": "<model>:<version>"}`."""
CONTRACTS = (
    *("artifact_ref", "cloudevents", "events", "features", "packaged_model", "profiles", "runtime", "subjects"),
    *("values", "verdicts"),
)
"""Modules of `contracts` that serving imports, directly or through each other. They and this package are all of our
code that a Bento contains."""
