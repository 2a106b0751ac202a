"""Approved versions of the example projects, with models really fitted, for what comes after the evaluator."""

import importlib.util
import io
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import joblib
import numpy as np
import pandas as pd

from contracts import cloudevents, model_spec
from contracts.artifact_ref import JOBLIB, PARQUET, TAR_GZ, ArtifactRef
from contracts.events import ModelApproved
from contracts.features import Feature, FeatureType, Probe
from contracts.profiles import ColumnProfile, Profile
from contracts.runtime import Environment
from contracts.verdicts import PerformanceTarget, Verdict
from services.storage.artifact_store import ArtifactStore

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def version(number: int) -> str:
    """A version of generation `number`."""
    return cloudevents.version_of(number, f"run{number}")


async def example(
    artifacts: ArtifactStore,
    environment: Environment,
    name: str,
    number: int,
    *,
    more: str = "",
    files: Mapping[str, str] = MappingProxyType({}),
    trees: int | None = None,
) -> ModelApproved:
    """Version `number` of an example, approved by hand.

    Args:
        artifacts: where its parts go.
        environment: that it was trained in.
        name: folder of examples/.
        number: its generation, and the seed of the training.
        more: a line for model.yaml, such as `serve: {memory: 512MiB}`.
        files: more files of the project.
        trees: fewer than the example's, where it has that many.
    """
    folder = EXAMPLES / name
    text = (folder / "model.yaml").read_text() + more
    spec = model_spec.parse(text)
    data = folder / str(spec.dataset)
    frame = pd.read_parquet(data) if data.suffix == ".parquet" else pd.read_csv(data)
    rows, truth = frame.drop(columns=spec.target), frame[spec.target]
    estimator = _estimator(folder)
    settings = {"random_state": number} | ({"n_estimators": trees} if trees else {})
    estimator.set_params(**{key: value for key, value in settings.items() if key in estimator.get_params()})
    estimator.fit(rows, truth)
    written = io.BytesIO()
    joblib.dump(estimator, written)
    asked = rows.iloc[:5]
    return ModelApproved(
        model=name,
        version=version(number),
        tag=f"{name}:{version(number)}",
        task=spec.task,
        artifact=await artifacts.put(written.getvalue(), JOBLIB),
        project=await artifacts.put(_packed(folder, text, files), TAR_GZ),
        features=tuple(Feature(name=str(column), type=_type(rows[column])) for column in rows),
        target=Feature(name=spec.target, type=_type(truth)),
        classes=tuple(getattr(estimator, "classes_", np.array([])).tolist()),
        environment=environment,
        profile=Profile(rows=len(rows), columns=(), prediction=ColumnProfile(name=spec.target, counts=())),
        probe=Probe(
            rows=tuple(
                {str(key): value for key, value in row.items()} for row in asked.astype(object).to_dict("records")
            ),
            predictions=tuple(estimator.predict(asked).tolist()),
        ),
        promise=PerformanceTarget(metric="accuracy", value=0.9),
        verdict=Verdict(outcome="pass", confidence=0.95, conditions=()),
        approved_by="gate",
        commit="c0ffee",
        dataset=ArtifactRef(uri=f"memory://{name}", sha256="d" * 64, size=1, media_type=PARQUET),
        trained=1_700_000_000.0 + number,
    )


def _estimator(folder: Path) -> Any:
    found = importlib.util.spec_from_file_location("pipeline", folder / "pipeline.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    # By the name that the image's own copy has: what is pickled is found again there.
    sys.modules["pipeline"] = module
    found.loader.exec_module(module)
    return module.build()


def _type(column: "pd.Series[Any]") -> FeatureType:
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    return "number" if pd.api.types.is_numeric_dtype(column) else "string"


def _packed(folder: Path, text: str, files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {"model.yaml": text, "pipeline.py": (folder / "pipeline.py").read_text(), **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    return packed.getvalue()
