import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an exported Bento with its model in it."""
    folder = tmp_path_factory.mktemp("bento")
    home = tmp_path_factory.mktemp("bentoml-home")
    subprocess.run(
        [sys.executable, "-m", "tests.integration.serving.serving_bento", str(folder)],
        env=os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
    )
    return folder / "bento"
