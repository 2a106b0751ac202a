"""The belt commands against a real bus, with events that the test itself publishes in the workers' place."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contracts import cloudevents
from contracts.artifact_ref import HTML
from contracts.cloudevents import Envelope
from contracts.events import BuildFailed, DataPushed, Event, ImagePushed, ReviewDecided, RollbackRequested, subject_of
from services.messaging.connection import Bus, connect
from services.messaging.settings import BusSettings
from services.storage.archives import unpack
from services.storage.artifact_store import open_artifact_store
from services.storage.registry import Candidate, Deployed, Live, Project, Registry
from tests.conftest import NatsServer
from tests.unit.services.monitor import drift_events

SPEC = "name: digits\ntarget: y\nestimator: pipeline:build\ndataset: data.csv\n"


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Belt:
    """Runs `belt` as a process, in a folder of its own."""

    folder: Path
    nats_url: str
    started: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        environment = os.environ | {"NATS_URL": self.nats_url, "PYTHONPATH": str(Path.cwd())}
        environment.pop("COLUMNS", None)  # pytest-xdist sets it, and a pipe has no width
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "belt.main", *arguments,
            cwd=self.folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.started.append(process)
        return process

    async def __call__(self, *arguments: str) -> Done:
        return await ended(await self.start(*arguments))


async def ended(process: asyncio.subprocess.Process) -> Done:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Done(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def belt(nats_url: str, home: Path) -> AsyncIterator[Belt]:
    made = Belt(home, nats_url)
    yield made
    for process in made.started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def project(home: Path) -> Path:
    folder = home / "toy"
    folder.mkdir()
    (folder / "model.yaml").write_text(SPEC)
    (folder / "pipeline.py").write_text("def build(): ...\n")
    (folder / "data.csv").write_text("x,y\n1,0\n")
    return folder


async def publish(
    bus: Bus, event: Event, *, run: str = drift_events.RUN, cause: str | None = None, id: str = ""
) -> int:
    id = id or str(uuid4())
    written = cloudevents.headers(
        event, id=id, source="test", run=run, generation=7, time=datetime.now(UTC), causation=cause
    )
    return (await bus.js.publish(subject_of(event), cloudevents.body(event), headers=written)).seq


async def publish_all(bus: Bus, events: Sequence[Event], *, run: str = drift_events.RUN) -> None:
    for event in events:
        await publish(bus, event, run=run)


async def heard(bus: Bus, subject: str) -> AsyncIterator[tuple[Event, Envelope]]:
    """Yield the events on `subject`, from its beginning."""
    reader = await bus.js.pull_subscribe(subject, stream="EVENTS")
    while True:
        for message in await reader.fetch(1, timeout=30):
            at = message.metadata
            yield cloudevents.read(message.subject, message.headers, message.data, at.sequence.stream, at.timestamp)


async def first(bus: Bus, subject: str) -> tuple[Event, Envelope]:
    return await anext(heard(bus, subject))


PUSH_ID = "push-1"


async def a_push(bus: Bus, *rest: Event) -> str:
    """A push by the test and what came of it; returns its run."""
    await publish(bus, drift_events.pushed(), id=PUSH_ID)
    await publish_all(bus, rest)
    return drift_events.RUN


async def registered(bus: Bus, status: str = "approved", **more: Any) -> Registry:
    """The version of `telling`, judged, in the registry."""
    registry = Registry(bus)
    known = {
        "model": "digits", "version": drift_events.VERSION, "run": drift_events.RUN, "generation": 7,
        "started_by": PUSH_ID,
        "trained": drift_events.trained(), "verdict": drift_events.verdict(), "status": status,
    }  # fmt: skip
    await registry.put_candidate(Candidate.model_validate(known | more), None)
    return registry


async def live(registry: Registry, previous: str | None) -> None:
    await registry.put_image(Deployed(image=drift_events.image(), run=drift_events.RUN, generation=7))
    record = Live(
        model="digits", version=drift_events.VERSION, image=drift_events.IMAGE, url="http://127.0.0.1:8080/digits",
        target="local", order=7, run=drift_events.RUN, since=1767614400.0, previous=previous,
    )  # fmt: skip
    await registry.put_live(record, None)


# -- looking ---------------------------------------------------------------------------------------------------


async def test_a_long_reason_is_cut_in_the_list_and_whole_in_the_run(bus: Bus, belt: Belt) -> None:
    every = tuple(f"column 'x{number}' is missing" for number in range(64))
    run = await a_push(bus, drift_events.rejected_data().model_copy(update={"violations": every}))
    listed, whole = (await belt("runs")).out, (await belt("run", run)).out
    assert "column 'x0' is missing" in " ".join(listed.split())
    assert "…" in listed
    assert "'x63'" not in listed
    assert "'x63'" in whole


async def test_runs_lists_the_newest_first_with_what_is_under_way(bus: Bus, belt: Belt) -> None:
    await a_push(bus, drift_events.trained(), drift_events.approved(), drift_events.image(), drift_events.deployed())
    second = cloudevents.run_of("test", "push-2", "digits")
    await publish(bus, drift_events.pushed("more labels"), id="push-2", run=second)
    newest, oldest = (await belt("runs", "--json")).json
    assert (newest["run"], newest["outcome"], newest["under_way"]) == (second, "running", "trainer")
    assert (oldest["run"], oldest["outcome"], oldest["version"]) == (drift_events.RUN, "deployed", drift_events.VERSION)
    shown = await belt("runs")
    assert shown.out.index(second) < shown.out.index(drift_events.RUN)
    assert shown.err == ""


async def test_thousands_of_events_and_unreadable_ones_are_read(bus: Bus, belt: Belt) -> None:
    for number in range(1500):
        await bus.nc.publish("data.pushed", json.dumps({"model": f"m{number % 7}", "dataset": "x.csv"}).encode())
    await bus.nc.publish("data.pushed", b"\xff not json")
    await bus.nc.flush()
    assert len((await belt("runs", "--json", "-n", "9999")).json) == 1500


async def test_run_shows_stages_and_events_and_takes_the_beginning_of_an_id(bus: Bus, belt: Belt) -> None:
    await a_push(bus, drift_events.failed_training())
    found = (await belt("run", drift_events.RUN[:6], "--json")).json
    assert [stage["state"] for stage in found["stages"]] == ["failed", "waiting", "waiting", "waiting"]
    assert [event["subject"] for event in found["events"]] == ["data.pushed", "training.failed"]
    shown = await belt("run", drift_events.RUN)
    assert "training failed: ProjectCodeFailed: ValueError: no rows" in shown.out
    assert f"belt logs {drift_events.RUN}" in shown.out


async def test_an_unknown_run_is_an_error_that_says_where_to_look(belt: Belt) -> None:
    done = await belt("run", "ffff")
    assert (done.code, done.out) == (1, "")
    assert "no run 'ffff'" in done.err
    assert "belt runs" in done.err


async def test_logs_are_filtered_by_run(bus: Bus, belt: Belt) -> None:
    lines = [
        {"event": "progress", "level": "info", "service": "trainer", "run": drift_events.RUN, "model": "digits"},
        {"event": "given up", "level": "error", "service": "builder", "run": "ffff", "model": "other"},
    ]
    for line in lines:
        await bus.js.publish(f"logs.{line['service']}.{line['model']}", json.dumps(line).encode())
    await bus.js.publish("logs.trainer.digits", b"not json")
    found = await belt("logs", drift_events.RUN, "--json")
    assert [json.loads(line)["event"] for line in found.out.splitlines()] == ["progress"]
    assert "given up" in (await belt("logs", "--service", "builder")).out


async def test_logs_of_an_unknown_run_are_an_error_as_in_belt_run(bus: Bus, belt: Belt) -> None:
    await a_push(bus)
    done = await belt("logs", "zzz")
    assert (done.code, done.out) == (1, "")
    assert "no run 'zzz'" in done.err
    assert (await belt("logs", drift_events.RUN)).code == 0


async def test_logs_follow_goes_on_with_new_lines_until_interrupted(bus: Bus, belt: Belt) -> None:
    await bus.js.publish("logs.trainer.digits", b'{"event": "old"}')
    process = await belt.start("logs", "-f", "--json")
    assert process.stdout
    assert b"old" in await asyncio.wait_for(process.stdout.readline(), 30)
    await bus.js.publish("logs.trainer.digits", b'{"event": "new"}')
    assert b"new" in await asyncio.wait_for(process.stdout.readline(), 30)
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 0


async def test_watch_follows_across_a_restart_of_the_bus(nats_server: NatsServer, bus: Bus, belt: Belt) -> None:
    await a_push(bus)
    process = await belt.start("watch", drift_events.RUN, "--json")
    assert process.stdout
    assert json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["subject"] == "data.pushed"
    await publish(bus, drift_events.trained())
    assert json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["subject"] == "model.trained"
    nats_server.kill()
    nats_server.start()
    again = await connect(nats_server.url)
    await publish_all(again, [drift_events.approved(), drift_events.image(), drift_events.deployed()])
    done = await ended(process)
    await again.close()
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [x["subject"] for x in lines if x["kind"] == "event"] == ["model.approved", "image.pushed", "model.deployed"]
    assert done.code == 0


async def test_watch_of_all_runs_says_that_it_waits(bus: Bus, belt: Belt) -> None:
    process = await belt.start("watch", "--json")
    assert process.stdout
    assert process.stderr
    assert b"watching all runs until Ctrl-C" in await asyncio.wait_for(process.stderr.readline(), 30)
    await a_push(bus)
    assert json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["subject"] == "data.pushed"
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 0


async def test_models_and_deployments_come_from_the_registry(bus: Bus, belt: Belt) -> None:
    assert "No models yet" in (await belt("models")).out
    registry = await registered(bus)
    await live(registry, "3-00000000")
    await registry.put_project(Project(model="digits", archive=drift_events.REF, order=7, commit="abc"), None)
    (model,) = (await belt("models", "--json")).json
    assert (model["live"], model["approved"], model["last_run"]) == (
        drift_events.VERSION,
        [drift_events.VERSION],
        drift_events.RUN,
    )
    (deployment,) = (await belt("deployments", "--json")).json
    assert (deployment["previous"], deployment["target"]) == ("3-00000000", "local")
    assert drift_events.VERSION in (await belt("deployments")).out


@pytest.mark.parametrize(
    "given",
    [f"digits.{drift_events.VERSION}.x1", drift_events.VERSION, f"digits:{drift_events.VERSION}", drift_events.IMAGE],
)
async def test_trace_leads_back_to_everything_in_one_answer(bus: Bus, belt: Belt, given: str) -> None:
    await a_push(bus, drift_events.trained(), drift_events.approved(), drift_events.image(), drift_events.deployed())
    await live(await registered(bus), None)
    found = (await belt("trace", given, "--json")).json
    assert (found["version"], found["run"], found["started_by"]) == (drift_events.VERSION, drift_events.RUN, PUSH_ID)
    assert (found["commit"], found["data"], found["image"]) == ("0123456789abcdef", "a" * 64, drift_events.IMAGE)
    assert (found["verdict"]["outcome"], found["live_on"]) == ("pass", ["local"])
    assert found["cause"]["subject"] == "data.pushed"


async def test_trace_outlives_the_stream(bus: Bus, belt: Belt) -> None:
    await live(await registered(bus), None)
    shown = await belt("trace", drift_events.VERSION)
    assert shown.code == 0
    assert all(
        known in shown.out for known in (drift_events.RUN, PUSH_ID, "0123456789abcdef", "a" * 64, drift_events.IMAGE)
    )


async def test_trace_of_something_unknown_says_so(belt: Belt) -> None:
    done = await belt("trace", "digits.9-00000000.x")
    assert (done.code, done.out) == (1, "")
    assert "'digits.9-00000000.x' is no prediction id, version or image of a model here" in done.err


# -- pushing ---------------------------------------------------------------------------------------------------


async def test_push_uploads_project_and_data_and_prints_the_run(
    bus: Bus, belt: Belt, project: Path, home: Path
) -> None:
    done = await belt("push", "toy", "--reason", "first")
    event, about = await first(bus, "data.pushed")
    assert isinstance(event, DataPushed)
    assert (done.code, done.out.strip()) == (0, about.run)
    assert (event.model, event.reason, about.source) == ("digits", "first", "belt")
    artifacts = open_artifact_store(bus, BusSettings(home=home / "cache"))
    assert event.dataset
    assert not isinstance(event.dataset, str)
    assert (await artifacts.fetch(event.dataset)).read_text() == "x,y\n1,0\n"
    assert event.project
    unpack(await artifacts.fetch(event.project), home / "unpacked")
    assert sorted(file.name for file in (home / "unpacked").iterdir()) == ["data.csv", "model.yaml", "pipeline.py"]
    assert sorted(file.name for file in home.iterdir()) == ["cache", "toy", "unpacked"]


async def test_push_hands_a_uri_on_as_it_is(bus: Bus, belt: Belt, project: Path) -> None:
    pushed = (await belt("push", "toy", "--data", "s3://bucket/x.parquet", "--json")).json
    event, about = await first(bus, "data.pushed")
    assert isinstance(event, DataPushed)
    assert event.dataset == "s3://bucket/x.parquet"
    assert (pushed["run"], pushed["event"], pushed["sequence"]) == (about.run, about.id, about.sequence)


async def test_a_bad_project_is_refused_before_anything_is_published(bus: Bus, belt: Belt, project: Path) -> None:
    (project / "model.yaml").write_text(SPEC + "colour: red\n")
    done = await belt("push", "toy")
    assert (done.code, done.out) == (1, "")
    assert "model.yaml line 5: unknown key 'colour'" in done.err
    assert (await bus.js.stream_info("EVENTS")).state.messages == 0


async def test_pushing_what_is_no_folder_is_misuse(belt: Belt) -> None:
    assert (await belt("push", "nowhere")).code == 2


async def test_push_wait_follows_until_it_is_deployed(bus: Bus, belt: Belt, project: Path) -> None:
    process = await belt.start("push", "toy", "--wait")
    _, about = await first(bus, "data.pushed")
    line = {"event": "progress", "service": "trainer", "run": about.run, "step": "fit", "done": 1, "total": 2}
    await bus.js.publish("logs.trainer.digits", json.dumps(line).encode())
    events = [drift_events.trained(), drift_events.approved(), drift_events.image(), drift_events.deployed()]
    await publish_all(bus, events, run=about.run)
    done = await ended(process)
    assert (done.code, done.out.strip()) == (0, about.run)
    assert "trainer: fit\n" in done.err
    assert "is live at http://127.0.0.1:8080/digits" in done.err


async def test_push_wait_exits_1_with_the_reason_and_what_to_run_next(bus: Bus, belt: Belt, project: Path) -> None:
    process = await belt.start("push", "toy", "--wait", "--json")
    _, about = await first(bus, "data.pushed")
    await publish_all(bus, [drift_events.trained(), drift_events.rejected()], run=about.run)
    done = await ended(process)
    assert (done.code, done.json["outcome"], done.json["run"]) == (1, "review", about.run)
    assert "accuracy > 0.9: 0.972 (0.951 to 0.986) unknown" in done.err
    assert f"belt review approve digits {drift_events.VERSION}" in done.err


async def test_an_interrupted_wait_says_that_the_run_goes_on(bus: Bus, belt: Belt, project: Path) -> None:
    process = await belt.start("push", "toy", "--wait")
    await first(bus, "data.pushed")
    assert process.stdout
    run = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 1
    assert f"belt watch {run}" in done.err


# -- deciding --------------------------------------------------------------------------------------------------


async def test_review_lists_what_waits_with_every_condition(bus: Bus, belt: Belt) -> None:
    assert "Nothing waits" in (await belt("review", "list")).out
    await registered(bus, "waiting", verdict=drift_events.verdict("unknown"))
    shown = await belt("review", "list")
    assert "accuracy > 0.9: 0.972 (0.951 to 0.986) unknown – the interval spans 0.9" in shown.out
    (waiting,) = (await belt("review", "list", "--json")).json
    assert (waiting["version"], waiting["verdict"]["outcome"]) == (drift_events.VERSION, "unknown")


async def test_a_decision_belongs_to_the_versions_run_and_decides_with_its_own_sequence(bus: Bus, belt: Belt) -> None:
    await registered(bus, "waiting")
    done = await belt("review", "approve", "digits", drift_events.VERSION, "--reason", "noise", "--by", "Ada")
    assert done.code == 0
    event, about = await first(bus, "review.decided")
    assert isinstance(event, ReviewDecided)
    assert (event.decision, event.by, event.reason) == ("approve", "Ada", "noise")
    assert (about.run, about.generation) == (drift_events.RUN, about.sequence)


async def test_a_decision_needs_a_reason_and_a_version_that_waits(bus: Bus, belt: Belt) -> None:
    await registered(bus, "approved")
    assert (await belt("review", "reject", "digits", drift_events.VERSION)).code == 2
    assert (await belt("review", "reject", "digits", drift_events.VERSION, "--reason", " ")).code == 2
    done = await belt("review", "reject", "digits", drift_events.VERSION, "--reason", "x")
    assert done.code == 1
    assert "does not wait for a review: it is approved (by gate)" in done.err
    unknown = await belt("review", "approve", "digits", "9-00000000", "--reason", "x")
    assert f"no version '9-00000000' of digits; it has {drift_events.VERSION}" in unknown.err
    nope = await belt("review", "approve", "digits", "nope", "--reason", "x")
    assert (nope.code, nope.out) == (1, "")
    assert f"no version 'nope' of digits; it has {drift_events.VERSION}" in nope.err
    assert (
        "no model 'No such'" in (await belt("review", "reject", "No such", drift_events.VERSION, "--reason", "x")).err
    )


async def test_the_report_of_a_version_is_fetched(bus: Bus, belt: Belt, home: Path) -> None:
    page = await open_artifact_store(bus, BusSettings(home=home / "cache")).put(b"<html>", HTML)
    await registered(bus, "waiting", report=page)
    done = await belt("review", "report", "digits", drift_events.VERSION, "-o", "page.html")
    assert (done.code, (home / "page.html").read_text()) == (0, "<html>")


async def test_rollback_waits_until_the_previous_version_is_live(bus: Bus, belt: Belt) -> None:
    await live(await registered(bus), "3-00000000")
    process = await belt.start("rollback", "digits", "--reason", "slow", "--json")
    event, about = await first(bus, "rollback.requested")
    assert isinstance(event, RollbackRequested)
    assert (event.to, event.reason, about.generation) == (None, "slow", about.sequence)
    await publish(bus, drift_events.deployed("rollback", "4-11111111"), cause="someone else's")
    await publish(bus, drift_events.deployed("rollback", "3-00000000"), cause=about.id)
    done = await ended(process)
    assert (done.code, done.json["version"]) == (0, "3-00000000")


async def test_a_rollback_that_fails_exits_1_with_why(bus: Bus, belt: Belt) -> None:
    await live(await registered(bus), "3-00000000")
    process = await belt.start("rollback", "digits")
    _, about = await first(bus, "rollback.requested")
    await publish(bus, drift_events.failed_deployment(), cause=about.id)
    done = await ended(process)
    assert done.code == 1
    assert "digits was not rolled back: ProbeDiffers: answers differ" in done.err


async def test_a_rollback_to_nowhere_is_refused_by_name(bus: Bus, belt: Belt) -> None:
    assert "digits is not deployed; " in (await belt("rollback", "digits")).err
    await live(await registered(bus), None)
    done = await belt("rollback", "digits")
    assert (done.code, done.out) == (1, "")
    assert f"digits has no previous version to go back to from {drift_events.VERSION}" in done.err
    never = await belt("rollback", "digits", "--to", "9-00000000")
    assert f"digits 9-00000000 was never deployed; name one of {drift_events.VERSION}" in never.err
    nope = await belt("rollback", "digits", "--to", "nope")
    assert nope.code == 1
    assert f"no version 'nope' of digits; name one of {drift_events.VERSION}" in nope.err
    assert "no model 'No such'" in (await belt("rollback", "No such")).err
    assert (await bus.js.stream_info("EVENTS")).state.messages == 0


# -- replaying -------------------------------------------------------------------------------------------------


async def stored(bus: Bus, sequence: int) -> tuple[Event, Envelope, dict[str, str]]:
    message = await bus.js.get_msg("EVENTS", sequence)
    assert message.subject
    headers = message.headers or {}
    event, about = cloudevents.read(message.subject, headers, message.data or b"", sequence, datetime.now(UTC))
    return event, about, headers


@pytest.mark.parametrize("given", ["EVENTS:1", PUSH_ID, drift_events.RUN])
async def test_a_replayed_event_is_the_same_event_and_not_dropped_as_a_duplicate(
    bus: Bus, belt: Belt, given: str
) -> None:
    await a_push(bus, drift_events.trained())
    done = await belt("replay", given, "--json")
    (event, about, headers), (before, _, old) = await stored(bus, done.json["sequence"]), await stored(bus, 1)
    assert (about.id, about.source, about.run) == (PUSH_ID, "test", drift_events.RUN)
    assert event == before
    assert headers["Nats-Msg-Id"] != old["Nats-Msg-Id"]
    assert len((await belt("runs", "--json")).json) == 1


async def test_of_a_run_that_failed_what_was_given_up_is_replayed(bus: Bus, belt: Belt) -> None:
    run = await a_push(bus, drift_events.trained())
    judged = await publish(bus, drift_events.approved(), id="approved")
    failed = BuildFailed(
        model="digits", version=drift_events.VERSION, error="DockerRefused", message="no base", attempts=1
    )
    await publish(bus, failed, cause="approved")
    again = (await belt("replay", run[:6], "--json")).json["sequence"]
    assert (await stored(bus, again))[1].id == (await stored(bus, judged))[1].id == "approved"
    await publish_all(bus, [drift_events.image(), drift_events.deployed()])
    assert (await belt("replay", run, "--json")).json["subject"] == "data.pushed", "nothing is given up any more"


async def test_a_beginning_of_several_runs_means_none_of_them(bus: Bus, belt: Belt) -> None:
    run = await a_push(bus, drift_events.failed_training())
    other = f"{run[:8]}{'0' * 8}"
    await publish(bus, drift_events.trained(), id="judged", run=other)
    failed = BuildFailed(
        model="digits", version=drift_events.VERSION, error="DockerRefused", message="no base", attempts=1
    )
    await publish(bus, failed, cause="judged", run=other)
    done = await belt("replay", run[:8])
    assert done.code == 1
    assert "EVENTS:1 (data.pushed)" in done.err
    assert "EVENTS:3 (model.trained)" in done.err


async def test_a_bare_event_keeps_the_identity_it_was_given_by_the_stream(bus: Bus, belt: Belt) -> None:
    await bus.js.publish("data.pushed", b'{"model": "digits", "dataset": "x.csv", "later": 1}')
    _, before, _ = await stored(bus, 1)
    again = (await belt("replay", "EVENTS:1", "--json")).json["sequence"]
    _, about, _ = await stored(bus, again)
    assert again == 2
    assert about.identity == before.identity
    assert (await bus.js.get_msg("EVENTS", 2)).data == b'{"model": "digits", "dataset": "x.csv", "later": 1}'


async def test_a_replayed_decision_keeps_its_place_in_the_order(bus: Bus, belt: Belt) -> None:
    await bus.js.publish("rollback.requested", b'{"model": "digits", "by": "Ada", "reason": "slow"}')
    again = (await belt("replay", "EVENTS:1", "--json")).json["sequence"]
    _, about, _ = await stored(bus, again)
    assert (about.generation, about.sequence) == (1, 2)


async def test_a_structured_event_is_replayed_as_the_same(bus: Bus, belt: Belt) -> None:
    whole = {"specversion": "1.0", "id": "s-1", "source": "erp", "type": "x", "data": {"model": "digits"}}
    headers = {"content-type": cloudevents.STRUCTURED}
    await bus.js.publish("data.pushed", json.dumps(whole).encode(), headers=headers)
    event, about, _ = await stored(bus, (await belt("replay", "s-1", "--json")).json["sequence"])
    assert (event.model, about.id, about.source) == ("digits", "s-1", "erp")


async def test_a_rerun_is_a_new_run_with_the_same_payload(bus: Bus, belt: Belt) -> None:
    run = await a_push(bus, drift_events.failed_training())
    done = (await belt("replay", run, "--rerun", "--json")).json
    event, about, _ = await stored(bus, done["sequence"])
    assert event == drift_events.pushed()
    assert about.run == done["run"] != run
    assert (about.generation, about.causation) == (about.sequence, PUSH_ID)
    assert about.time > (await stored(bus, 1))[1].time
    assert [found["run"] for found in (await belt("runs", "--json")).json] == [about.run, run]


async def test_only_what_starts_a_run_can_be_rerun(bus: Bus, belt: Belt) -> None:
    await a_push(bus, drift_events.trained())
    done = await belt("replay", "EVENTS:2", "--rerun")
    assert done.code == 1
    assert f"model.trained starts no run; `belt replay {drift_events.RUN} --rerun`" in done.err
    assert "no event and no run 'nothing'" in (await belt("replay", "nothing")).err


def test_the_fixtures_are_what_the_tests_believe() -> None:
    assert isinstance(drift_events.image(), ImagePushed)
    assert cloudevents.run_of("test", PUSH_ID, "digits") == drift_events.RUN
