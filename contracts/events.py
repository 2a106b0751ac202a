"""Every event on the bus, each a frozen pydantic model; subjects are in past tense.

The body of a message is the plain JSON of these models. Id, run, generation and cause are in headers, see
`contracts.cloudevents`. `EVENTS` maps a subject to its model.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from contracts.artifact_ref import ArtifactRef
from contracts.features import Feature, Probe
from contracts.profiles import Profile, Window
from contracts.runtime import Environment, Limits
from contracts.values import Frozen, Value
from contracts.verdicts import PerformanceTarget, Verdict

ModelName = Annotated[
    # A BentoML tag begins and ends with a letter or a digit.
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
        description="name of the model: a-z, 0-9 and - between them, at most 40",
    ),
]
Version = Annotated[str, Field(pattern=r"^\d+-[0-9a-f]{8}$", description="<generation>-<first 8 hex of sha256(run)>")]
Task = Literal["classification", "regression"]


class Event(Frozen):
    """An event about one model, published on `subject`."""

    subject: ClassVar[str]
    model: ModelName


class DataPushed(Event):
    """Somebody pushed data or code: a run starts."""

    subject = "data.pushed"
    dataset: str | ArtifactRef | None = Field(
        default=None,
        description="a URI, a path on the worker's machine, or an artifact; default: the project's dataset",
    )
    project: ArtifactRef | None = Field(
        default=None, description="tar.gz of the model project; default: the newest pushed"
    )
    commit: str | None = Field(default=None, description="git commit of the project")
    reason: str | None = Field(default=None, description="reason of the push, for people")


class DataRejected(Event):
    """The data cannot be trained on; each violation says exactly what is wrong."""

    subject = "data.rejected"
    dataset: str = Field(description="the dataset, as the event or the project names it")
    violations: tuple[str, ...] = Field(min_length=1)


class ModelTrained(Event):
    """A candidate exists. The event carries all that its judgement, its image and its monitoring need."""

    subject = "model.trained"
    version: Version
    task: Task
    artifact: ArtifactRef = Field(description="the fitted estimator (joblib)")
    dataset: ArtifactRef = Field(description="snapshot of all rows read, so that the version can be trained again")
    test: ArtifactRef = Field(description="held-out rows, never seen by training (parquet)")
    project: ArtifactRef
    features: tuple[Feature, ...]
    target: Feature
    classes: tuple[Value, ...] = Field(
        default=(), description="labels of a classifier, in the order of its probabilities"
    )
    profile: Profile
    commit: str | None = None
    metrics: dict[str, float] = Field(description="on the held-out rows")
    environment: Environment
    seed: int = Field(description="random seed of the training")
    seconds: float = Field(ge=0, description="time of the training")
    warnings: tuple[str, ...] = Field(default=(), description="remarks of the data check that do not reject the data")


class ModelApproved(Event):
    """A version may go live: the gate or a person approved it."""

    subject = "model.approved"
    version: Version
    tag: str = Field(description="BentoML tag, <model>:<version>")
    task: Task
    artifact: ArtifactRef
    project: ArtifactRef
    features: tuple[Feature, ...]
    target: Feature
    classes: tuple[Value, ...] = ()
    environment: Environment
    profile: Profile
    probe: Probe
    promise: PerformanceTarget
    verdict: Verdict
    approved_by: str = Field(description="gate, or the name of a person")
    reason: str | None = Field(default=None, description="a person's reason")
    commit: str | None = None
    dataset: ArtifactRef
    trained: float = Field(description="unix seconds of the training")


class ModelRejected(Event):
    """A version did not pass the gate. A person may still approve it, with `belt review`."""

    subject = "model.rejected"
    version: Version
    artifact: ArtifactRef
    verdict: Verdict
    report: ArtifactRef | None = Field(default=None, description="Evidently page of the held-out rows")
    by: str = Field(default="gate", description="gate, or the name of the person who rejected it")
    reason: str | None = None


class ReviewDecided(Event):
    """A person decided about a version that did not pass the gate."""

    subject = "review.decided"
    version: Version
    decision: Literal["approve", "reject"]
    by: str = Field(min_length=1, description="name of the person")
    reason: str = Field(min_length=1, description="reason of the decision")


class ImagePushed(Event):
    """The image of an approved version can be fetched by digest."""

    subject = "image.pushed"
    version: Version
    tag: str
    image: str = Field(description="registry/name@sha256:…, or bento+<artifact uri> on the embedded default")
    artifact: ArtifactRef | None = Field(default=None, description="the packed Bento, on the embedded default")
    size: int = Field(ge=0, description="bytes")
    sbom: ArtifactRef | None = Field(
        default=None, description="the Python packages inside a real image (CycloneDX JSON)"
    )
    limits: Limits | None = Field(
        default=None, description="limits of a container, from the project's model.yaml; default: 1 GiB, 1 CPU"
    )
    env: dict[str, str] | None = Field(
        default=None, description="environment variables of the server, from the project's model.yaml"
    )
    environment: Environment
    probe: Probe
    profile: Profile
    promise: PerformanceTarget


class ModelDeployed(Event):
    """A version has answered through the gateway; from now on it gets the traffic of its target."""

    subject = "model.deployed"
    version: Version
    image: str
    target: str = Field(description="name of the target that it runs on")
    url: str = Field(description="URL of the model at the gateway")
    previous: Version | None = Field(default=None, description="kept warm for a rollback")
    profile: Profile
    promise: PerformanceTarget
    reason: Literal["release", "rollback"]


class ModelSuperseded(Event):
    """An older decision arrived after a newer one was live; its version was not rolled out."""

    subject = "model.superseded"
    version: Version
    by: Version = Field(description="the live version that is newer")


class RollbackRequested(Event):
    """A person requests the previous version, or a named one."""

    subject = "rollback.requested"
    to: Version | None = Field(default=None, description="default: the previous version")
    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class DriftDetected(Event):
    """The monitor found drift. With action `retrain` the event starts a run."""

    subject = "drift.detected"
    version: Version = Field(description="the live version that was monitored")
    kind: Literal["performance", "data", "estimated", "quality"]
    action: Literal["retrain", "alert"]
    window: Window
    evidence: dict[str, float] = Field(description="numbers behind the alarm, e.g. accuracy, promised, e_value")
    columns: tuple[str, ...] = Field(default=(), description="columns with the most drift, worst first")
    dataset: ArtifactRef | None = Field(
        default=None, description="base rows plus labelled recent rows, the recent ones marked"
    )
    report: ArtifactRef | None = Field(default=None, description="Evidently page of the window")


class StageFailed(Event):
    """A stage failed for an event; its result does not exist."""

    stage: Literal["training", "evaluation", "build", "deployment"]
    version: Version | None = None
    error: str = Field(description="kind of the error, e.g. ProjectTestsFailed")
    message: str = Field(description="explanation and next step; for a project's own code the end of the traceback")
    attempts: int = Field(ge=1)


class TrainingFailed(StageFailed):
    subject = "training.failed"
    stage: Literal["training"] = "training"


class EvaluationFailed(StageFailed):
    subject = "evaluation.failed"
    stage: Literal["evaluation"] = "evaluation"


class BuildFailed(StageFailed):
    subject = "build.failed"
    stage: Literal["build"] = "build"


class DeploymentFailed(StageFailed):
    subject = "deployment.failed"
    stage: Literal["deployment"] = "deployment"
    target: str | None = Field(default=None, description="target on which the version did not start")


class AlertRaised(Event):
    """A person was notified."""

    subject = "alert.raised"
    severity: Literal["info", "warning", "critical"]
    title: str
    body: str
    about: str = Field(description="id of the event that caused it")
    command: str | None = Field(default=None, description="command that a person can run next")


class Predictions(Event):
    """A batch of answered rows, column by column: all lists have one entry per row."""

    subject = "predictions"
    version: Version
    time: float = Field(description="unix seconds of the batch's last row")
    id: tuple[str, ...]
    columns: dict[str, tuple[Value, ...]] = Field(description="one array per feature")
    prediction: tuple[Value, ...]
    probabilities: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="per row, in the order of the model's classes"
    )
    latency_ms: tuple[float, ...]


class Label(Frozen):
    """The true value for one prediction, known later."""

    id: str = Field(min_length=1, description="prediction id")
    label: Value
    time: float = Field(description="unix seconds of arrival")


class Feedback(Event):
    """Labels that arrived for predictions."""

    subject = "feedback"
    labels: tuple[Label, ...]


EVENTS: dict[str, type[Event]] = {
    event.subject: event
    for event in (
        DataPushed, DataRejected, ModelTrained, ModelApproved, ModelRejected, ReviewDecided, ImagePushed,
        ModelDeployed, ModelSuperseded, RollbackRequested, DriftDetected, TrainingFailed, EvaluationFailed,
        BuildFailed, DeploymentFailed, AlertRaised, Predictions, Feedback,
    )
}  # fmt: skip
"""Subject → model. `predictions` and `feedback` are published with the model's name appended."""


def subject_of(event: Event) -> str:
    """Return the subject that `event` is published on; predictions and feedback have the model's name appended."""
    return f"{event.subject}.{event.model}" if event.subject in ("predictions", "feedback") else event.subject


def event_type(subject: str) -> type[Event]:
    """Return the event class of a subject.

    Raises:
        KeyError: no event of ours has this subject.
    """
    return EVENTS[subject] if subject in EVENTS else EVENTS[subject.split(".", 1)[0]]
