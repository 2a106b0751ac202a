"""Traffic for the tests of the monitor: a profile, a target, predictions and labels, all from a seed."""

from typing import Any

import numpy as np
import pyarrow as pa

from contracts.artifact_ref import ArtifactRef
from contracts.events import Feedback, Label, ModelApproved, ModelDeployed, ModelTrained, Predictions
from contracts.features import RECENT, Feature, Probe
from contracts.profiles import ColumnProfile, Profile
from contracts.runtime import Environment
from contracts.verdicts import PerformanceTarget, Verdict
from services.monitor.detection.rules import Rules
from services.monitor.domain import ModelState
from services.monitor.ingest.payloads import FeedbackLabel, PredictionBatch
from services.monitor.state.model_traffic import TrafficMessage
from services.storage.registry import Candidate, Live

VERSION = "1-0123abcd"
CLASSES = 10
EDGES = tuple(np.linspace(-1.2, 1.2, 9).tolist())


def profile(columns: int = 3, rows: int = 2000) -> Profile:
    """Standard normal features, ten equally frequent classes."""
    rng = np.random.default_rng(12345)
    return Profile(
        rows=rows,
        columns=tuple(_numeric(f"x{i}", rng.normal(size=rows)) for i in range(columns)),
        prediction=ColumnProfile(
            name="digit",
            categories=tuple(str(c) for c in range(CLASSES)),
            counts=tuple(np.bincount(rng.integers(0, CLASSES, rows), minlength=CLASSES).tolist()),
        ),
    )


def _numeric(name: str, values: np.ndarray) -> ColumnProfile:
    counts = np.bincount(np.searchsorted(EDGES, values), minlength=len(EDGES) + 1)
    return ColumnProfile(name=name, edges=EDGES, counts=tuple(counts.tolist()))


def target(value: float = 0.95, window: int = 500, **more: float) -> PerformanceTarget:
    return PerformanceTarget(metric="accuracy", value=value, window=window, **more)


def live_model(value: float = 0.95, rules: Rules | None = None, window: int = 500, columns: int = 3) -> ModelState:
    """A model whose version 1 is live."""
    model = ModelState("digits", rules or Rules())
    model.version_deployed(VERSION, "local", profile(columns), target(value, window), now=0.0)
    return model


class Stream:
    """Messages in stream order; `accuracy` of the predictions and `shift` of the features can be changed."""

    def __init__(self, seed: int, columns: int = 3, version: str = VERSION) -> None:
        self.rng, self.columns, self.version = np.random.default_rng(seed), columns, version
        self.sequence, self.rows = 0, 0

    def batch(self, rows: int, accuracy: float, shift: float = 0.0) -> tuple[TrafficMessage, TrafficMessage]:
        """A message of predictions and one of all their labels."""
        truth = self.rng.integers(0, CLASSES, rows)
        right = self.rng.random(rows) < accuracy
        predicted = np.where(right, truth, (truth + self.rng.integers(1, CLASSES, rows)) % CLASSES)
        ids = [f"digits.{self.version}.{self.rows + i}" for i in range(rows)]
        values = {f"x{i}": (self.rng.normal(size=rows) + shift).tolist() for i in range(self.columns)}
        self.rows += rows
        time = float(self.rows)
        predicted_batch = PredictionBatch(self.version, time, ids, values, predicted.tolist())
        labels_message = [
            FeedbackLabel(id, int(label), time, index) for index, (id, label) in enumerate(zip(ids, truth, strict=True))
        ]
        return TrafficMessage(self._next(), predicted_batch), TrafficMessage(self._next(), labels_message)

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence


def messages(stream: Stream, rows: int, accuracy: float, shift: float = 0.0) -> tuple[Predictions, Feedback]:
    """The same traffic as events."""
    predictions_message, labels_message = stream.batch(rows, accuracy, shift)
    assert isinstance(predictions_message.content, PredictionBatch)
    assert isinstance(labels_message.content, list)
    predictions = Predictions(
        model="digits",
        version=predictions_message.content.version,
        time=predictions_message.content.time,
        id=tuple(predictions_message.content.ids),
        columns={name: tuple(values) for name, values in predictions_message.content.columns.items()},
        prediction=tuple(predictions_message.content.predictions),
        latency_ms=(1.0,) * rows,
    )
    labels = tuple(Label(id=label.id, label=label.label, time=label.time) for label in labels_message.content)
    return predictions, Feedback(model="digits", labels=labels)


def candidate(dataset: ArtifactRef, window: int = 500) -> Candidate:
    """The registry's record of version 1, trained on `dataset`."""
    features = tuple(Feature(name=f"x{i}", type="number") for i in range(3))
    common: dict[str, Any] = {
        "model": "digits", "version": VERSION, "task": "classification", "artifact": dataset, "project": dataset,
        "dataset": dataset, "features": features, "target": Feature(name="digit", type="integer"),
        "environment": Environment(python="3.11.7", lock="0" * 64), "profile": profile(),
    }  # fmt: skip
    trained = ModelTrained(**common, test=dataset, metrics={}, seed=0, seconds=1.0)
    verdict = Verdict(outcome="pass", confidence=0.95, conditions=())
    approved = ModelApproved(
        **common, tag=f"digits:{VERSION}", probe=Probe(rows=(), predictions=()), promise=target(window=window),
        verdict=verdict, approved_by="gate", trained=0.0,
    )  # fmt: skip
    return Candidate(
        model="digits", version=VERSION, run="r", generation=1, trained=trained, status="approved", approved=approved
    )


def live() -> Live:
    """Version 1 gets the traffic."""
    return Live(model="digits", version=VERSION, image="i", url="u", target="local", order=1, run="r", since=0.0)


def deployed(version: str = VERSION, window: int = 500) -> ModelDeployed:
    return ModelDeployed(
        model="digits", version=version, image="i", target="local", url="u", profile=profile(),
        promise=target(window=window), reason="release",
    )  # fmt: skip


def base_rows(rows: int = 300) -> pa.Table:
    """Return the training rows of version 1; the label is 8 bits wide, one row was recent before."""
    rng = np.random.default_rng(7)
    columns = {f"x{i}": rng.normal(size=rows) for i in range(3)}
    label = pa.array(rng.integers(0, CLASSES, rows), type=pa.int8())
    return pa.table({**columns, "digit": label, RECENT: pa.array([True] + [False] * (rows - 1))})
