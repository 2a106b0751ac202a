"""Puts a judged model into a BentoML model store; runs in children only, because importing bentoml takes a second.

A folder there holds `saved_model.pkl`, `project/` and `bentobelt.json`. BentoML's own save copies into the final
folder and rewrites `latest` in place, which a second writer or a kill turns into a store that cannot be listed. So the
folder is made aside and renamed, under a lock, and the model file is copied, never unpickled.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml.models
from bentoml._internal.models.model import ModelStore

from contracts.packaged_model import FILE, MODEL_FILE, PROJECT_FOLDER, Manifest
from services.host import locked, sha256_of
from services.messaging import Permanent

MODULE = "bentoml.sklearn"
DEFINITION = "model.yaml"
SAVING = ".saving-"


class AlreadyDifferent(Permanent):
    """The store has another model under this tag; a version never changes."""


def save(
    home: Path,
    tag: str,
    model_file: Path,
    project: Path,
    manifest: Manifest,
    labels: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> Path:
    """Store a version under `tag` unless it is there; returns its folder.

    Args:
        home: a BENTOML_HOME.
        tag: `<model>:<version>`, exact.
        model_file: joblib dump of the estimator.
        project: folder of the code the estimator needs.
        manifest: what serving needs to know.
        labels: strings, for people and `bentoml models list`.
        metadata: plain values; None is left out, for BentoML refuses it.

    Raises:
        AlreadyDifferent: another model has this tag.
    """
    name, number = tag.split(":")
    folder = home / "models" / name / number
    with locked(home / "models.lock"):
        _remove_unfinished(home, folder)
        if folder.is_dir():
            return _same(folder, tag, model_file)
        with tempfile.TemporaryDirectory(dir=home, prefix=SAVING) as aside:
            made = Path(aside) / name / number
            _describe(Path(aside), tag, labels, metadata)
            shutil.copyfile(model_file, made / MODEL_FILE)
            shutil.copytree(project, made / PROJECT_FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
            (made / FILE).write_text(manifest.model_dump_json(indent=2))
            folder.parent.mkdir(parents=True, exist_ok=True)
            made.rename(folder)
            # The newest is the one saved last, as for BentoML.
            (Path(aside) / "latest").write_text(number)
            (Path(aside) / "latest").replace(folder.parent / "latest")
    return folder


def _describe(store: Path, tag: str, labels: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
    """Let BentoML write the model's definition, into a store of its own."""
    with bentoml.models.create(
        tag,
        labels=dict(labels),
        metadata=_without_none(dict(metadata)),
        module=MODULE,
        signatures={"predict": {"batchable": False}},
        context=bentoml.models.ModelContext("sklearn", {"scikit-learn": version("scikit-learn")}),
        _model_store=ModelStore(store),
    ):
        pass


def _same(folder: Path, tag: str, model_file: Path) -> Path:
    there = folder / MODEL_FILE
    if not there.is_file() or sha256_of(there) != sha256_of(model_file):
        raise AlreadyDifferent(f"{tag} is in the model store at {folder} with another model than {model_file.name}")
    return folder


def _remove_unfinished(home: Path, folder: Path) -> None:
    """What a killed save left aside, and half a copy under this very tag.

    The store may be a person's own: whatever else is in it is theirs, whole or not.
    """
    for left in home.glob(f"{SAVING}*"):
        shutil.rmtree(left, ignore_errors=True)
    if folder.is_dir() and not (folder / DEFINITION).is_file():
        shutil.rmtree(folder)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value if item is not None]
    return value
