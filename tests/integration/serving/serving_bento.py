"""Builds the Bento that the tests of serving start: the digits, by a forest from a project's own code.

    python -m tests.integration.serving.serving_bento FOLDER

A process of its own, as the builder does it. FOLDER gets `bento/`, with the model in it.
"""

import os
import shutil
import sys
from pathlib import Path

import bentoml
import joblib
from sklearn.datasets import load_digits

from contracts.features import Feature
from contracts.packaged_model import FILE, MODEL_FILE, PROJECT_FOLDER, Manifest
from contracts.verdicts import PerformanceTarget
from services.builder.jobs.build_bento import copy_sources
from serving import SERVICE

VERSION = "7-0a1b2c3d"
PIPELINE = '''
from sklearn.ensemble import ExtraTreesClassifier

class Forest(ExtraTreesClassifier):
    """Raises on a pixel nobody has."""

    def predict(self, X):
        if (X["pixel_0_0"] == 666).any():
            raise ValueError("no digit has such a pixel")
        return super().predict(X)
'''


def main(folder: Path) -> None:
    project = folder / PROJECT_FOLDER
    project.mkdir()
    (project / "pipeline.py").write_text(PIPELINE)
    sys.path.insert(0, str(project))
    from pipeline import Forest  # type: ignore[import-not-found]

    digits = load_digits(as_frame=True)
    with bentoml.models.create(f"digits:{VERSION}") as packed:
        joblib.dump(Forest(20, random_state=0).fit(digits.data, digits.target), packed.path_of(MODEL_FILE))
        shutil.copytree(project, packed.path_of(PROJECT_FOLDER), ignore=shutil.ignore_patterns("__pycache__"))
        Path(packed.path_of(FILE)).write_text(manifest(list(digits.data.columns)).model_dump_json())
    bento = bentoml.build(
        SERVICE,
        name="digits",
        version=VERSION,
        build_ctx=str(copy_sources(folder / "source")),
        args={"model_tag": f"digits:{VERSION}"},
        python={"lock_packages": False},
    )
    bentoml.export_bento(str(bento.tag), str(folder / "bento"), output_format="folder")


def manifest(columns: list[str]) -> Manifest:
    return Manifest(
        model="digits",
        version=VERSION,
        run="f" * 16,
        task="classification",
        features=tuple(Feature(name=name, type="number") for name in columns),
        target=Feature(name="digit", type="integer"),
        classes=tuple(range(10)),
        promise=PerformanceTarget(metric="accuracy", value=0.9),
        max_rows=2000,
        trained=1.0,
        dataset="a" * 64,
    )


if __name__ == "__main__":
    assert "BENTOML_HOME" in os.environ, "a BENTOML_HOME of its own"
    main(Path(sys.argv[1]))
