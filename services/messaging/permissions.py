"""Who may say and read what on the bus: a NATS user per service, each with no more than it needs.

Pure, and derived from the topology: the users that `infra.bootstrap` writes and README's table come from here.

No service may make a consumer over messages that it may write itself. Whoever makes a consumer chooses where the bus
delivers to, and the bus does not ask whether that one may publish there: a trainer that could read its projects through
a consumer could have its own words delivered as `model.approved`.
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
    """What one user may publish, requests included, and subscribe to."""

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
"""Who reads and writes which records. The memory of handled messages (bucket `inbox`) is everybody's own."""
ARTIFACTS: dict[str, Literal["r", "rw"]] = {
    "trainer": "rw", "evaluator": "rw", "builder": "rw", "deployer": "r", "monitor": "rw",
}  # fmt: skip
HINTS: dict[str, tuple[str, ...]] = {"deployer": ("data.pushed", "drift.detected")}
"""Heard without a consumer: missing one costs nothing but time."""


def users(targets: tuple[str, ...] = ("local",)) -> tuple[str, ...]:
    """Every user of the bus; a deployer per target has one of its own."""
    services = (service for service in subjects.WORKERS if service != DEPLOYER)
    return (SETUP, PEOPLE, *services, *(f"{DEPLOYER}-{target}" for target in targets), SERVING)


def of(user: str) -> Permissions:
    """What `user` may do.

    Raises:
        KeyError: there is no such user.
    """
    if user == SETUP:
        return Permissions(publish=(f"{API}.>", "$JS.FC.>"), subscribe=("_INBOX.>",))
    if user == PEOPLE:
        return _people()
    if user == SERVING:
        said = (*subjects.EMITS[SERVING], f"logs.{SERVING}.*")
        return Permissions(publish=said, subscribe=(f"{inbox_prefix(SERVING)}.>",))
    service, _, target = user.partition("-")
    if (service == DEPLOYER) != bool(target):
        raise KeyError(user)
    objects = _objects_of(ARTIFACTS[service]) if service in ARTIFACTS else ()
    publish = (*_said(service, user), *_consumers(service, user), *_records(service, user, target), *objects)
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=_heard(service, user))


def _people() -> Permissions:
    """A person starts runs, decides, looks at everything, repeats what was said; records stay with their writers."""
    known = [subject for stored in subjects.STREAMS.values() for subject in stored if not subject.startswith("$")]
    publish = [subject for subject in known if subjects.stream_of(subject) == "EVENTS"]
    for stream in subjects.STREAMS:
        publish += [*_looks(stream), *_follows(stream)]
    for bucket in subjects.BUCKETS:
        publish += _looks(f"KV_{bucket}")
    publish += [*_objects_of("rw"), f"{API}.CONSUMER.RESET.EVENTS.*"]
    publish += [f"{API}.{request}" for request in ("INFO", "STREAM.NAMES", "STREAM.LIST")]
    return Permissions(publish=tuple(dict.fromkeys(publish)), subscribe=("_INBOX.>", *known))


def _looks(stream: str) -> Iterator[str]:
    """Requests that read what a stream has, message by message."""
    for request in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.LIST", "CONSUMER.NAMES"):
        yield f"{API}.{request}.{stream}"
    yield f"{API}.DIRECT.GET.{stream}.>"


def _follows(stream: str) -> Iterator[str]:
    """Requests that read it through a consumer of one's own."""
    yield f"{API}.CONSUMER.CREATE.{stream}"
    for request in ("CREATE", "INFO", "MSG.NEXT", "DELETE"):
        yield f"{API}.CONSUMER.{request}.{stream}.>"
    for reply in ("ACK", "ACK.*.*", "FC"):
        yield f"$JS.{reply}.{stream}.>"


def _said(service: str, user: str) -> Iterator[str]:
    yield from subjects.EMITS[service]
    yield f"logs.{service}.*"
    for subject in subjects.LISTENS[service]:
        yield f"dlq.{subjects.consumer_of(user, subject)}.>"
    if service == "monitor":  # a consumer per model
        yield "dlq.*.predictions.*"
        yield "dlq.*.feedback.*"


def _heard(service: str, user: str) -> tuple[str, ...]:
    return (f"{inbox_prefix(user)}.>", *HINTS.get(service, ()))


def _consumers(service: str, user: str) -> Iterator[str]:
    """Its own durables, each with the one filter that is in the request's subject."""
    said = tuple(_said(service, user))
    for subject in subjects.LISTENS[service]:
        stream, durable = subjects.stream_of(subject), subjects.consumer_of(user, subject)
        yield from _reads(stream, durable)
        if not any(overlap(subject, own) for own in said):
            yield f"{API}.CONSUMER.CREATE.{stream}.{durable}.{subject}"
    if service == "monitor":
        yield from _traffic()


def _traffic() -> Iterator[str]:
    """The monitor reads each model's traffic through a consumer that it makes anew behind its saved position."""
    yield from _reads("PREDICTIONS", "*")
    for request in ("STREAM.INFO.PREDICTIONS", "DIRECT.GET.PREDICTIONS"):
        yield f"{API}.{request}"
    for request in ("DURABLE.CREATE", "DELETE"):
        yield f"{API}.CONSUMER.{request}.PREDICTIONS.*"


def _reads(stream: str, durable: str) -> Iterator[str]:
    yield f"{API}.CONSUMER.INFO.{stream}.{durable}"
    yield f"{API}.CONSUMER.MSG.NEXT.{stream}.{durable}"
    yield f"$JS.ACK.{stream}.{durable}.>"
    yield f"$JS.ACK.*.*.{stream}.{durable}.>"


def _records(service: str, user: str, target: str) -> Iterator[str]:
    for keys in (*KEYS[service], *_memory(service, user)):
        subject = f"$KV.{keys.bucket}.{keys.pattern.format(target=target)}"
        yield f"{API}.STREAM.INFO.KV_{keys.bucket}"
        yield f"{API}.DIRECT.GET.KV_{keys.bucket}.{subject}"
        if keys.access == "rw":
            yield subject
    if service == "monitor":  # it sweeps up states that are no more
        yield f"{API}.STREAM.PURGE.KV_{subjects.MONITOR}"


def _memory(service: str, user: str) -> tuple[Keys, ...]:
    names = [f"{subjects.consumer_of(user, subject)}.*" for subject in subjects.LISTENS[service]]
    # Which generation a run first had is written by whoever hears of the run first.
    starts = {"data.pushed", "drift.detected"} & set(subjects.LISTENS[service])
    return _keys(subjects.INBOX, *names, *(["run.*"] if starts else []))


def _objects_of(access: Literal["r", "rw"]) -> Iterator[str]:
    stream = f"OBJ_{subjects.ARTIFACTS}"
    for request in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"):
        yield f"{API}.{request}.{stream}"
    if access == "rw":
        yield f"$O.{subjects.ARTIFACTS}.C.*"
        yield f"$O.{subjects.ARTIFACTS}.M.*"


def overlap(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    first, second = one.split("."), other.split(".")
    for a, b in zip(first, second, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(first) == len(second)
