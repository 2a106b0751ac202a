"""NATS permissions of each service: one user per service, with no more rights than it needs.

Pure, and derived from contracts/subjects.py: the users that `infra.bootstrap` writes and README's table are made of it.

No service may create a consumer for messages that it may publish itself. A consumer delivers to any subject that its
creator names, and the server does not check whether the creator may publish there. A trainer that could read its
projects through a consumer could have its own record delivered as `model.approved`.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts import subjects
from contracts.subjects import inbox_prefix

API = "$JS.API"
PEOPLE, SETUP, SERVING, DEPLOYER = "belt", "setup", "serving", "deployer"


class Keys(BaseModel):
    """Keys of a bucket that a service reads (r) or reads and writes (rw); `{target}` is a deployer's."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    pattern: str
    access: Literal["r", "rw"]


class Permissions(BaseModel):
    """The subjects that one user may publish on, requests included, and those that it may subscribe to."""

    model_config = ConfigDict(frozen=True)

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def _keys(bucket: str, *patterns: str, access: Literal["r", "rw"] = "rw") -> tuple[Keys, ...]:
    return tuple(Keys(bucket=bucket, pattern=pattern, access=access) for pattern in patterns)


KEYS: dict[str, tuple[Keys, ...]] = {
    "trainer": (
        *_keys(subjects.PROJECTS, "*"),
        *_keys(subjects.REGISTRY, "*.candidate.*", access="r"),
    ),
    "evaluator": (
        *_keys(subjects.REGISTRY, "*.candidate.*"),
        *_keys(subjects.REGISTRY, "*.live.*", access="r"),
    ),
    "builder": (),
    "deployer": (
        *_keys(subjects.REGISTRY, "*.live.{target}", "*.image.{target}.*"),
        *_keys(subjects.REGISTRY, "*.live.*", "*.image.*.*", access="r"),
        *_keys(subjects.LEASES, "deployer.{target}.*"),
    ),
    "monitor": (
        *_keys(subjects.REGISTRY, "*.live.*", "*.candidate.*", access="r"),
        *_keys(subjects.LEASES, "monitor.*"),
        *_keys(subjects.MONITOR, ">"),
    ),
    "notifier": (),
}
"""The records that each service reads and writes. In the bucket `inbox`, each has the keys of its own consumers."""
ARTIFACTS: dict[str, Literal["r", "rw"]] = {
    "trainer": "rw", "evaluator": "rw", "builder": "rw", "deployer": "r", "monitor": "rw",
}  # fmt: skip
HINTS: dict[str, tuple[str, ...]] = {"deployer": ("data.pushed", "drift.detected")}
"""Subjects that a service subscribes to without a consumer: a missed message costs time only."""


def users(targets: tuple[str, ...] = ("local",)) -> tuple[str, ...]:
    """Return every user of the bus; the deployer of each target has one of its own."""
    services = (worker for worker in subjects.WORKERS if worker != DEPLOYER)
    return (SETUP, PEOPLE, *services, *(f"{DEPLOYER}-{target}" for target in targets), SERVING)


def of(user: str) -> Permissions:
    """Return the permissions of `user`.

    Raises:
        KeyError: there is no such user.
    """
    if user == SETUP:
        return Permissions(publish=(f"{API}.>", "$JS.FC.>"), subscribe=("_INBOX.>",))
    if user == PEOPLE:
        return _of_people()
    if user == SERVING:
        published = (*subjects.EMITS[SERVING], f"logs.{SERVING}.*")
        return Permissions(publish=published, subscribe=(f"{inbox_prefix(SERVING)}.>",))
    service, _, target = user.partition("-")
    if (service == DEPLOYER) != bool(target):
        raise KeyError(user)
    artifacts = _artifact_requests(ARTIFACTS[service]) if service in ARTIFACTS else ()
    publish = (
        *_published(service, user),
        *_consumer_requests(service, user),
        *_record_requests(service, user, target),
        *artifacts,
    )
    subscribe = (f"{inbox_prefix(user)}.>", *HINTS.get(service, ()))
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=subscribe)


def _of_people() -> Permissions:
    """Return the permissions of a person: publish and replay events and read everything, but write no record."""
    stored = [subject for names in subjects.STREAMS.values() for subject in names if not subject.startswith("$")]
    publish = list(subjects.STREAMS["EVENTS"])
    for stream in subjects.STREAMS:
        publish += [*_message_requests(stream), *_own_consumer_requests(stream)]
    for bucket in subjects.BUCKETS:
        publish += _message_requests(f"KV_{bucket}")
    publish += [*_artifact_requests("rw"), f"{API}.CONSUMER.RESET.EVENTS.*"]
    publish += [f"{API}.{request}" for request in ("INFO", "STREAM.NAMES", "STREAM.LIST")]
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=("_INBOX.>", *stored))


def _message_requests(stream: str) -> Iterator[str]:
    """Requests that read a stream message by message."""
    for request in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.LIST", "CONSUMER.NAMES"):
        yield f"{API}.{request}.{stream}"
    yield f"{API}.DIRECT.GET.{stream}.>"


def _own_consumer_requests(stream: str) -> Iterator[str]:
    """Requests that read a stream through a new consumer."""
    yield f"{API}.CONSUMER.CREATE.{stream}"
    for request in ("CREATE", "INFO", "MSG.NEXT", "DELETE"):
        yield f"{API}.CONSUMER.{request}.{stream}.>"
    for reply in ("ACK", "ACK.*.*", "FC"):
        yield f"$JS.{reply}.{stream}.>"


def _published(service: str, user: str) -> Iterator[str]:
    """The service's events, log and dead letters."""
    yield from subjects.EMITS[service]
    yield f"logs.{service}.*"
    for subject in subjects.LISTENS[service]:
        yield f"dlq.{subjects.consumer_of(user, subject)}.>"
    if service == "monitor":  # a consumer per model
        yield "dlq.*.predictions.*"
        yield "dlq.*.feedback.*"


def _consumer_requests(service: str, user: str) -> Iterator[str]:
    """Requests for the service's durable consumers; the subject of a request to create one ends in its one filter."""
    published = tuple(_published(service, user))
    for subject in subjects.LISTENS[service]:
        stream, durable = subjects.stream_of(subject), subjects.consumer_of(user, subject)
        yield from _pull_requests(stream, durable)
        if not any(overlap(subject, own) for own in published):
            yield f"{API}.CONSUMER.CREATE.{stream}.{durable}.{subject}"
    if service == "monitor":
        yield from _traffic_requests()


def _traffic_requests() -> Iterator[str]:
    """Requests for the monitor's consumer per model, which it creates anew behind its saved position."""
    yield from _pull_requests("PREDICTIONS", "*")
    for request in ("STREAM.INFO.PREDICTIONS", "DIRECT.GET.PREDICTIONS"):
        yield f"{API}.{request}"
    for request in ("DURABLE.CREATE", "DELETE"):
        yield f"{API}.CONSUMER.{request}.PREDICTIONS.*"


def _pull_requests(stream: str, durable: str) -> Iterator[str]:
    yield f"{API}.CONSUMER.INFO.{stream}.{durable}"
    yield f"{API}.CONSUMER.MSG.NEXT.{stream}.{durable}"
    yield f"$JS.ACK.{stream}.{durable}.>"
    yield f"$JS.ACK.*.*.{stream}.{durable}.>"


def _record_requests(service: str, user: str, target: str) -> Iterator[str]:
    for keys in (*KEYS[service], *_inbox_keys(service, user)):
        subject = f"$KV.{keys.bucket}.{keys.pattern.format(target=target)}"
        yield f"{API}.STREAM.INFO.KV_{keys.bucket}"
        yield f"{API}.DIRECT.GET.KV_{keys.bucket}.{subject}"
        if keys.access == "rw":
            yield subject
    if service == "monitor":  # it deletes states of former versions
        yield f"{API}.STREAM.PURGE.KV_{subjects.MONITOR}"


def _inbox_keys(service: str, user: str) -> tuple[Keys, ...]:
    names = [f"{subjects.consumer_of(user, subject)}.*" for subject in subjects.LISTENS[service]]
    # The first generation of a run is stored by the service that receives the run's first event.
    starts = {"data.pushed", "drift.detected"} & set(subjects.LISTENS[service])
    return _keys(subjects.INBOX, *names, *(["run.*"] if starts else []))


def _artifact_requests(access: Literal["r", "rw"]) -> Iterator[str]:
    stream = f"OBJ_{subjects.ARTIFACTS}"
    for request in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"):
        yield f"{API}.{request}.{stream}"
    if access == "rw":
        yield f"$O.{subjects.ARTIFACTS}.C.*"
        yield f"$O.{subjects.ARTIFACTS}.M.*"


def overlap(one: str, other: str) -> bool:
    """Return whether some subject matches both patterns."""
    first, second = one.split("."), other.split(".")
    for a, b in zip(first, second, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(first) == len(second)
