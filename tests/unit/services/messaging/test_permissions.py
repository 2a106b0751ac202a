"""Permissions on the bus: those that follow from the topology, and those that no service may have."""

import re
import runpy

import pytest

from contracts import subjects
from services.messaging import permissions
from services.messaging.permissions import API, overlap
from tests.belts import ROOT

TARGETS = ("local", "production")
SERVICES = [user for user in permissions.users(TARGETS) if user not in (permissions.SETUP, permissions.PEOPLE)]
CREATES = re.compile(
    r"\$JS\.API\.CONSUMER\.(?:DURABLE\.)?CREATE\.(?P<stream>[^.]+)\.(?P<name>[^.]+)(?:\.(?P<filter>.+))?"
)


def may_publish(user: str, subject: str) -> bool:
    return any(overlap(allowed, subject) for allowed in permissions.of(user).publish)


@pytest.mark.parametrize("subject", ["model.approved", "data.pushed", "review.decided", "rollback.requested"])
def test_what_decides_has_one_author(subject: str) -> None:
    said = [user for user in SERVICES if may_publish(user, subject)]
    assert said == (["evaluator"] if subject == "model.approved" else [])


@pytest.mark.parametrize(
    ("key", "writers"),
    [
        ("registry.digits.candidate.1-abcdef00", ["evaluator"]),
        ("registry.digits.live.local", ["deployer-local"]),
        ("registry.digits.live.production", ["deployer-production"]),
        ("registry.digits.image.local.1-abcdef00", ["deployer-local"]),
        ("projects.digits", ["trainer"]),
        ("leases.monitor.digits", ["monitor"]),
        ("monitor.digits.state", ["monitor"]),
        ("inbox.trainer-data-pushed.0123", ["trainer"]),
    ],
)
def test_a_record_has_one_writer(key: str, writers: list[str]) -> None:
    assert [user for user in SERVICES if may_publish(user, f"$KV.{key}")] == writers


def test_serving_only_speaks() -> None:
    serving = permissions.of("serving")
    assert sorted(serving.publish) == ["feedback.*", "logs.serving.*", "predictions.*"]
    assert serving.subscribe == ("_INBOX_serving.>",)


@pytest.mark.parametrize("user", SERVICES)
def test_nobody_makes_a_consumer_over_what_it_may_write(user: str) -> None:
    # It could have its own words delivered under any subject: the bus does not ask about where a consumer delivers to.
    for request in permissions.of(user).publish:
        if found := CREATES.match(request):
            filters = [found["filter"]] if found["filter"] else subjects.STREAMS[found["stream"]]
            assert not [subject for subject in filters if may_publish(user, subject)], request


@pytest.mark.parametrize("user", SERVICES)
def test_nobody_touches_streams_or_the_durables_of_others(user: str) -> None:
    for request in permissions.of(user).publish:
        assert not re.search(r"STREAM\.(CREATE|UPDATE|DELETE|SNAPSHOT|RESTORE|MSG\.DELETE)", request), request
        if "STREAM.PURGE" in request:
            assert (user, request) == ("monitor", f"{API}.STREAM.PURGE.KV_monitor")
        if (found := CREATES.match(request)) and found["stream"] != "PREDICTIONS":
            assert found["name"].startswith(f"{user}-"), request
    assert not [subject for subject in permissions.of(user).subscribe if subject.startswith("_INBOX.")]


def test_an_answer_to_one_is_not_for_another() -> None:
    prefixes = [f"{subjects.inbox_prefix(user)}." for user in SERVICES]
    assert not [one for one in prefixes for other in prefixes if one != other and one.startswith(other)]


def test_no_wildcard_is_half_a_token() -> None:
    # NATS takes `trainer-*` for a name, not for a pattern.
    for user in permissions.users(TARGETS):
        allowed = permissions.of(user)
        for subject in (*allowed.publish, *allowed.subscribe):
            assert not re.search(r"[^.]\*|\*[^.]|[^.]>|>.", subject), subject


def test_unknown_users_may_nothing() -> None:
    for user in ("deployer", "trainer-2", "nobody"):
        with pytest.raises(KeyError):
            permissions.of(user)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.b", "a.b.c", False),
        ("a.*", "b.*", False),
    ],
)
def test_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


def test_the_table_in_the_readme_is_current() -> None:
    readme = (ROOT / "README.md").read_text()
    assert runpy.run_path(str(ROOT / "docs" / "permissions.py"))["placed"](readme) == readme, (
        "run `docs/permissions.py`"
    )
