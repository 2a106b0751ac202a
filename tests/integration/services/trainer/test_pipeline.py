"""Real children: what good and bad projects and data do in them. No bus."""

import asyncio
import functools
import http.server
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from contracts.artifact_ref import PARQUET, TAR_GZ, ArtifactRef
from contracts.events import ModelTrained
from contracts.features import RECENT
from services.sandbox.client import Sandbox
from services.sandbox.diagnostics import ChildKilled, OutOfMemory, TimedOut
from services.sandbox.environments import Environments
from services.storage.archives import BadArchive, pack_folder
from services.trainer.errors import NoEstimator, ProjectCodeFailed, ProjectTestsFailed
from services.trainer.jobs.data_schema import Rejected, Schema
from services.trainer.pipeline import JOBS, Training, TrainingRequest
from services.trainer.settings import Settings
from tests.fakes import MemoryArtifacts

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXAMPLES = Path(__file__).parents[4] / "examples"
ROWS = 200
YAML = "name: m\ntarget: label\nestimator: pipeline:build\n"
GOOD = "from sklearn.tree import DecisionTreeClassifier as build\n"


def table(rows: int = ROWS) -> pd.DataFrame:
    random = np.random.default_rng(1)
    size = random.normal(size=rows)
    return pd.DataFrame({
        "size": np.where(random.random(rows) < 0.1, np.nan, size),
        "count": random.integers(0, 9, rows),
        "wet": random.random(rows) < 0.5,
        "colour": pd.Series(np.where(random.random(rows) < 0.1, "", random.choice(["red", "blue"], rows))).map(
            {"red": "red", "blue": "blue"}
        ),
        "label": np.where(size + random.normal(scale=0.1, size=rows) > 0, "big", "small"),
    })  # fmt: skip


@dataclass
class Bench:
    """A trainer's training with real sandbox and its artifacts in a folder."""

    artifacts: MemoryArtifacts
    sandbox: Sandbox
    home: Path

    async def train(
        self,
        project: Path | ArtifactRef,
        dataset: str | Path | ArtifactRef | None = None,
        schema: Schema | None = None,
        **settings: Any,
    ) -> tuple[ModelTrained, Schema]:
        training = Training(self.artifacts, self.sandbox, Settings(home=self.home, **settings))
        model = project.name if isinstance(project, Path) and project.parent == EXAMPLES else "m"
        if isinstance(project, Path):
            project = await self.artifacts.put(pack_folder(project), TAR_GZ)
        given = str(dataset) if isinstance(dataset, Path) else dataset
        return await training.run(
            TrainingRequest(model, "1-00000000", None, given, schema), await training.open(project, model)
        )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    home, artifacts = tmp_path_factory.mktemp("trainer"), MemoryArtifacts()
    sandbox = Sandbox(Environments(home / "envs", artifacts), [JOBS])
    yield Bench(artifacts, sandbox, home)
    await sandbox.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    table().to_parquet(tmp_path / "data.parquet", index=False)
    return tmp_path / "data.parquet"


def project(folder: Path, pipeline: str | None = GOOD, yaml: str = YAML, **tests: str) -> Path:
    made = folder / "project"
    (made / "tests").mkdir(parents=True)
    (made / "model.yaml").write_text(yaml)
    if pipeline is not None:
        (made / "pipeline.py").write_text(pipeline)
    for name, content in tests.items():
        (made / "tests" / f"{name}.py").write_text(content)
    return made


async def test_digits_train_well_and_twice_alike(bench: Bench) -> None:
    first, _ = await bench.train(EXAMPLES / "digits")
    again, _ = await bench.train(EXAMPLES / "digits")
    rows = pd.read_parquet(await bench.artifacts.fetch(first.test))[[feature.name for feature in first.features]]
    predictions = [
        joblib.load(await bench.artifacts.fetch(trained.artifact)).predict(rows) for trained in (first, again)
    ]
    assert (predictions[0] == predictions[1]).all()
    assert first.metrics == again.metrics
    assert first.metrics["accuracy"] > 0.9
    assert first.classes == tuple(range(10))
    assert (first.test, first.dataset) == (again.test, again.dataset)
    assert len(first.features) == 64
    assert sum(first.profile.prediction.counts) == len(pd.read_parquet(await bench.artifacts.fetch(first.test)))


async def test_held_out_rows_are_not_among_those_trained_on(bench: Bench) -> None:
    trained, _ = await bench.train(EXAMPLES / "digits")
    rows = pd.read_parquet(await bench.artifacts.fetch(trained.dataset))
    test = pd.read_parquet(await bench.artifacts.fetch(trained.test))
    assert len(rows) == 1797
    assert 0.15 < len(test) / len(rows) < 0.25
    assert trained.profile.rows == len(rows) - len(test)


async def test_a_regression_on_a_csv(bench: Bench) -> None:
    trained, _ = await bench.train(EXAMPLES / "diabetes")
    assert trained.metrics["r2"] > 0.3
    assert (trained.target.type, trained.classes) == ("number", ())
    assert trained.profile.prediction.edges


@pytest.mark.timeout(600)  # a cold cache downloads the whole environment
async def test_extra_requirements_come_in_an_environment_of_their_own(bench: Bench) -> None:
    trained, _ = await bench.train(EXAMPLES / "cancer")
    assert trained.metrics["balanced_accuracy"] > 0.85
    assert trained.classes == ("benign", "malignant")
    assert trained.environment.requirements == ("imbalanced-learn",)
    assert trained.environment.lock != bench.sandbox.environments.base.lock


@pytest.mark.parametrize("task", ["classification", "regression"])
async def test_the_default_estimator_copes_with_gaps_and_text(
    bench: Bench, tmp_path: Path, data: Path, task: str
) -> None:
    target = "label" if task == "classification" else "count"
    made = project(tmp_path, None, f"name: m\ntask: {task}\ntarget: {target}\n")
    trained, _ = await bench.train(made, data)
    again, _ = await bench.train(made, data)
    assert (trained.metrics, trained.profile.prediction) == (again.metrics, again.profile.prediction)
    assert trained.metrics.get("accuracy", 1.0) > 0.8
    nullable = {feature.name: feature.nullable for feature in trained.features}
    assert nullable["size"]
    assert nullable["colour"]
    assert not nullable["wet"]


async def test_columns_come_to_serving_in_order_and_type(bench: Bench, tmp_path: Path, data: Path) -> None:
    made = project(tmp_path, None, "name: m\ntarget: label\n")
    trained, _ = await bench.train(made, data)
    assert [(f.name, f.type) for f in trained.features] == [
        ("size", "number"), ("count", "integer"), ("wet", "boolean"), ("colour", "string"),
    ]  # fmt: skip
    model = joblib.load(await bench.artifacts.fetch(trained.artifact))
    row = pd.DataFrame([[2.0, 3, True, "green"]], columns=[f.name for f in trained.features])
    assert model.predict(row)[0] == "big"
    assert model.predict(row.assign(size=np.nan, colour=None).astype({"colour": "str"}))[0] in trained.classes


async def test_recent_rows_are_marked_split_and_profiled_but_no_feature(bench: Bench, tmp_path: Path) -> None:
    recent = table(500).assign(size=lambda rows: rows["size"] + 100, **{RECENT: True})
    both = pd.concat([table().assign(**{RECENT: False}), recent], ignore_index=True)
    path = tmp_path / "both.parquet"
    both.to_parquet(path, index=False)
    dataset = await bench.artifacts.put(path, PARQUET)
    trained, _ = await bench.train(project(tmp_path, None, "name: m\ntarget: label\n"), dataset)
    test = pd.read_parquet(await bench.artifacts.fetch(trained.test))
    assert RECENT not in [feature.name for feature in trained.features]
    assert 60 < test[RECENT].sum() < 140
    assert 20 < (~test[RECENT]).sum() < 60
    assert trained.profile.rows == 500 - test[RECENT].sum()
    assert trained.profile.columns[0].edges is not None
    assert min(trained.profile.columns[0].edges) > 90


async def test_variables_of_the_project_are_set_for_its_code_and_its_tests(
    bench: Bench, tmp_path: Path, data: Path
) -> None:
    check = "import os\n\nif os.environ['MOOD'] != 'quiet':\n    raise ValueError\n"
    pipeline = check + "from sklearn.dummy import DummyClassifier as build\n"
    made = project(tmp_path, pipeline, YAML + "env: {MOOD: quiet}\n", test_mood=f"{check}\ndef test_it(): pass\n")
    trained, _ = await bench.train(made, data)
    assert trained.metrics


async def test_random_numbers_of_numpy_are_seeded_too(bench: Bench, tmp_path: Path, data: Path) -> None:
    pipeline = (
        "import numpy as np, random\nfrom sklearn.linear_model import LogisticRegression\n"
        "from sklearn.pipeline import make_pipeline\nfrom sklearn.impute import SimpleImputer\n"
        "from sklearn.compose import make_column_transformer\n"
        "def build():\n"
        "    first = make_column_transformer((SimpleImputer(), ['size']))\n"
        "    return make_pipeline(first, LogisticRegression(C=np.random.rand() + random.random()))\n"
    )
    made = project(tmp_path, pipeline)
    trained = [(await bench.train(made, data))[0] for _ in range(2)]
    models = [joblib.load(await bench.artifacts.fetch(one.artifact)) for one in trained]
    assert models[0][-1].C == models[1][-1].C


NO_ESTIMATOR = {
    "def build():\n    pass\n": "returned nothing (None); a scikit-learn estimator is needed",
    "def build():\n    return 'a string'\n": "returned 'a string' (str); a scikit-learn estimator is needed",
    "def build():\n    return []\n": "returned a list; a scikit-learn estimator is needed",
    "from sklearn.svm import SVC\ndef build():\n    return SVC\n": "returned the class SVC itself",
    "from sklearn.svm import SVR\ndef build():\n    return SVR()\n": "a regressor, but model.yaml says task: classif",
    "def make():\n    pass\n": "there is no function 'build' in module 'pipeline'",
}


@pytest.mark.parametrize(("pipeline", "said"), NO_ESTIMATOR.items())
async def test_a_pipeline_that_gives_no_estimator(
    bench: Bench, tmp_path: Path, data: Path, pipeline: str, said: str
) -> None:
    with pytest.raises(NoEstimator) as failed:
        await bench.train(project(tmp_path, pipeline), data)
    assert said in str(failed.value)
    assert "estimator pipeline:build" in str(failed.value)


async def test_a_pipeline_that_is_not_there(bench: Bench, tmp_path: Path, data: Path) -> None:
    with pytest.raises(NoEstimator, match="the project has no module 'pipeline'"):
        await bench.train(project(tmp_path, None), data)


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("def build():\n    raise ValueError('no luck today')\n", "ValueError: no luck today"),
        ("def build(:\n", "SyntaxError"),
        ("import nothing_of_the_kind\n", "No module named 'nothing_of_the_kind' (name its package under requirements"),
        ("import sys\ndef build():\n    sys.exit(3)\n", "SystemExit: 3"),
        ("from sklearn.svm import SVC as build\n", "could not convert string to float"),  # no encoder for the text
    ],
)
async def test_a_pipeline_that_raises(bench: Bench, tmp_path: Path, data: Path, pipeline: str, said: str) -> None:
    with pytest.raises(ProjectCodeFailed) as failed:
        await bench.train(project(tmp_path, pipeline), data)
    assert said in str(failed.value)
    assert "Traceback" in str(failed.value) or "File" in str(failed.value)
    assert "services/" not in str(failed.value)
    assert "importlib" not in str(failed.value)
    assert ('File "pipeline.py", line' in str(failed.value)) == (" SVC " not in pipeline)


async def test_a_pipeline_that_never_ends(bench: Bench, tmp_path: Path, data: Path) -> None:
    with pytest.raises(TimedOut, match=r"the training did not end within 1 s and was stopped \(TRAINER_SECONDS\)"):
        await bench.train(project(tmp_path, "def build():\n    while True: pass\n"), data, seconds=1)


async def test_a_pipeline_that_eats_memory(bench: Bench, tmp_path: Path, data: Path) -> None:
    greedy = "def build():\n    kept = []\n    while True: kept.append(bytearray(10_000_000))\n"
    with pytest.raises(OutOfMemory, match=r"the training wanted more than 500 MiB of memory \(TRAINER_MEMORY\)"):
        await bench.train(project(tmp_path, greedy), data, memory=500 * 1024**2)


async def test_data_that_eats_memory_is_not_called_damaged(bench: Bench, tmp_path: Path) -> None:
    group = pa.table({"size": np.zeros(1_000_000), "label": pa.array(["big"] * 1_000_000)})
    with pq.ParquetWriter(tmp_path / "many.parquet", group.schema) as file:
        for _ in range(40):
            file.write_table(group)
    with pytest.raises(OutOfMemory, match=r"reading the data wanted more than 200 MiB of memory \(TRAINER_MEMORY\)"):
        await bench.train(project(tmp_path), tmp_path / "many.parquet", memory=200 * 1024**2)


@pytest.mark.parametrize(
    ("end", "said"), [("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"), ("os._exit(7)", "exit code 7")]
)
async def test_a_pipeline_that_kills_its_process(bench: Bench, tmp_path: Path, data: Path, end: str, said: str) -> None:
    pipeline = f"import os, signal\ndef build():\n    print('last words', flush=True)\n    {end}\n"
    with pytest.raises(ChildKilled) as failed:
        await bench.train(project(tmp_path, pipeline), data)
    assert f"the process of the training was ended by {said}; its last output:\nlast words" in str(failed.value)
    assert failed.value.attempts == 2


async def test_whatever_a_pipeline_prints_does_no_harm(bench: Bench, tmp_path: Path, data: Path) -> None:
    loud = (
        "import os, sys\nprint('{\"result\": 1}')\nos.write(1, b'\\xff\\x00')\nsys.stdout.close()\n"
        "from sklearn.dummy import DummyClassifier as build\n"
    )
    trained, _ = await bench.train(project(tmp_path, loud), data)
    assert trained.metrics


async def test_what_a_project_writes_beside_itself_is_gone_the_next_time(
    bench: Bench, tmp_path: Path, data: Path
) -> None:
    made = project(tmp_path, "open('left.txt', 'x').close()\nfrom sklearn.dummy import DummyClassifier as build\n")
    for _ in range(2):
        await bench.train(made, data)


async def test_failing_tests_of_the_project(bench: Bench, tmp_path: Path, data: Path) -> None:
    failing = "import pipeline\ndef test_sum():\n    assert 1 + 1 == 3, 'sums are off'\n"
    with pytest.raises(ProjectTestsFailed) as failed:
        await bench.train(project(tmp_path, test_sum=failing), data)
    assert "sums are off" in str(failed.value)
    assert "1 failed" in str(failed.value)


async def test_tests_that_kill_their_process(bench: Bench, tmp_path: Path, data: Path) -> None:
    with pytest.raises(ChildKilled, match="the process of the project's tests was ended by exit code 1"):
        await bench.train(project(tmp_path, test_x="import os\ndef test_x():\n    os._exit(1)\n"), data)


async def test_a_pytest_configuration_above_the_project_is_not_its_own(
    bench: Bench, tmp_path: Path, data: Path
) -> None:
    (bench.home / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    pipeline = "from sklearn.dummy import DummyClassifier as build\n"
    await bench.train(project(tmp_path, pipeline, test_x="def test_x():\n    pass\n"), data)


BAD_DATA = {
    "none.csv": (None, "dataset none.csv does not exist"),
    "empty.csv": (b"", "dataset empty.csv is empty: 0 bytes"),
    "no-target.csv": (b"a,b\n" + b"1,2\n" * 40, "column 'label': the target is missing; the columns are a, b"),
    "all-missing.csv": (b"size,label\n" + b",x\n,y\n" * 20, "column 'size': found no value in any of 40 rows"),
    "few.csv": (b"size,label\n1,x\n2,y\n", "too few rows: 2, at least 30 are needed"),
    "cut.parquet": (b"PAR1" + b"\0" * 100, "dataset cut.parquet is a damaged Parquet file, perhaps cut short"),
}


@pytest.mark.parametrize("name", BAD_DATA)
async def test_data_that_cannot_be_trained_on(bench: Bench, tmp_path: Path, name: str) -> None:
    content, said = BAD_DATA[name]
    made = project(tmp_path, yaml=f"{YAML}dataset: {name}\n")
    if content is not None:
        (made / name).write_bytes(content)
    with pytest.raises(Rejected) as rejected:
        await bench.train(made)
    assert said in str(rejected.value)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """URL of the folder that the test's files are in."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_remote_dataset(bench: Bench, tmp_path: Path, data: Path, served: str) -> None:
    trained, _ = await bench.train(project(tmp_path, None, "name: m\ntarget: label\n"), f"{served}/{data.name}")
    assert trained.metrics["accuracy"] > 0.8


async def test_a_remote_dataset_that_is_not_there_is_tried_again_first(
    bench: Bench, tmp_path: Path, served: str
) -> None:
    with pytest.raises(Rejected) as rejected:
        await bench.train(project(tmp_path), f"{served}/none.csv")
    assert "none.csv cannot be read: FileNotFoundError" in str(rejected.value.violations)


async def test_an_unknown_protocol_says_so(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Rejected) as rejected:
        await bench.train(project(tmp_path), "ftpx://host/x.csv")
    assert "Protocol not known: ftpx" in str(rejected.value.violations)


async def test_text_where_numbers_were(bench: Bench, tmp_path: Path, data: Path) -> None:
    made = project(tmp_path, "from sklearn.dummy import DummyClassifier as build\n")
    _, schema = await bench.train(made, data)
    worse = table().astype({"size": object})
    worse.loc[4, "size"] = "broken"
    worse.to_csv(tmp_path / "worse.csv", index=False)
    with pytest.raises(Rejected, match=r"'size': expected numbers, found text, e\.g\. 'broken' in row 5"):
        await bench.train(made, tmp_path / "worse.csv", schema)
    await bench.train(made, data, schema)


async def test_an_archive_that_leaves_its_folder(bench: Bench, tmp_path: Path) -> None:
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside.txt"))
    with pytest.raises(BadArchive, match="outside"):
        await bench.train(await bench.artifacts.put(raw.getvalue(), TAR_GZ))


async def test_stopping_the_trainer_ends_the_child(bench: Bench, tmp_path: Path, data: Path) -> None:
    mark = tmp_path / "pid"
    endless = f"import os\ndef build():\n    open('{mark}', 'w').write(str(os.getpid()))\n    while True: pass\n"
    task = asyncio.create_task(bench.train(project(tmp_path, endless), data))
    async with asyncio.timeout(30):
        while not (mark.exists() and mark.read_text()):
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task})
        while _alive(int(mark.read_text())):
            await asyncio.sleep(0.05)
    assert task.cancelled()
    assert list((bench.home / "scratch").iterdir()) == []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
