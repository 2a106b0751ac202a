"""Streams, buckets and consumers of the bus, as data. `services.messaging.streams.ensure_topology` makes them real.

Workers never declare a stream: a declaration resets its settings to defaults.
"""

from pydantic import BaseModel, ConfigDict

DAY = 24 * 3600.0
MIB = 1024 * 1024

ACK_WAIT = 30.0
"""Seconds after which an unacknowledged delivery goes to another replica."""
HEARTBEAT = 10.0
"""Seconds between signs of life of a handler at work."""
MAX_DELIVER = -1
"""The server never stops delivering: it would do so in silence. Workers give up, after MAX_LOST kills or MAX_ERRORS
errors, and wait for as long as it takes when the bus itself is in trouble."""
MAX_LOST = 10
"""Deliveries of one message that may be lost to kills before it is given up."""
MAX_ERRORS = 5
"""Attempts that may end in a transient error before the message is dead-lettered."""
RETRY_DELAYS = (0.5, 2.0, 8.0, 30.0)
"""Seconds before the attempt after the 1st, 2nd, … error."""


class StreamSpec(BaseModel):
    """A JetStream stream: 0 or None means unlimited."""

    model_config = ConfigDict(frozen=True)

    name: str
    subjects: tuple[str, ...]
    max_age: float
    duplicate_window: float = 120.0
    max_bytes: int | None = None


class BucketSpec(BaseModel):
    """A key-value bucket; `ttl` in seconds, 0 for ever."""

    model_config = ConfigDict(frozen=True)

    name: str
    ttl: float = 0.0
    history: int = 1


STREAMS = (
    StreamSpec(
        name="EVENTS",
        subjects=(
            "data.pushed", "data.rejected", "model.trained", "model.approved", "model.rejected", "model.deployed",
            "model.superseded", "review.decided", "image.pushed", "rollback.requested", "drift.detected",
            "training.failed", "evaluation.failed", "build.failed", "deployment.failed", "alert.raised",
        ),
        max_age=30 * DAY,
        duplicate_window=3600.0,
    ),
    StreamSpec(name="PREDICTIONS", subjects=("predictions.*", "feedback.*"), max_age=7 * DAY, max_bytes=2048 * MIB),
    StreamSpec(name="DLQ", subjects=("dlq.>",), max_age=30 * DAY, max_bytes=256 * MIB),
    StreamSpec(
        name="ADVISORY",
        subjects=("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"),
        max_age=30 * DAY,
        max_bytes=64 * MIB,
    ),
    StreamSpec(name="LOGS", subjects=("logs.>",), max_age=DAY, max_bytes=256 * MIB),
)  # fmt: skip

REGISTRY, PROJECTS, INBOX, LEASES = "registry", "projects", "inbox", "leases"
MONITOR = "monitor"
BUCKETS = (
    BucketSpec(name=REGISTRY, history=8),
    BucketSpec(name=PROJECTS, history=8),
    BucketSpec(name=INBOX, ttl=31 * DAY),
    BucketSpec(name=LEASES, ttl=15.0),
    BucketSpec(name=MONITOR),
)
ARTIFACTS = "artifacts"
"""The object store."""

FAILED = ("training.failed", "evaluation.failed", "build.failed", "deployment.failed")
LISTENS: dict[str, tuple[str, ...]] = {
    "trainer": ("data.pushed", "drift.detected"),
    "evaluator": ("model.trained", "review.decided"),
    "builder": ("model.approved",),
    "deployer": ("image.pushed", "rollback.requested"),
    "monitor": ("logs.serving.*", "model.deployed", "model.rejected", "data.rejected", *FAILED),
    "notifier": ("model.rejected", "data.rejected", "drift.detected", *FAILED, "dlq.>"),
}
"""Which subjects a service has a durable consumer for. The monitor reads traffic (`predictions.*`, `feedback.*`)
with one more durable per model, because the rows of a model have one reader at a time."""

EMITS: dict[str, tuple[str, ...]] = {
    "trainer": ("model.trained", "data.rejected", "training.failed"),
    "evaluator": ("model.approved", "model.rejected", "evaluation.failed"),
    "builder": ("image.pushed", "build.failed"),
    "deployer": ("model.deployed", "model.superseded", "deployment.failed"),
    "monitor": ("drift.detected",),
    "notifier": ("alert.raised",),
    "serving": ("predictions.*", "feedback.*"),
}
"""What a service says, besides its dead letters and its log."""


def stream_of(subject: str) -> str:
    """The stream that keeps `subject`."""
    first = subject.split(".", 1)[0]
    return {
        "predictions": "PREDICTIONS",
        "feedback": "PREDICTIONS",
        "dlq": "DLQ",
        "logs": "LOGS",
        "$JS": "ADVISORY",
    }.get(first, "EVENTS")


def consumer_of(service: str, subject: str) -> str:
    """Name of the durable consumer that `service` (a deployer says `deployer-<target>`) has for `subject`."""
    return "-".join([service, *(part.replace("*", "all").replace(">", "all") for part in subject.split("."))])


def inbox_prefix(user: str) -> str:
    """Prefix of the subjects that answers to `user` come back on. `_INBOX` itself is what any NATS client asks for."""
    return f"_INBOX_{user}"
