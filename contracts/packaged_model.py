"""Description of a packed model: `bentobelt.json` beside the model in the BentoML store and in the Bento."""

from pydantic import Field

from contracts.artifact_ref import Sha256
from contracts.events import ModelApproved, ModelName, Task, Version
from contracts.features import Feature
from contracts.values import Frozen, Value
from contracts.verdicts import PerformanceTarget

FILE = "bentobelt.json"
MODEL_FILE = "saved_model.pkl"
"""joblib dump of the estimator, under the name `bentoml.sklearn.load_model` looks for."""
PROJECT_FOLDER = "project"
"""Folder of the project's code, put on sys.path before the model is loaded."""


class Manifest(Frozen):
    """Description of a version for serving: all but the estimator itself."""

    model: ModelName
    version: Version
    run: str
    task: Task
    features: tuple[Feature, ...]
    target: Feature
    classes: tuple[Value, ...] = ()
    promise: PerformanceTarget
    max_rows: int = Field(default=10_000, ge=1, description="largest number of rows in one request")
    trained: float = Field(description="unix seconds")
    dataset: Sha256 = Field(description="digest of the data it was trained on")
    commit: str | None = None

    @classmethod
    def of(cls, event: ModelApproved, run: str, max_rows: int) -> "Manifest":
        """Return the manifest of an approved version of `run`; `max_rows` comes from its project."""
        shared = event.model_dump(include=set(cls.model_fields) - {"dataset"})
        return cls(**shared, dataset=event.dataset.sha256, run=run, max_rows=max_rows)
