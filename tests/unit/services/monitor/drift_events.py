"""A hand-made history of runs: events with envelopes, as the stream would hand them out."""

from datetime import UTC, datetime, timedelta

from contracts.artifact_ref import ArtifactRef
from contracts.cloudevents import Envelope, run_of, version_of
from contracts.events import (
    DataPushed,
    DataRejected,
    DeploymentFailed,
    DriftDetected,
    Event,
    ImagePushed,
    ModelApproved,
    ModelDeployed,
    ModelRejected,
    ModelSuperseded,
    ModelTrained,
    ReviewDecided,
    RollbackRequested,
    TrainingFailed,
    subject_of,
)
from contracts.features import Feature, Probe
from contracts.profiles import ColumnProfile, Profile, Window
from contracts.runtime import Environment
from contracts.verdicts import ConditionResult, PerformanceTarget, Verdict

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
RUN = run_of("test", "push-1", "digits")
VERSION = version_of(7, RUN)

REF = ArtifactRef(uri=f"nats://artifacts/{'a' * 64}", sha256="a" * 64, size=2048, media_type="application/gzip")
FEATURES = (Feature(name="x", type="number"),)
TARGET = Feature(name="y", type="integer")
ENVIRONMENT = Environment(python="3.11.7", lock="b" * 64)
PROFILE = Profile(
    rows=10,
    columns=(ColumnProfile(name="x", edges=(0.5,), counts=(5, 5)),),
    prediction=ColumnProfile(name="y", categories=("0", "1"), counts=(5, 5)),
)
PROMISE = PerformanceTarget(metric="accuracy", value=0.97)
PROBE = Probe(rows=({"x": 1.0},), predictions=(1,))
IMAGE = f"bento+nats://artifacts/{'c' * 64}"


def envelope(subject: str, sequence: int, *, model: str = "digits", run: str = RUN, id: str = "") -> Envelope:
    """An envelope `sequence` seconds after START."""
    return Envelope(
        id=id or f"{subject}-{run}-{sequence}",
        source="test",
        subject=subject,
        time=START + timedelta(seconds=sequence),
        model=model,
        run=run,
        generation=7,
        sequence=sequence,
    )


def history(*events: Event, run: str = RUN, at: int = 1) -> list[tuple[Event, Envelope]]:
    """Events one second apart, all of one run."""
    return [
        (event, envelope(subject_of(event), at + index, model=event.model, run=run))
        for index, event in enumerate(events)
    ]


def verdict(outcome: str = "pass") -> Verdict:
    condition = ConditionResult.model_validate(
        {
            "condition": "accuracy > 0.9",
            "estimate": 0.972,
            "low": 0.951,
            "high": 0.986,
            "rows": 360,
            "outcome": outcome,
            "why": "the interval lies above 0.9" if outcome == "pass" else "the interval spans 0.9",
        }
    )
    return Verdict.model_validate({"outcome": outcome, "confidence": 0.95, "conditions": [condition]})


def pushed(reason: str | None = None) -> DataPushed:
    return DataPushed(model="digits", dataset=REF, project=REF, commit="0123456789abcdef", reason=reason)


def rejected_data() -> DataRejected:
    return DataRejected(model="digits", dataset="x.csv", violations=("column 'y' is missing", "3 rows are too few"))


def trained(version: str = VERSION) -> ModelTrained:
    return ModelTrained(
        model="digits", version=version, task="classification", artifact=REF, dataset=REF, test=REF, project=REF,
        features=FEATURES, target=TARGET, classes=(0, 1), profile=PROFILE, commit="0123456789abcdef",
        metrics={"accuracy": 0.972}, environment=ENVIRONMENT, seed=0, seconds=1.5,
    )  # fmt: skip


def failed_training() -> TrainingFailed:
    message = "Traceback (most recent call last):\n  File pipeline.py\nValueError: no rows"
    return TrainingFailed(model="digits", version=VERSION, error="ProjectCodeFailed", message=message, attempts=1)


def failed_tests() -> TrainingFailed:
    told = "\n".join(f"E   line {number}" for number in range(30))
    message = f"the project's tests fail, so nothing was trained:\n{told}"
    return TrainingFailed(model="digits", version=VERSION, error="ProjectTestsFailed", message=message, attempts=1)


def approved(by: str = "gate", version: str = VERSION) -> ModelApproved:
    return ModelApproved(
        model="digits", version=version, tag=f"digits:{version}", task="classification", artifact=REF, project=REF,
        features=FEATURES, target=TARGET, classes=(0, 1), environment=ENVIRONMENT, profile=PROFILE, probe=PROBE,
        promise=PROMISE, verdict=verdict(), approved_by=by, commit="0123456789abcdef", dataset=REF, trained=1.0,
    )  # fmt: skip


def rejected(by: str = "gate") -> ModelRejected:
    return ModelRejected(model="digits", version=VERSION, artifact=REF, verdict=verdict("unknown"), report=REF, by=by)


def reviewed(decision: str = "approve") -> ReviewDecided:
    return ReviewDecided.model_validate(
        {"model": "digits", "version": VERSION, "decision": decision, "by": "Ada", "reason": "looked at it"}
    )


def image(version: str = VERSION) -> ImagePushed:
    return ImagePushed(
        model="digits", version=version, tag=f"digits:{version}", image=IMAGE, artifact=REF, size=123456,
        environment=ENVIRONMENT, probe=PROBE, profile=PROFILE, promise=PROMISE,
    )  # fmt: skip


def deployed(reason: str = "release", version: str = VERSION) -> ModelDeployed:
    return ModelDeployed.model_validate(
        {
            "model": "digits",
            "version": version,
            "image": IMAGE,
            "target": "local",
            "url": "http://127.0.0.1:8080/digits",
            "profile": PROFILE,
            "promise": PROMISE,
            "reason": reason,
        }
    )


def superseded() -> ModelSuperseded:
    return ModelSuperseded(model="digits", version=VERSION, by="9-00000000")


def failed_deployment() -> DeploymentFailed:
    return DeploymentFailed(model="digits", version=VERSION, error="ProbeDiffers", message="answers differ", attempts=5)


def drifted(action: str = "retrain") -> DriftDetected:
    window = Window(start=1.0, end=2.0, rows=500, labels=500, index=3)
    return DriftDetected.model_validate(
        {
            "model": "digits",
            "version": VERSION,
            "kind": "performance",
            "action": action,
            "window": window,
            "evidence": {"accuracy": 0.6, "promised": 0.97},
            "dataset": REF,
        }
    )


def rollback() -> RollbackRequested:
    return RollbackRequested(model="digits", by="Ada", reason="slow")


def whole_run() -> list[tuple[Event, Envelope]]:
    """A push that went live."""
    return history(pushed(), trained(), approved(), image(), deployed())
