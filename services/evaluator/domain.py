"""Decisions of the evaluator and the events that follow from them; pure, and without numpy."""

from contracts.cloudevents import Envelope
from contracts.events import ModelApproved, ModelRejected, ModelTrained, ReviewDecided
from contracts.verdicts import Verdict
from services.evaluator.jobs.requests import JudgementResult
from services.messaging import Permanent
from services.storage import Candidate


class UnknownVersion(Permanent):
    """A review of a version that was never judged."""


class AlreadyApproved(Permanent):
    """A review of a version that is approved; it cannot be approved twice or taken back here."""


def incomparable(champion: ModelTrained, candidate: ModelTrained) -> str:
    """Return why the champion cannot predict the candidate's held-out rows; empty when it can."""
    columns = {feature.name for feature in candidate.features}
    absent = [feature.name for feature in champion.features if feature.name not in columns]
    if absent:
        return f"the live version {champion.version} needs {_listed(absent)}, which the new data does not have"
    if (champion.task, champion.target.name) != (candidate.task, candidate.target.name):
        return (
            f"the live version {champion.version} is a {champion.task} of {champion.target.name!r}, "
            f"the new one a {candidate.task} of {candidate.target.name!r}"
        )
    return ""


def approved(
    trained: ModelTrained,
    judged: JudgementResult,
    verdict: Verdict,
    at: float,
    by: str = "gate",
    reason: str | None = None,
) -> ModelApproved:
    """Return the approval of a version trained `at` (unix seconds), by the gate or a person."""
    shared = trained.model_dump(include=set(ModelApproved.model_fields) & set(ModelTrained.model_fields) - {"profile"})
    return ModelApproved(
        **shared,
        tag=f"{trained.model}:{trained.version}",
        profile=trained.profile.model_copy(update={"prediction": judged.prediction}),
        probe=judged.probe,
        promise=judged.promise,
        verdict=verdict,
        approved_by=by,
        reason=reason,
        trained=at,
    )


def gate_outcome(candidate: Candidate) -> ModelApproved | ModelRejected:
    """Return the gate's outcome for a judged version, whatever a person has decided since."""
    assert candidate.verdict is not None
    if candidate.verdict.outcome == "pass" and candidate.approved is not None:
        return candidate.approved
    return ModelRejected(
        model=candidate.model,
        version=candidate.version,
        artifact=candidate.trained.artifact,
        verdict=candidate.verdict,
        report=candidate.report,
    )


def judged_candidate(trained: ModelTrained, about: Envelope, verdict: Verdict) -> Candidate:
    """Return the record of a version that waits for a person, as every version does that the gate did not pass."""
    return Candidate(
        model=trained.model, version=trained.version, run=about.run, generation=about.generation,
        started_by=about.causation, trained_at=about.time.timestamp(), order=about.generation,
        trained=trained, verdict=verdict, status="waiting",
    )  # fmt: skip


def summary(verdict: Verdict) -> dict[str, object]:
    """Return the fields of the verdict's log line."""
    return {
        "outcome": verdict.outcome,
        "champion": verdict.champion,
        "conditions": [f"{result.outcome}: {result.condition} ({result.group})" for result in verdict.conditions],
        "why": [result.why for result in verdict.conditions if result.outcome != "pass"],
    }


def reviewable(event: ReviewDecided, candidate: Candidate | None) -> Candidate:
    """Return the record that a person's decision is about.

    Raises:
        UnknownVersion: there is no record.
        AlreadyApproved: the version is approved already.
    """
    if candidate is None:
        raise UnknownVersion(
            f"{event.model} has no judged version {event.version}; `belt review list` shows what waits for a decision"
        )
    if candidate.status == "approved":
        raise AlreadyApproved(
            f"{event.model} {event.version} was approved by {candidate.by} already; to bring it back, or to take it "
            f"out of service, run `belt rollback {event.model}`"
        )
    return candidate


def review_outcome(event: ReviewDecided, candidate: Candidate) -> ModelApproved | ModelRejected:
    """Return the event that follows from a person's decision, as the record has it."""
    if event.decision == "approve" and candidate.approved is not None:
        return candidate.approved
    assert candidate.verdict is not None
    return ModelRejected(
        model=event.model, version=event.version, artifact=candidate.trained.artifact,
        verdict=candidate.verdict, report=candidate.report, by=event.by, reason=event.reason,
    )  # fmt: skip


def labels(event: ModelApproved, run: str) -> dict[str, str]:
    """Return the labels that `bentoml models list` can be filtered by."""
    known = {
        "model": event.model, "version": event.version, "run": run, "task": event.task,
        "approved_by": event.approved_by, "commit": event.commit, "reason": event.reason,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value}


def metadata(event: ModelApproved, metrics: dict[str, float]) -> dict[str, object]:
    """Return the numbers and digests that explain the version."""
    return {
        "metrics": metrics,
        "promise": event.promise.model_dump(),
        "verdict": event.verdict.model_dump(mode="json"),
        "artifact": event.artifact.sha256,
        "project": event.project.sha256,
        "dataset": event.dataset.sha256,
        "python": event.environment.python,
        "lock": event.environment.lock,
    }


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
