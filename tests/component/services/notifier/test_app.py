"""Events in, alerts out, through a real webhook."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from belt.main import app
from contracts import cloudevents
from contracts.artifact_ref import ArtifactRef
from contracts.cloudevents import run_of
from contracts.events import (
    AlertRaised,
    BuildFailed,
    DataRejected,
    DeploymentFailed,
    DriftDetected,
    EvaluationFailed,
    Event,
    ModelRejected,
    TrainingFailed,
)
from contracts.profiles import Window
from contracts.verdicts import ConditionResult, Verdict
from services.messaging.worker import Worker
from services.notifier.app import ALERTING_EVENTS, create_app
from services.notifier.channels import Apprise
from services.notifier.settings import Settings
from tests.fakes import Delivered, MemoryInbox, deliver

ARTIFACT = ArtifactRef(uri="memory://a", sha256="0" * 64, size=1, media_type="text/plain")
REJECTED = ModelRejected(
    model="digits",
    version="7-0123abcd",
    artifact=ARTIFACT,
    verdict=Verdict(
        outcome="unknown",
        confidence=0.95,
        conditions=(
            ConditionResult(
                condition="accuracy > 0.9", estimate=0.91, low=0.88, high=0.93, rows=360, outcome="unknown"
            ),
        ),
    ),
)
WINDOW = Window(start=0, end=1, rows=500, labels=500, index=0)
BAD_DATA = DataRejected(model="digits", dataset="d.csv", violations=("the target 'digit' is missing",))
DRIFT = DriftDetected(
    model="digits", version="7-0123abcd", kind="performance", action="retrain", window=WINDOW,
    evidence={"accuracy": 0.7}, columns=("x0",),
)  # fmt: skip
FAILED = (TrainingFailed, EvaluationFailed, BuildFailed, DeploymentFailed)


class Webhook:
    """A local HTTP server that answers with the given statuses, then with 200, and keeps what it was sent."""

    def __init__(self) -> None:
        self.received: list[dict[str, str]] = []
        self.statuses: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = outer.statuses.pop(0) if outer.statuses else 200
                if status == 200:
                    outer.received.append(json.loads(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


def notifier(*urls: str, inbox: MemoryInbox | None = None) -> Worker:
    worker = Worker("notifier", Settings(), inbox=inbox or MemoryInbox())
    create_app(worker, Apprise(urls), delays=(0.0, 0.0))
    return worker


async def only(worker: Worker, event: Event | bytes, **more: str) -> AlertRaised:
    [raised] = await deliver(worker, event, **more)
    assert isinstance(raised, AlertRaised)
    return raised


async def test_a_rejected_model_opens_a_review_and_reaches_the_webhook(webhook: Webhook) -> None:
    raised = await only(notifier(webhook.url), REJECTED, ce_id="e1", ce_correlationid="0123456789abcdef")
    assert raised.command == "belt review approve digits 7-0123abcd --reason '…'"
    assert raised.about == "e1"
    assert "accuracy > 0.9: 0.910 [0.880, 0.930]" in raised.body
    [sent] = webhook.received
    assert sent["title"] == raised.title
    assert sent["type"] == "warning"
    assert raised.command in sent["message"]


async def test_without_a_channel_the_alert_is_still_on_the_bus() -> None:
    raised = await only(notifier(), REJECTED)
    assert raised.severity == "warning"


async def test_a_failing_channel_is_tried_again_and_the_other_hears_it_once(webhook: Webhook) -> None:
    other = Webhook()
    webhook.statuses = [500, 503]
    await only(notifier(webhook.url, other.url), REJECTED)
    assert (len(webhook.received), len(other.received)) == (1, 1)
    other.server.shutdown()
    other.server.server_close()


async def test_a_channel_that_stays_away_does_not_lose_the_alert(webhook: Webhook) -> None:
    webhook.statuses = [500] * 10
    await only(notifier(webhook.url), REJECTED)
    assert webhook.received == []
    assert len(webhook.statuses) == 7


async def test_a_repeated_event_is_told_once(webhook: Webhook) -> None:
    inbox = MemoryInbox()
    for _ in range(2):
        raised = await only(notifier(webhook.url, inbox=inbox), REJECTED, ce_id="same")
        assert raised.about == "same"
    assert len(webhook.received) == 1


def test_a_url_that_makes_no_sense_ends_the_start_and_is_named_without_its_secret() -> None:
    environ = os.environ | {"NOTIFIER_URLS": "json://127.0.0.1 nonsense://secret@host"}
    command = [sys.executable, "-m", "services.notifier.app"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == "NOTIFIER_URLS contains a nonsense URL that apprise cannot read\n"


async def test_a_channel_that_raises_keeps_nobody_from_being_told_once(webhook: Webhook) -> None:
    class Raising(Apprise):
        async def _send(self, index: int, alert: AlertRaised) -> bool:
            if index == 0:
                raise ZeroDivisionError("a plugin of its own kind")
            return await super()._send(index, alert)

    worker = Worker("notifier", Settings(), inbox=MemoryInbox())
    create_app(worker, Raising(["json://127.0.0.1", webhook.url]), delays=(0.0, 0.0))
    await only(worker, REJECTED)
    assert len(webhook.received) == 1


async def test_a_rollback_that_cannot_be_is_no_emergency_and_names_no_version() -> None:
    failed = DeploymentFailed(model="digits", error="CannotRollBack", message="there is no previous", attempts=1)
    raised = await only(notifier(), failed, ce_correlationid="0123456789abcdef")
    assert (raised.severity, raised.title) == ("warning", "Deployment of digits failed: CannotRollBack")
    broken = failed.model_copy(update={"error": "DidNotStart", "version": "7-0123abcd"})
    raised = await only(notifier(), broken)
    assert (raised.severity, raised.title) == ("critical", "Deployment of digits 7-0123abcd failed: DidNotStart")


@pytest.mark.parametrize("name", ["digits-", "-", "Digits", "", "a" * 41])
async def test_a_dead_letter_about_no_model_of_ours_is_told(name: str) -> None:
    (raised,) = await deliver(notifier(), b"{", "dlq.someone.data.pushed", ce_subject=name)
    assert raised.model == "unknown"


async def test_every_kind_of_trouble_has_its_command() -> None:
    worker = notifier()
    run = "0123456789abcdef"
    raised = await only(worker, BAD_DATA, ce_correlationid=run)
    assert raised.command == f"belt run {run}"
    assert "the target 'digit' is missing" in raised.body
    failed = TrainingFailed(model="digits", error="ProjectTestsFailed", message="x" * 9000, attempts=1)
    raised = await only(worker, failed, ce_correlationid=run)
    assert raised.command == f"belt logs {run}"
    assert len(raised.body) < 5000
    raised = await only(worker, DRIFT, ce_id="d", ce_source="bentobelt/monitor")
    assert raised.command == f"belt run {run_of('bentobelt/monitor', 'd', 'digits')}"
    raised = await only(worker, DRIFT.model_copy(update={"action": "alert", "kind": "data"}), ce_id="a")
    assert (raised.severity, raised.command) == ("warning", "belt trace digits:7-0123abcd")


async def give_up(consumer: str, subject: str, body: bytes, reason: str) -> Delivered:
    headers = {"Dead-Reason": reason, "Dead-Subject": subject, "Dead-Consumer": consumer, "Dead-Sequence": "7"}
    return await deliver(notifier(), body, f"dlq.{consumer}.{subject}", **headers)


async def test_what_nobody_could_read_is_told_with_what_it_should_have_been() -> None:
    (raised,) = await give_up("trainer-data-pushed", "data.pushed", b"{", "the payload is not JSON")
    assert isinstance(raised, AlertRaised)
    assert raised.title == "trainer-data-pushed gave up a message on data.pushed"
    assert (raised.model, raised.command) == ("unknown", "belt schema data.pushed")
    assert "the payload is not JSON" in raised.body
    (raised,) = await give_up("monitor-predictions-digits", "predictions.digits", b"[]", "an array")
    assert isinstance(raised, AlertRaised)
    assert raised.command == "belt schema predictions"


async def test_its_own_dead_letters_do_not_go_round() -> None:
    assert await give_up("notifier-drift-detected", "drift.detected", b"{", "not JSON") == []


@pytest.mark.parametrize("room", ["trainer", "evaluator", "builder", "deployer", "deployer-docker"])
async def test_a_given_up_event_is_told_once_by_the_stage_that_failed(room: str) -> None:
    pushed = b'{"model": "digits"}'
    assert await give_up(f"{room}-data-pushed", "data.pushed", pushed, "OSError: no room left") == []


async def test_what_the_monitor_gave_up_has_no_stage_and_is_told() -> None:
    (raised,) = await give_up(
        "monitor-data-rejected", "data.rejected", cloudevents.body(BAD_DATA), "OSError: no room left"
    )
    assert isinstance(raised, AlertRaised)
    assert raised.command == "belt replay EVENTS:7"
    (raised,) = await give_up("monitor-logs-serving-all", "logs.serving.digits", b'{"level": "error"}', "OSError: no")
    assert isinstance(raised, AlertRaised)
    assert raised.command == "belt logs --service monitor"


async def test_every_command_of_an_alert_is_one_that_belt_takes(home: Path) -> None:
    events: list[Event] = [
        REJECTED, REJECTED.model_copy(update={"by": "ada", "reason": "it guesses"}), BAD_DATA,
        DRIFT, DRIFT.model_copy(update={"action": "alert"}),
        *(failed(model="digits", error="E", message="m", attempts=1) for failed in FAILED),
    ]  # fmt: skip
    assert {type(event) for event in events} == set(ALERTING_EVENTS)
    commands = {(await only(notifier(), event)).command for event in events}
    for consumer, subject, body in (
        ("trainer-data-pushed", "data.pushed", b"{"),
        ("monitor-model-deployed", "model.deployed", b"[]"),
        ("monitor-predictions-digits", "predictions.digits", b""),
        ("monitor-data-rejected", "data.rejected", cloudevents.body(BAD_DATA)),
        ("monitor-logs-serving-all", "logs.serving.digits", b"{}"),
        ("someone", "something.else", b"?"),
    ):
        (raised,) = await give_up(consumer, subject, body, "why")
        assert isinstance(raised, AlertRaised)
        commands.add(raised.command)
    for command in commands:
        assert command
        belt, *arguments = shlex.split(command)
        assert belt == "belt"
        environ = {"NATS_URL": "", "BENTOBELT_HOME": str(home)}
        said = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environ)
        # It is understood (2 would be misuse), and then there is no bus here, unless it needs none.
        assert said.exit_code == 0 or (said.exit_code == 1 and "no bus" in said.output), (command, said.output)


def test_urls_are_separated_by_spaces() -> None:
    assert Settings.model_validate({"urls": "json://a  slack://b"}).urls == ("json://a", "slack://b")
