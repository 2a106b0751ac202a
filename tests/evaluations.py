"""Small trained models as events, for the evaluator's tests."""

import tempfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from contracts.artifact_ref import JOBLIB, PARQUET, TAR_GZ, ArtifactRef
from contracts.events import ModelTrained
from contracts.features import Feature
from contracts.profiles import ColumnProfile, Profile
from contracts.runtime import Environment
from services.storage.archives import pack_folder
from services.storage.artifact_store import ArtifactStore

VERSION, OTHER = "7-0a1b2c3d", "5-00000001"
LOCK = "0" * 64
DIGEST = ArtifactRef(uri="memory://x", sha256="1" * 64, size=1, media_type=PARQUET)
"""An artifact that nobody looks at."""


def event(version: str = VERSION, **change: Any) -> ModelTrained:
    """A trained version whose artifacts do not exist."""
    fields: dict[str, Any] = {
        "model": "flowers", "version": version, "task": "classification", "artifact": DIGEST, "dataset": DIGEST,
        "test": DIGEST, "project": DIGEST, "features": (Feature(name="a", type="number"),),
        "target": Feature(name="kind", type="string"), "classes": ("no", "yes"),
        "profile": Profile(
            rows=10, columns=(), prediction=ColumnProfile(name="kind", categories=("no", "yes"), counts=(5, 5))
        ),
        "metrics": {"accuracy": 0.9}, "environment": Environment(python="3.11.0", lock=LOCK), "seed": 0, "seconds": 0.1,
    }  # fmt: skip
    return ModelTrained(**(fields | change))


def spec(task: str = "classification", *conditions: str) -> str:
    """A model.yaml."""
    lines = "".join(f"    - {condition}\n" for condition in conditions)
    return f"name: flowers\ntask: {task}\ntarget: kind\ngate:\n  conditions:\n{lines}"


def rows(count: int = 300, seed: int = 0, noise: float = 0.1) -> pd.DataFrame:
    """Numbers with gaps, whole numbers, true/false and text, and a label that follows from them."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=count), rng.integers(0, 10, count)
    frame = pd.DataFrame({"a": a, "b": b, "flag": rng.random(count) < 0.5, "kind": "no"})
    frame.loc[a + rng.normal(scale=noise, size=count) > 0, "kind"] = "yes"
    frame.loc[3, "a"] = np.nan
    return frame


FEATURES = (
    Feature(name="a", type="number", nullable=True),
    Feature(name="b", type="integer"),
    Feature(name="flag", type="boolean"),
)


async def classifier(
    artifacts: ArtifactStore,
    environment: Environment,
    *conditions: str,
    version: str = VERSION,
    test: pd.DataFrame | None = None,
    code: str = "",
    model: object = None,
    env: str = "",
    **change: Any,
) -> ModelTrained:
    """A random forest in the store, with its held-out rows and its project."""
    train = rows(seed=1)
    if model is None:
        forest = RandomForestClassifier(n_estimators=20, random_state=0)
        model = make_pipeline(SimpleImputer(), forest).fit(train[["a", "b", "flag"]], train["kind"])
    yaml = spec("classification", *conditions) + env
    fields = {
        "version": version, "environment": environment, "features": FEATURES,
        **await stored(artifacts, model, rows() if test is None else test, yaml, code),
    }  # fmt: skip
    return event(**(fields | change))


async def regressor(artifacts: ArtifactStore, environment: Environment, *conditions: str) -> ModelTrained:
    """A straight line through noisy points."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=200)})
    frame["kind"] = 3 * frame["a"] + rng.normal(size=200)
    model = LinearRegression().fit(frame[["a"]], frame["kind"])
    prediction = ColumnProfile(name="kind", edges=(-1.0, 1.0), counts=(1, 1, 1))
    return event(
        task="regression", environment=environment, classes=(), target=Feature(name="kind", type="number"),
        profile=Profile(rows=10, columns=(), prediction=prediction),
        **await stored(artifacts, model, frame, spec("regression", *conditions), ""),
    )  # fmt: skip


async def stored(artifacts: ArtifactStore, model: object, test: pd.DataFrame, yaml: str, code: str) -> dict[str, Any]:
    """References to a model, its held-out rows and its project."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = folder / "project"
        project.mkdir()
        (project / "model.yaml").write_text(yaml)
        (project / "pipeline.py").write_text(code)
        joblib.dump(model, folder / "model.joblib")
        test.to_parquet(folder / "test.parquet")
        return {
            "artifact": await artifacts.put(folder / "model.joblib", JOBLIB),
            "test": await artifacts.put(folder / "test.parquet", PARQUET),
            "project": await artifacts.put(pack_folder(project), TAR_GZ),
        }
