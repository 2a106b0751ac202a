"""The evaluator from event to event, with scoring that gives a chosen outcome."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from contracts.artifact_ref import HTML, ArtifactRef
from contracts.events import EvaluationFailed, ModelApproved, ModelRejected, ModelTrained, ReviewDecided
from contracts.features import Probe
from contracts.verdicts import ConditionResult, PerformanceTarget, Verdict
from services.evaluator.app import create_app
from services.evaluator.jobs.requests import ChampionPredictions, JudgementResult
from services.messaging.settings import BusSettings
from services.messaging.worker import Worker
from services.storage.registry import Live
from tests.evaluations import OTHER, VERSION, event
from tests.fakes import Delivered, MemoryInbox, MemoryRegistry, deliver

Decision = Literal["approve", "reject"]
Outcome = Literal["pass", "fail", "unknown"]
REPORT = ArtifactRef(uri="memory://page", sha256="2" * 64, size=1, media_type=HTML)


class FakeScoring:
    """Judges as `outcome` says and remembers what it registered."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.judgements = 0
        self.registered: list[tuple[ModelApproved, str]] = []

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        yield Path()

    async def predict_champion(
        self, champion: ModelTrained, candidate: ModelTrained, folder: Path
    ) -> ChampionPredictions:
        return ChampionPredictions(version=champion.version)

    async def judge(
        self, candidate: ModelTrained, champion: ChampionPredictions | None, folder: Path
    ) -> JudgementResult:
        self.judgements += 1
        live, why = (champion.version, champion.reason) if champion else (None, "")
        result = ConditionResult(condition="accuracy - champion > 0", rows=9, outcome=self.outcome, why=why)
        return JudgementResult(
            verdict=Verdict(outcome=self.outcome, confidence=0.95, conditions=(result,), champion=live),
            probe=Probe(rows=({"a": None},), predictions=("yes",)),
            promise=PerformanceTarget(metric="accuracy", value=0.9),
            prediction=candidate.profile.prediction.model_copy(update={"counts": (1, 9)}),
        )

    async def register(self, approved: ModelApproved, run: str, metrics: Mapping[str, float]) -> Path:
        self.registered.append((approved, run))
        return Path("folder")

    async def report(
        self, candidate: ModelTrained, champion: ChampionPredictions | None, verdict: Verdict, folder: Path
    ) -> ArtifactRef:
        return REPORT


class Room:
    """An evaluator with its fakes."""

    def __init__(self, outcome: Outcome = "pass") -> None:
        self.scoring, self.registry, self.inbox = FakeScoring(outcome), MemoryRegistry(), MemoryInbox()

    async def gets(self, message: ModelTrained | ReviewDecided, id: str = "e1", **headers: str) -> Delivered:
        worker = Worker("evaluator", BusSettings(), failed=EvaluationFailed, inbox=self.inbox)
        create_app(worker, self.registry, self.scoring, "local")  # type: ignore[arg-type]
        headers = {"ce_correlationid": "run1", "ce_generation": "7", "ce_causationid": "push1"} | headers
        return await deliver(worker, message, ce_id=id, **headers)

    async def goes_live(self, version: str) -> None:
        live = Live(model="flowers", version=version, image="i", url="u", target="local", order=5, run="r", since=0.0)
        self.registry.all_live["flowers", "local"] = live


def review(decision: Decision, version: str = VERSION) -> ReviewDecided:
    return ReviewDecided(model="flowers", version=version, decision=decision, by="Ada", reason="seen it")


async def test_what_passes_is_stored_recorded_and_approved() -> None:
    room = Room("pass")
    (said,) = await room.gets(event())
    assert isinstance(said, ModelApproved)
    assert (said.tag, said.approved_by, said.verdict.outcome) == (f"flowers:{VERSION}", "gate", "pass")
    assert said.profile.prediction.counts == (1, 9)
    assert room.scoring.registered == [(said, "run1")]
    record = await room.registry.candidate("flowers", VERSION)
    assert record is not None
    assert (record.status, record.started_by, record.run, record.generation) == ("approved", "push1", "run1", 7)


@pytest.mark.parametrize("outcome", ["fail", "unknown"])
async def test_what_does_not_pass_waits_for_a_person(outcome: Outcome) -> None:
    room = Room(outcome)
    (said,) = await room.gets(event())
    assert isinstance(said, ModelRejected)
    assert (said.verdict.outcome, said.report, said.by) == (outcome, REPORT, "gate")
    assert room.scoring.registered == []
    record = await room.registry.candidate("flowers", VERSION)
    assert record is not None
    assert record.status == "waiting"


async def test_the_live_version_is_the_champion() -> None:
    room = Room("pass")
    await room.gets(event(OTHER), "e0")
    await room.goes_live(OTHER)
    (said,) = await room.gets(event())
    assert isinstance(said, ModelApproved)
    assert said.verdict.champion == OTHER


async def test_a_live_version_without_a_record_is_a_champion_nobody_can_ask() -> None:
    room = Room("unknown")
    await room.goes_live(OTHER)
    (said,) = await room.gets(event())
    assert isinstance(said, ModelRejected)
    assert "no record of the live version" in said.verdict.conditions[0].why


async def test_a_second_judgement_says_the_same_without_judging() -> None:
    room = Room("pass")
    first = await room.gets(event())
    room.inbox, room.scoring.outcome = MemoryInbox(), "fail"
    assert list(await room.gets(event())) == list(first)
    assert room.scoring.judgements == 1


async def test_a_repeated_training_with_other_bytes_changes_no_verdict_and_no_stored_model() -> None:
    room = Room("pass")
    first = event()
    (approved,) = await room.gets(first)
    room.inbox, room.scoring.outcome = MemoryInbox(), "fail"
    again = first.model_copy(update={"artifact": first.artifact.model_copy(update={"sha256": "f" * 64})})
    assert list(await room.gets(again)) == [approved]
    assert isinstance(approved, ModelApproved)
    assert {stored.artifact.sha256 for stored, _ in room.scoring.registered} == {first.artifact.sha256}


async def test_a_person_approves_with_name_and_reason_and_own_order() -> None:
    room = Room("fail")
    await room.gets(event())
    emitted = await room.gets(review("approve"), "r1", ce_correlationid="other", ce_generation="99")
    (said,) = emitted
    assert isinstance(said, ModelApproved)
    assert (said.approved_by, said.reason, said.verdict.outcome) == ("Ada", "seen it", "fail")
    assert emitted.headers[0]["ce-correlationid"] == "run1"
    assert emitted.headers[0]["ce-generation"] == "1"  # the sequence of the review itself
    assert room.scoring.registered == [(said, "run1")]
    record = await room.registry.candidate("flowers", VERSION)
    assert record is not None
    assert (record.status, record.by, record.reason) == ("approved", "Ada", "seen it")


async def test_a_person_rejects_and_may_think_again() -> None:
    room = Room("unknown")
    await room.gets(event())
    (said,) = await room.gets(review("reject"), "r1")
    assert isinstance(said, ModelRejected)
    assert (said.by, said.reason, said.report) == ("Ada", "seen it", REPORT)
    record = await room.registry.candidate("flowers", VERSION)
    assert record is not None
    assert record.status == "rejected"
    await room.registry.put_candidate(record.model_copy(update={"order": 40}), record)
    (said,) = await room.gets(review("approve"), "r2")
    assert isinstance(said, ModelApproved)


async def test_a_review_recorded_but_not_said_is_said() -> None:
    room = Room("fail")
    await room.gets(event())
    first = await room.gets(review("approve"), "r1")
    room.inbox = MemoryInbox()
    assert list(await room.gets(review("approve"), "r1")) == list(first)
    assert len(room.scoring.registered) == 1


@pytest.mark.parametrize(("decision", "version", "error"), [
    ("approve", "9-ffffffff", "UnknownVersion"),
    ("approve", VERSION, "AlreadyApproved"),
    ("reject", VERSION, "AlreadyApproved"),
])  # fmt: skip
async def test_a_review_that_cannot_be_followed_says_why(decision: Decision, version: str, error: str) -> None:
    room = Room("pass")
    await room.gets(event())
    (said,) = await room.gets(review(decision, version), "r1")
    assert isinstance(said, EvaluationFailed)
    assert (said.error, said.version, said.attempts) == (error, version, 1)
    assert version in said.message
    assert len(room.scoring.registered) == 1
