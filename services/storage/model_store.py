"""The BentoML model store that approved models are registered in. Only child processes import this: BentoML is slow.

The folder of a version holds `saved_model.pkl`, `project/` and `bentobelt.json`. BentoML's own save copies into the
final folder and rewrites `latest` in place: a second writer or a kill leaves a store that cannot be listed. Here the
folder is made elsewhere and renamed, under a lock. The model file is copied and never unpickled.
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
    """The store has a model of another run under this tag."""


def save(
    home: Path,
    tag: str,
    model_file: Path,
    project: Path,
    manifest: Manifest,
    labels: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> Path:
    """Store a version under `tag` unless it is there, and return its folder.

    An interrupted attempt may have left another training of the same run under the tag: the same training repeated
    gives other bytes. It is replaced, because the caller stores the model that the registry records.

    Args:
        home: a BENTOML_HOME.
        tag: `<model>:<version>`, exact.
        model_file: joblib dump of the estimator.
        project: folder of the code that the estimator needs.
        manifest: description of the version, for serving.
        labels: strings, for people and `bentoml models list`.
        metadata: plain values; None is left out, because BentoML refuses it.

    Raises:
        AlreadyDifferent: a model of another run has this tag.
    """
    name, number = tag.split(":")
    folder = home / "models" / name / number
    with locked(home / "models.lock"):
        _remove_unfinished(home, folder)
        if folder.is_dir() and _holds(folder, tag, model_file, manifest):
            return folder
        with tempfile.TemporaryDirectory(dir=home, prefix=SAVING) as aside:
            made = Path(aside) / name / number
            _describe(Path(aside), tag, labels, metadata)
            shutil.copyfile(model_file, made / MODEL_FILE)
            shutil.copytree(project, made / PROJECT_FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
            (made / FILE).write_text(manifest.model_dump_json(indent=2))
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.is_dir():
                folder.rename(Path(aside) / "replaced")
            made.rename(folder)
            # The latest version is the one saved last, as in BentoML.
            (Path(aside) / "latest").write_text(number)
            (Path(aside) / "latest").replace(folder.parent / "latest")
    return folder


def _describe(store: Path, tag: str, labels: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
    """Let BentoML write the model's definition into a store of its own."""
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


def _holds(folder: Path, tag: str, model_file: Path, manifest: Manifest) -> bool:
    """Return whether the folder holds this model; false when it holds another training of the same run.

    Raises:
        AlreadyDifferent: it holds a model of another run, or a person's own.
    """
    stored, description = folder / MODEL_FILE, folder / FILE
    if stored.is_file() and sha256_of(stored) == sha256_of(model_file):
        return True
    if description.is_file() and Manifest.model_validate_json(description.read_bytes()).run == manifest.run:
        return False
    raise AlreadyDifferent(f"the model store has a model of another run under {tag}, in {folder}")


def _remove_unfinished(home: Path, folder: Path) -> None:
    """Remove what an interrupted save left: the folders it prepared, and an incomplete copy under this tag.

    The store may be a person's own: everything else in it stays.
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
