"""Decisions of the trainer: which project and which data to train; pure."""

from pathlib import Path
from typing import Any

from contracts.artifact_ref import ArtifactRef
from contracts.events import DataPushed
from contracts.model_spec import BadSpec, ModelSpec, parse
from services.storage import Project

UNKNOWN_MODEL = "nobody has pushed a project for model {model!r} yet; run `belt push PROJECT` with its folder first"
NO_DATASET = "neither the event nor model.yaml names a dataset; add `dataset:` to model.yaml or run `belt push --data`"


def newest(pushed: DataPushed, order: int, known: Project | None) -> Project | None:
    """Return the project to train: the one that the event brings, else the newest one known.

    A new project keeps the known schema together with the code that it was learned with, even if pushes in between
    failed.
    """
    if pushed.project is None:
        return known
    return Project(
        model=pushed.model,
        archive=pushed.project,
        order=order,
        commit=pushed.commit,
        data_schema=known.data_schema if known else None,
        learned_with=known.learned_with if known else None,
    )


def schema_for(project: Project, code: str) -> dict[str, Any] | None:
    """Return the schema that the data must fit; None when this code was never trained: the schema is then learned."""
    return project.data_schema if project.learned_with == code else None


def replaces(project: Project, known: Project | None) -> bool:
    """Return whether `project` may be recorded: an older push never replaces a newer one."""
    return known is None or project.order >= known.order


def read_spec(text: str, model: str) -> ModelSpec:
    """Return the spec of a project that was pushed for `model`.

    Raises:
        BadSpec: it cannot be used, or belongs to another model.
    """
    spec = parse(text)
    if spec.name != model:
        raise BadSpec(f"model.yaml says name: {spec.name}, but the event is about model {model!r}")
    return spec


def dataset_of(given: str | None, spec: ModelSpec, project: Path) -> str | None:
    """Return the location of the data: from the event, else from model.yaml; None when neither names one.

    A path in an event is a path on the worker's machine; a relative path in model.yaml is inside the project.

    Raises:
        BadSpec: model.yaml's path leads out of the project.
    """
    if given or not spec.dataset or "://" in spec.dataset or Path(spec.dataset).is_absolute():
        return given or spec.dataset
    inside = (project / spec.dataset).resolve()
    if not inside.is_relative_to(project.resolve()):
        raise BadSpec(f"model.yaml: dataset {spec.dataset!r} leads out of the project")
    return str(inside)


def named(dataset: str | ArtifactRef | None, spec: ModelSpec | None) -> str:
    """Return the name of the dataset for messages: as the event or model.yaml gives it."""
    if isinstance(dataset, ArtifactRef):
        return dataset.uri
    return dataset or (spec.dataset if spec and spec.dataset else "none")
