"""Names that travel on the bus: subjects, streams, buckets and consumers, and which worker reads and writes what.

How streams and consumers are set up is the business of `services.messaging.streams`.
"""

STREAMS: dict[str, tuple[str, ...]] = {
    "EVENTS": (
        "data.pushed", "data.rejected", "model.trained", "model.approved", "model.rejected", "model.deployed",
        "model.superseded", "review.decided", "image.pushed", "rollback.requested", "drift.detected",
        "training.failed", "evaluation.failed", "build.failed", "deployment.failed", "alert.raised",
    ),
    "PREDICTIONS": ("predictions.*", "feedback.*"),
    "DLQ": ("dlq.>",),
    "ADVISORY": (
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
        "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
    ),
    "LOGS": ("logs.>",),
}  # fmt: skip
"""The subjects that each stream stores."""

REGISTRY, PROJECTS, INBOX, LEASES, MONITOR = "registry", "projects", "inbox", "leases", "monitor"
BUCKETS = (REGISTRY, PROJECTS, INBOX, LEASES, MONITOR)
"""Key-value buckets."""
ARTIFACTS = "artifacts"
"""The object store."""

EMITS: dict[str, tuple[str, ...]] = {
    "trainer": ("model.trained", "data.rejected", "training.failed"),
    "evaluator": ("model.approved", "model.rejected", "evaluation.failed"),
    "builder": ("image.pushed", "build.failed"),
    "deployer": ("model.deployed", "model.superseded", "deployment.failed"),
    "monitor": ("drift.detected",),
    "notifier": ("alert.raised",),
    "serving": ("predictions.*", "feedback.*"),
}
"""Subjects that each service publishes on, besides its dead letters and its log."""
STAGES = {
    subject.removesuffix(".failed"): worker
    for worker, published in EMITS.items()
    for subject in published
    if subject.endswith(".failed")
}
"""The worker of each stage of a run, by the stage's name in its `<stage>.failed`."""
FAILED = tuple(f"{stage}.failed" for stage in STAGES)

LISTENS: dict[str, tuple[str, ...]] = {
    "trainer": ("data.pushed", "drift.detected"),
    "evaluator": ("model.trained", "review.decided"),
    "builder": ("model.approved",),
    "deployer": ("image.pushed", "rollback.requested"),
    "monitor": ("logs.serving.*", "model.deployed", "model.rejected", "data.rejected", *FAILED),
    "notifier": ("model.rejected", "data.rejected", "drift.detected", *FAILED, "dlq.>"),
}
"""Subjects that each worker has a durable consumer for. The monitor reads traffic (`predictions.*`, `feedback.*`)
through one more durable consumer per model, because the rows of a model have one reader at a time."""
WORKERS = tuple(LISTENS)
"""The workers, in the order of a run."""


def stream_of(subject: str) -> str:
    """Return the stream that stores `subject`."""
    first = subject.split(".", 1)[0]
    return {
        "predictions": "PREDICTIONS",
        "feedback": "PREDICTIONS",
        "dlq": "DLQ",
        "logs": "LOGS",
        "$JS": "ADVISORY",
    }.get(first, "EVENTS")


def consumer_of(service: str, subject: str) -> str:
    """Return the name of the durable consumer of `service` (of a deployer: `deployer-<target>`) for `subject`."""
    return "-".join([service, *(part.replace("*", "all").replace(">", "all") for part in subject.split("."))])


def inbox_prefix(user: str) -> str:
    """Return the prefix of the subjects on which `user` receives replies; `_INBOX` is the default of NATS clients."""
    return f"_INBOX_{user}"
