"""Scoring with real child processes and a real BentoML model store."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from contracts.events import ModelTrained
from contracts.features import RECENT
from contracts.packaged_model import Manifest
from services.evaluator import domain
from services.evaluator.jobs.requests import ChampionPredictions, JudgementResult
from services.evaluator.scoring import PRELOAD, ModelFailed, SandboxedScoring
from services.evaluator.settings import Settings
from services.sandbox.client import Sandbox
from services.sandbox.diagnostics import OutOfMemory, TimedOut
from services.sandbox.environments import Environments
from tests import evaluations
from tests.evaluations import OTHER, VERSION, classifier, regressor, rows
from tests.fakes import MemoryArtifacts

LOADED = """
import bentoml, bentoml.sklearn, json, sys
model = bentoml.models.get(sys.argv[1])
estimator = bentoml.sklearn.load_model(model)
print(json.dumps({"tags": [str(m.tag) for m in bentoml.models.list()], "labels": model.info.labels,
                  "latest": str(bentoml.models.get("flowers:latest").tag), "metadata": model.info.metadata,
                  "type": type(estimator).__name__}))
"""


in_module = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def artifacts() -> MemoryArtifacts:
    return MemoryArtifacts()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory, artifacts: MemoryArtifacts) -> AsyncIterator[Sandbox]:
    """One warm template for all tests."""
    sandbox = Sandbox(Environments(tmp_path_factory.mktemp("envs"), artifacts), preload=PRELOAD)
    yield sandbox
    await sandbox.close()


@pytest.fixture
def scoring(home: Path, artifacts: MemoryArtifacts, sandbox: Sandbox) -> SandboxedScoring:
    return SandboxedScoring(sandbox, artifacts, Settings(home=home))


async def judged(
    scoring: SandboxedScoring, candidate: ModelTrained, champion: ModelTrained | None = None
) -> JudgementResult:
    with scoring.scratch() as folder:
        compared = await scoring.predict_champion(champion, candidate, folder) if champion else None
        return await scoring.judge(candidate, compared, folder)


@in_module
async def test_a_good_model_passes_and_promises_what_it_held(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    candidate = await classifier(artifacts, sandbox.environments.base, "accuracy > 0.8", "f1 > 0.8", "log_loss < 1")
    result = await judged(scoring, candidate)
    assert result.verdict.outcome == "pass"
    assert result.verdict.champion is None
    assert result.promise.metric == "accuracy"
    assert result.promise.value == pytest.approx(result.verdict.conditions[0].estimate)
    assert sum(result.prediction.counts) == 300


@in_module
async def test_the_probe_is_what_predict_takes(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    candidate = await classifier(artifacts, sandbox.environments.base, "accuracy > 0.8")
    probe = (await judged(scoring, candidate)).probe
    assert len(probe.rows) == len(probe.predictions) == 5
    assert probe.rows[0]["a"] is None
    frame = rows()
    again = json.loads(probe.model_dump_json())["rows"]
    assert all(row["a"] is None or row["a"] in frame["a"].to_numpy() for row in again)
    assert {tuple(map(type, row.values())) for row in again[1:]} == {(float, int, bool)}


@in_module
async def test_a_champion_is_compared_on_the_same_rows(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    base, conditions = sandbox.environments.base, ("accuracy - champion > -0.05", "f1 - champion > -0.05")
    candidate = await classifier(artifacts, base, *conditions)
    result = await judged(scoring, candidate, await classifier(artifacts, base, version=OTHER))
    assert result.verdict.outcome == "pass"
    assert result.verdict.champion == OTHER
    assert [condition.estimate for condition in result.verdict.conditions] == [0.0, 0.0]


@in_module
async def test_champion_and_candidate_may_name_their_modules_alike(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts, tmp_path: Path
) -> None:
    def always(word: str) -> str:
        return (
            "import numpy as np\nclass Always:\n"
            f"    def predict(self, rows): return np.full(len(rows), {word!r}, dtype=object)\n"
        )

    script = "import joblib, sys; sys.path.insert(0, '.'); import pipeline; joblib.dump(pipeline.Always(), 'model')"
    (tmp_path / "pipeline.py").write_text(always("no"))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    ref = await artifacts.put(tmp_path / "model", "application/x-joblib")
    base, condition = sandbox.environments.base, "accuracy - champion > 0.2"
    test = rows()
    test["kind"] = "yes"
    candidate = await classifier(artifacts, base, condition, test=test, code=always("yes"), artifact=ref)
    champion = await classifier(artifacts, base, version=OTHER, code=always("no"), artifact=ref)
    result = await judged(scoring, candidate, champion)
    assert result.verdict.conditions[0].estimate == 1.0
    assert result.verdict.outcome == "pass"


@in_module
async def test_candidate_and_champion_predict_with_the_variables_of_their_own_project(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts, tmp_path: Path
) -> None:
    code = (
        "import os\nimport numpy as np\nclass Fixed:\n"
        "    def predict(self, rows): return np.full(len(rows), os.environ['ANSWER'], dtype=object)\n"
    )
    (tmp_path / "pipeline.py").write_text(code)
    script = "import joblib, sys; sys.path.insert(0, '.'); import pipeline; joblib.dump(pipeline.Fixed(), 'model')"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    ref = await artifacts.put(tmp_path / "model", "application/x-joblib")
    base, condition = sandbox.environments.base, "accuracy - champion > 0.2"
    test = rows()
    test["kind"] = "yes"
    candidate = await classifier(
        artifacts, base, condition, test=test, code=code, env="env: {ANSWER: 'yes'}\n", artifact=ref
    )
    champion = await classifier(artifacts, base, version=OTHER, code=code, env="env: {ANSWER: 'no'}\n", artifact=ref)
    result = await judged(scoring, candidate, champion)
    assert result.verdict.conditions[0].estimate == 1.0
    assert set(result.probe.predictions) == {"yes"}


@in_module
async def test_recent_rows_are_judged_apart(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    test = rows(400)
    test[RECENT] = np.arange(400) >= 300
    test.loc[test[RECENT], "kind"] = "yes"
    candidate = await classifier(artifacts, sandbox.environments.base, "accuracy > 0.8", test=test)
    result = await judged(scoring, candidate)
    outcomes = {condition.group: condition.outcome for condition in result.verdict.conditions}
    assert outcomes == {"base": "pass", "recent": "fail"}
    assert result.promise.value == result.verdict.conditions[1].estimate
    assert sum(result.prediction.counts) == 100


@in_module
async def test_a_champion_that_cannot_be_asked_makes_it_unknown(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    base = sandbox.environments.base
    candidate = await classifier(artifacts, base, "accuracy - champion > -0.05")
    gone = evaluations.event(OTHER, environment=base)
    broken = await classifier(artifacts, base, version=OTHER, model="no estimator")
    wider = (*candidate.features, candidate.features[0].model_copy(update={"name": "c"}))
    other = await classifier(artifacts, base, version=OTHER, features=wider)
    for champion, word in ((gone, "not in the store"), (broken, "predict"), (other, "'c'")):
        verdict = (await judged(scoring, candidate, champion)).verdict
        assert verdict.outcome == "unknown"
        assert word in verdict.conditions[0].why


@in_module
async def test_a_candidate_that_cannot_predict_is_an_error(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    candidate = await classifier(artifacts, sandbox.environments.base, "accuracy > 0.5", model="no estimator")
    wrong = "predicting the held-out rows failed with AttributeError: 'str' object has no attribute 'predict'"
    with pytest.raises(ModelFailed, match=wrong):
        await judged(scoring, candidate)


@in_module
async def test_what_a_model_may_not_use_is_named_with_its_setting(
    home: Path, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    greedy = "class Greedy:\n    def predict(self, rows): return [0] * 10**9\n"
    slow = "import time\nclass Greedy:\n    def predict(self, rows): time.sleep(60)\n"
    script = "import joblib, sys; sys.path.insert(0, '.'); import pipeline; joblib.dump(pipeline.Greedy(), 'model')"
    (home / "pipeline.py").write_text(greedy)
    subprocess.run([sys.executable, "-c", script], cwd=home, check=True)
    ref = await artifacts.put(home / "model", "application/x-joblib")
    candidate = await classifier(artifacts, sandbox.environments.base, code=greedy, artifact=ref)
    settings = Settings(home=home, job_memory_mb=500, job_seconds=2)
    with pytest.raises(OutOfMemory, match=r"wanted more than 500 MiB of memory \(EVALUATOR_JOB_MEMORY_MB\)"):
        await judged(SandboxedScoring(sandbox, artifacts, settings), candidate)
    candidate = await classifier(artifacts, sandbox.environments.base, code=slow, artifact=ref)
    with pytest.raises(TimedOut, match=r"the held-out rows did not end within 2 s .*\(EVALUATOR_JOB_SECONDS\)"):
        await judged(SandboxedScoring(sandbox, artifacts, settings), candidate)


@in_module
async def test_the_frames_of_the_project_are_shown_by_their_place_in_it(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts, home: Path
) -> None:
    code = "class Broken:\n    def predict(self, rows): return rows['nothing']\n"
    script = "import joblib, sys; sys.path.insert(0, '.'); import pipeline; joblib.dump(pipeline.Broken(), 'model')"
    (home / "pipeline.py").write_text(code)
    subprocess.run([sys.executable, "-c", script], cwd=home, check=True)
    ref = await artifacts.put(home / "model", "application/x-joblib")
    candidate = await classifier(artifacts, sandbox.environments.base, code=code, artifact=ref)
    with pytest.raises(ModelFailed, match="failed with KeyError: 'nothing'") as failed:
        await judged(scoring, candidate)
    assert '  File "pipeline.py", line 2, in predict' in str(failed.value)
    assert "services/evaluator" not in str(failed.value)


@in_module
async def test_a_regression_promises_a_share_within_a_tolerance(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    candidate = await regressor(artifacts, sandbox.environments.base, "r2 > 0.7", "mae < 2", "rmse < 2")
    result = await judged(scoring, candidate)
    assert result.verdict.outcome == "pass"
    assert result.promise.metric == "within"
    assert 0.9 <= result.promise.value <= 0.91
    assert sum(result.prediction.counts) == 200


@in_module
async def test_an_approved_model_is_in_the_store(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts, home: Path
) -> None:
    candidate = await classifier(artifacts, sandbox.environments.base, "accuracy > 0.8", commit="abc")
    result = await judged(scoring, candidate)
    approved = domain.approved(candidate, result, result.verdict, 12.5, "Ada Lovelace", "looks good")
    folder = await scoring.register(approved, "run1", candidate.metrics)
    assert await scoring.register(approved, "run1", candidate.metrics) == folder
    assert (folder / "project" / "model.yaml").exists()
    manifest = Manifest.model_validate_json((folder / "bentobelt.json").read_text())
    assert (manifest.run, manifest.version, manifest.trained) == ("run1", VERSION, 12.5)
    environ = {**os.environ, "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    said = subprocess.run(
        [sys.executable, "-c", LOADED, approved.tag], env=environ, check=True, capture_output=True, text=True
    )
    loaded = json.loads(said.stdout)
    assert loaded["tags"] == [approved.tag]
    assert loaded["latest"] == approved.tag
    assert loaded["type"] == "Pipeline"
    assert loaded["labels"]["approved_by"] == "Ada Lovelace"
    assert loaded["metadata"]["verdict"]["outcome"] == "pass"


MANIFEST = """
from contracts.features import Feature
from contracts.packaged_model import Manifest
from contracts.verdicts import PerformanceTarget
def manifest(version, run):
    return Manifest(model="flowers", version=version, run=run, task="classification", features=(),
                    target=Feature(name="kind", type="string"), promise=PerformanceTarget(metric="accuracy", value=1.0),
                    trained=0.0, dataset="0" * 64)
"""

SAVE = """
import sys
from pathlib import Path
from services.storage import model_store
home, first, last, run = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
for number in range(first, last):
    version = f"{number}-0a1b2c3d"
    made = manifest(version, run)
    model_store.save(home / "bentoml", f"flowers:{version}", home / "model", home / "project", made, {}, {})
"""


def test_several_writers_leave_a_whole_store(home: Path) -> None:
    (home / "model").write_bytes(b"model")
    (home / "project").mkdir()
    code = MANIFEST + SAVE
    half = home / "bentoml" / "models" / "flowers" / "1-0a1b2c3d"
    half.mkdir(parents=True)
    (half / "saved_model.pkl").write_bytes(b"mod")
    killed = home / "bentoml" / ".saving-x"
    killed.mkdir()
    ranges = (("1", "12"), ("8", "20"))
    writers = [subprocess.Popen([sys.executable, "-c", code, str(home), *span, "r"]) for span in ranges]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    environ = {**os.environ, "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    listing = "import bentoml; print(len(bentoml.models.list()), bentoml.models.get('flowers:latest').tag.version)"
    said = subprocess.run([sys.executable, "-c", listing], env=environ, check=True, capture_output=True, text=True)
    count, latest = said.stdout.split()
    assert count == "19"
    assert (home / "bentoml" / "models" / "flowers" / latest).is_dir()
    assert not killed.exists()


OWN = """
import bentoml
with bentoml.models.create("flowers:mine", module="bentoml.sklearn", signatures={},
                           context=bentoml.models.ModelContext("sklearn", {})) as model:
    (open(model.path_of("weights.txt"), "w")).write("a person's")
"""


def test_a_persons_own_models_of_the_name_stay(home: Path) -> None:
    (home / "model").write_bytes(b"model")
    (home / "project").mkdir()
    environ = {**os.environ, "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    subprocess.run([sys.executable, "-c", OWN], env=environ, check=True, capture_output=True)
    unknown = home / "bentoml" / "models" / "flowers" / "half-of-theirs"
    unknown.mkdir()
    subprocess.run([sys.executable, "-c", MANIFEST + SAVE, str(home), "1", "2", "r"], check=True)
    assert (home / "bentoml" / "models" / "flowers" / "mine" / "weights.txt").read_text() == "a person's"
    assert unknown.is_dir()


def test_a_repeated_training_of_the_same_run_replaces_what_an_interrupted_attempt_left(home: Path) -> None:
    (home / "project").mkdir()
    version = home / "bentoml" / "models" / "flowers" / "1-0a1b2c3d"
    for content in (b"one", b"one", b"two"):
        (home / "model").write_bytes(content)
        subprocess.run([sys.executable, "-c", MANIFEST + SAVE, str(home), "1", "2", "r"], check=True)
        assert (version / "saved_model.pkl").read_bytes() == content
    assert sorted(file.name for file in version.parent.iterdir()) == ["1-0a1b2c3d", "latest"]


def test_a_version_of_another_run_is_never_replaced(home: Path) -> None:
    (home / "project").mkdir()
    code = MANIFEST + SAVE
    for content, run, expected in ((b"one", "r", 0), (b"two", "other", 1)):
        (home / "model").write_bytes(content)
        done = subprocess.run([sys.executable, "-c", code, str(home), "1", "2", run], capture_output=True, text=True)
        assert done.returncode == expected
    assert "AlreadyDifferent" in done.stderr


@in_module
async def test_the_report_shows_verdict_and_pictures(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    base = sandbox.environments.base
    candidate = await classifier(artifacts, base, "accuracy > 0.99", "accuracy - champion > 0.1")
    champion = await classifier(artifacts, base, version=OTHER)
    with scoring.scratch() as folder:
        compared = await scoring.predict_champion(champion, candidate, folder)
        result = await scoring.judge(candidate, compared, folder)
        report = await scoring.report(candidate, compared, result.verdict, folder)
    text = (await artifacts.fetch(report)).read_text()
    assert "accuracy &gt; 0.99" in text
    assert f"belt review approve flowers {VERSION}" in text
    assert f"current = this candidate on its held-out rows, reference = the live version {OTHER}" in text
    assert "(label)" not in text
    assert len(text) > 500_000


@in_module
async def test_the_report_does_without_pictures(
    scoring: SandboxedScoring, sandbox: Sandbox, artifacts: MemoryArtifacts
) -> None:
    candidate = await classifier(artifacts, sandbox.environments.base, "accuracy > 0.99")
    with scoring.scratch() as folder:
        result = await scoring.judge(candidate, None, folder)
        (folder / "candidate.parquet").write_bytes(b"no table")
        report = await scoring.report(
            candidate, ChampionPredictions(version=OTHER, reason="gone"), result.verdict, folder
        )
    assert "accuracy &gt; 0.99" in (await artifacts.fetch(report)).read_text()
