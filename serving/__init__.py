"""HTTP → serving → predictions.<model>, feedback.<model>, logs.serving.<model>

The one BentoML service that goes into every Bento, whatever the model. Read it in this order: `service` (what
BentoML starts), `app` (what is wired together), `front` (a request's way), `rows` → `batching` → `model`
(a prediction's way), `log` → `bus` (the way of what is recorded).
"""

SERVICE = "serving.service:service"
"""What a Bento is built from, with `args={"model_tag": "<model>:<version>"}`."""
SOURCES = ("contracts", "serving")
"""The packages a Bento must include beside the model; nothing else of ours is imported."""
