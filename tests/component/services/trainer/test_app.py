"""Events in, events out; the children are played by a table of answers."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import fsspec
import pytest
import structlog

from contracts.artifact_ref import PARQUET, TAR_GZ, ArtifactRef
from contracts.events import DataPushed, DataRejected, DriftDetected, ModelTrained, TrainingFailed
from contracts.features import RECENT, Feature
from contracts.profiles import ColumnProfile, Profile, Window
from contracts.runtime import Environment
from services.messaging.worker import Worker
from services.sandbox.client import JobFailed, JobKilled, JobTimedOut
from services.storage.archives import pack_folder
from services.storage.registry import Candidate, Live
from services.trainer.app import create_app
from services.trainer.settings import Settings
from tests.fakes import Delivered, MemoryArtifacts, MemoryInbox, MemoryRegistry, deliver

BASE = Environment(python="3.11.7", lock="e" * 64)
FEATURE = {"name": "x", "type": "number", "nullable": False}
TARGET = {"name": "y", "type": "integer", "nullable": False}
COUNTS = {"name": "x", "edges": [1.0], "counts": [10, 20]}
PREPARED = {
    "schema": {"columns": [{**FEATURE, "missing": 0.0, "categories": None}], "target": TARGET},
    "features": [FEATURE],
    "target": TARGET,
    "columns": [COUNTS],
    "reference_rows": 30,
    "rows": 40,
    "held_out": 10,
    "warnings": ["2 rows repeat another one, first row 9"],
}
FITTED = {"metrics": {"accuracy": 0.9}, "classes": [0, 1], "prediction": {**COUNTS, "name": "y"}, "seconds": 0.5}


class Children:
    """Answers each job as told (a list: one after the other), and writes the files that a real child would."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "prepare": PREPARED,
            "tests": {"passed": True, "output": "1 passed"},
            "fit": FITTED,
        }
        self.asked: dict[str, Mapping[str, Any]] = {}
        self.environment: Environment | None = None
        self.noise = b""
        """Bytes in which the files of one training differ from those of another."""
        self.environments_of: dict[str, Environment] = {}
        self.steps: dict[str, list[str]] = {
            "prepare": ["read", "check"],
            "tests": ["tests"],
            "fit": ["fit", "fit", "save"],
        }
        self.environments = SimpleNamespace(base=BASE, resolve=self._resolve)

    async def _resolve(self, requirements: tuple[str, ...]) -> Environment:
        return BASE.model_copy(update={"requirements": requirements})

    async def run(
        self, environment: Environment, job: str, argument: Mapping[str, Any], *, progress: Any, **_: Any
    ) -> Mapping[str, Any]:
        step = job.rsplit(":", 1)[1]
        self.asked[step], self.environment = argument, environment
        self.environments_of[step] = environment
        for name in self.steps.get(step, ["read"]):
            progress({"step": name})
            await asyncio.sleep(0)
        answer = self.answers[step]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        for name in ("data.parquet", "test.parquet", "model.joblib"):
            (Path(argument["scratch"]) / name).write_bytes(name.encode() + self.noise)
        found: Mapping[str, Any] = answer
        return found


class Room:
    """A trainer with everything around it in memory."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.worker = Worker("trainer", self.settings, failed=TrainingFailed, inbox=MemoryInbox())
        self.artifacts, self.registry, self.children = MemoryArtifacts(), MemoryRegistry(), Children()
        create_app(self.worker, self.artifacts, self.registry, self.children, self.settings, delays=(0.0, 0.0))  # type: ignore[arg-type]
        self._projects = home / "projects"

    async def project(self, text: str = "name: m\ntarget: y\ndataset: data.csv\n", **files: str) -> ArtifactRef:
        folder = self._projects / str(len(list(self._projects.glob("*"))))
        for name, content in {"model.yaml": text, **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        return await self.artifacts.put(pack_folder(folder), TAR_GZ)

    async def push(self, **event: Any) -> Delivered:
        # Each event has an identity of its own, as it would on the bus.
        event = {"model": "m", "project": await self.project(), **event}
        self.pushed = getattr(self, "pushed", 0) + 1
        return await deliver(self.worker, DataPushed(**event), ce_id=f"push-{self.pushed}")


@pytest.fixture
def room(home: Path) -> Room:
    return Room(home)


async def test_a_training_repeated_after_a_kill_is_the_same_version_whatever_its_bytes(room: Room, home: Path) -> None:
    first = await room.push()
    restarted = Room(home)  # killed after the upload, before the record: its inbox knows nothing of the first
    restarted.children.noise = b" and other bytes"
    again = await restarted.push()
    (one,), (other,) = first, again
    assert isinstance(one, ModelTrained)
    assert isinstance(other, ModelTrained)
    assert one.version == other.version
    assert one.artifact.sha256 != other.artifact.sha256
    assert first.headers[0]["ce-id"] == again.headers[0]["ce-id"]  # the bus and every inbox take them for one event


async def test_a_push_trains_the_project_on_its_dataset(room: Room) -> None:
    (trained,) = await room.push(commit="abc")
    assert isinstance(trained, ModelTrained)
    assert (trained.commit, trained.seed, trained.metrics, trained.classes) == ("abc", 0, {"accuracy": 0.9}, (0, 1))
    assert trained.environment == BASE
    assert trained.warnings == ("2 rows repeat another one, first row 9",)
    assert (trained.profile.rows, trained.profile.columns[0].counts) == (30, (10, 20))
    assert (await room.artifacts.fetch(trained.artifact)).read_bytes() == b"model.joblib"
    assert (await room.artifacts.fetch(trained.test)).read_bytes() == b"test.parquet"
    assert room.children.asked["prepare"]["location"].endswith("/data.csv")
    assert room.children.asked["prepare"]["name"] == "data.csv"
    assert "tests" not in room.children.asked


async def test_nothing_is_left_in_the_scratch_folder(room: Room) -> None:
    await room.push()
    assert list((room.settings.home / "scratch").iterdir()) == []


async def test_data_alone_uses_the_newest_project_and_its_schema(room: Room) -> None:
    await room.push(commit="abc")
    (trained,) = await room.push(project=None, dataset="/new/data.parquet")
    assert isinstance(trained, ModelTrained)
    assert trained.commit == "abc"
    assert room.children.asked["prepare"]["location"] == "/new/data.parquet"
    assert room.children.asked["prepare"]["schema"]["columns"][0]["name"] == "x"


async def test_a_changed_project_learns_the_schema_anew(room: Room) -> None:
    await room.push()
    await room.push(project=await room.project(**{"pipeline.py": "changed = True"}))
    assert room.children.asked["prepare"]["schema"] is None


async def test_new_rows_inside_the_project_are_held_to_the_schema(room: Room) -> None:
    await room.push()
    await room.push(project=await room.project(**{"data.csv": "x,y\nabc,1\n"}))
    assert room.children.asked["prepare"]["schema"]["columns"][0]["name"] == "x"


def schema_asked(room: Room) -> Any:
    """Return the schema that the last `prepare` was given."""
    return room.children.asked["prepare"]["schema"]


async def test_a_project_that_failed_meanwhile_does_not_make_the_schema_forgotten(room: Room) -> None:
    await room.push()
    room.children.answers["fit"] = JobFailed("ValueError", "no luck", "", "")
    await room.push(project=await room.project(**{"pipeline.py": "broken = True"}))
    assert schema_asked(room) is None
    await room.push()
    assert schema_asked(room)["columns"][0]["name"] == "x"


async def test_extra_requirements_make_the_environment(room: Room) -> None:
    text = "name: m\ntarget: y\ndataset: d.csv\nrequirements: [imbalanced-learn]\n"
    (trained,) = await room.push(project=await room.project(text))
    assert isinstance(trained, ModelTrained)
    assert trained.environment.requirements == ("imbalanced-learn",)
    assert room.children.environment == trained.environment


async def test_a_model_nobody_knows(room: Room) -> None:
    (rejected,) = await room.push(project=None, dataset="/x.csv")
    assert isinstance(rejected, DataRejected)
    assert rejected.dataset == "/x.csv"
    assert "nobody has pushed a project for model 'm'" in rejected.violations[0]
    assert "belt push" in rejected.violations[0]


async def test_unfit_data_is_rejected_with_its_violations(room: Room) -> None:
    room.children.answers["prepare"] = {"violations": ["column 'x': expected numbers, found text, e.g. 'a' in row 3"]}
    (rejected,) = await room.push()
    assert isinstance(rejected, DataRejected)
    assert rejected.violations == ("column 'x': expected numbers, found text, e.g. 'a' in row 3",)
    assert (await room.registry.project("m")) is not None


async def test_a_dataset_that_is_gone(room: Room) -> None:
    gone = ArtifactRef(uri="nats://artifacts/gone", sha256="0" * 64, size=1, media_type=PARQUET)
    (rejected,) = await room.push(dataset=gone)
    assert isinstance(rejected, DataRejected)
    assert "nats://artifacts/gone is not in the store" in rejected.violations[0]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (JobFailed("ConnectionError", "reset by peer", "", ""), "reset by peer"),
        (JobKilled(-9, ""), "signal 9"),
        (JobTimedOut(5), "it did not arrive within 900 s (TRAINER_READ_SECONDS)"),
    ],
)
async def test_a_remote_dataset_that_does_not_come(room: Room, outcome: Exception, said: str) -> None:
    room.children.answers["fetch"] = outcome
    (rejected,) = await room.push(dataset="s3://bucket/rows.csv")
    assert isinstance(rejected, DataRejected)
    assert rejected.dataset == "s3://bucket/rows.csv"
    (violation,) = rejected.violations
    assert violation.startswith("dataset s3://bucket/rows.csv cannot be read: ")
    assert said in violation


async def test_a_fetch_that_is_killed_once_is_tried_again(room: Room) -> None:
    room.children.answers["fetch"] = [JobKilled(-9, ""), {"path": "/copy.csv"}]
    (trained,) = await room.push(dataset="s3://bucket/rows.csv")
    assert isinstance(trained, ModelTrained)
    assert room.children.asked["prepare"]["location"] == "/copy.csv"


async def test_a_fetch_has_the_workers_own_packages(room: Room) -> None:
    room.children.answers["fetch"] = {"path": "/copy.csv"}
    text = "name: m\ntarget: y\nrequirements: [imbalanced-learn]\n"
    await room.push(project=await room.project(text), dataset="s3://bucket/rows.csv")
    assert room.children.environments_of["fetch"] == BASE
    assert room.children.environments_of["prepare"] != BASE


@pytest.mark.parametrize("protocol", ["s3", "gs", "http", "file"])
def test_datasets_may_come_from(protocol: str) -> None:
    assert fsspec.get_filesystem_class(protocol)


async def test_progress_counts_the_steps_that_are_over(room: Room) -> None:
    with structlog.testing.capture_logs() as lines:
        await room.push(project=await room.project(**{"tests/test_x.py": ""}))
    said = [(line["step"], line["done"], line["total"]) for line in lines if line["event"] == "progress"]
    assert [done for _, done, _ in said] == sorted(done for _, done, _ in said)
    assert (said[0], said[-1]) == (("read", 0, 5), ("save", 4, 5))


async def test_no_dataset_at_all(room: Room) -> None:
    (rejected,) = await room.push(project=await room.project("name: m\ntarget: y\n"))
    assert isinstance(rejected, DataRejected)
    assert "neither the event nor model.yaml names a dataset" in rejected.violations[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: m\ntarget: y\ncolour: red\n", "model.yaml line 3: unknown key 'colour'"),
        (
            "name: m\ntarget: y\ngate:\n  conditions:\n    - accurracy > 0.9\n",
            "model.yaml line 5: gate condition 'accurracy > 0.9': no metric 'accurracy' for classification",
        ),
        ("name: other\ntarget: y\n", "model.yaml says name: other, but the event is about model 'm'"),
        ("name: m\ntarget: y\ndataset: ../../secret.csv\n", "dataset '../../secret.csv' leads out of the project"),
        ("", "model.yaml is empty"),
    ],
)
async def test_a_model_yaml_that_cannot_be_used(room: Room, text: str, said: str) -> None:
    (failed,) = await room.push(project=await room.project(text))
    assert isinstance(failed, TrainingFailed)
    assert (failed.error, failed.attempts) == ("BadProject", 1)
    assert said in failed.message
    (trained,) = await room.push()
    assert isinstance(trained, ModelTrained)


async def test_a_project_without_model_yaml_or_no_archive(room: Room) -> None:
    (failed,) = await room.push(project=await room.artifacts.put(pack_folder(room.settings.home), TAR_GZ))
    assert isinstance(failed, TrainingFailed)
    assert failed.message == "the project has no model.yaml at its top"
    (failed,) = await room.push(project=await room.artifacts.put(b"no tar", TAR_GZ))
    assert isinstance(failed, TrainingFailed)
    assert "the archive cannot be unpacked" in failed.message


async def test_a_bad_project_does_not_become_the_newest(room: Room) -> None:
    await room.push()
    await room.push(project=await room.project("name: [\n"))
    (trained,) = await room.push(project=None)
    assert isinstance(trained, ModelTrained)


async def test_failing_tests_of_the_project_train_nothing(room: Room) -> None:
    room.children.answers["tests"] = {"passed": False, "output": "E  assert 1 == 2\n1 failed"}
    (failed,) = await room.push(project=await room.project(**{"tests/test_x.py": ""}))
    assert isinstance(failed, TrainingFailed)
    assert failed.error == "ProjectTestsFailed"
    assert failed.message.endswith("E  assert 1 == 2\n1 failed")
    assert "fit" not in room.children.asked


@pytest.mark.parametrize(
    ("outcome", "error", "said"),
    [
        (JobFailed("ValueError", "no luck", "Traceback…\nValueError: no luck", ""), "ProjectCodeFailed", "no luck"),
        (JobFailed("EstimatorMissing", "estimator a:b returned a str", "", ""), "NoEstimator", "returned a str"),
        (JobFailed("MemoryError", "", "", ""), "OutOfMemory", "wanted more than 4096 MiB of memory (TRAINER_MEMORY)"),
        (JobTimedOut(5), "TimedOut", "the training did not end within 5 s and was stopped (TRAINER_SECONDS)"),
    ],
)
async def test_a_training_that_fails(room: Room, outcome: Exception, error: str, said: str) -> None:
    room.children.answers["fit"] = outcome
    (failed,) = await room.push()
    assert isinstance(failed, TrainingFailed)
    assert (failed.error, failed.attempts) == (error, 1)
    assert said in failed.message


async def test_what_a_child_said_is_told_within_bounds(room: Room) -> None:
    said = "\n".join(["x" * 100_000] * 3) + "\nthe end"
    room.children.answers["fit"] = JobFailed("ValueError", "no luck", said, "")
    (failed,) = await room.push()
    assert isinstance(failed, TrainingFailed)
    assert failed.message.endswith("the end")
    assert len(failed.message) <= 8100


async def test_a_killed_child_is_tried_once_more(room: Room) -> None:
    room.children.answers["fit"] = JobKilled(-9, "")
    project = await room.project()
    event = DataPushed(model="m", project=project)
    assert await deliver(room.worker, event, ce_id="one") == []
    (failed,) = await deliver(room.worker, event, ce_id="one")
    assert isinstance(failed, TrainingFailed)
    assert (failed.error, failed.attempts) == ("ChildKilled", 2)
    assert "the process of the training was ended by signal 9" in failed.message


def drift(dataset: ArtifactRef | None = None, action: Literal["retrain", "alert"] = "retrain") -> DriftDetected:
    window = Window(start=0, end=1, rows=500, labels=500, index=0)
    return DriftDetected(
        model="m", version="1-aaaaaaaa", kind="performance", action=action, window=window, evidence={}, dataset=dataset
    )  # fmt: skip


async def live_version(room: Room) -> ModelTrained:
    """A version trained with an older project than the newest, and live."""
    snapshot = await room.artifacts.put(b"base", PARQUET)
    counts = ColumnProfile.model_validate(COUNTS)
    trained = ModelTrained(
        model="m", version="1-aaaaaaaa", task="classification", artifact=snapshot, dataset=snapshot, test=snapshot,
        project=await room.project("name: m\ntarget: y\nseed: 7\n"), features=(Feature.model_validate(FEATURE),),
        target=Feature.model_validate(TARGET), profile=Profile(rows=1, columns=(counts,), prediction=counts),
        commit="old", metrics={}, environment=BASE, seed=7, seconds=1,
    )  # fmt: skip
    await room.registry.put_candidate(
        Candidate(model="m", version=trained.version, run="r", generation=1, trained=trained, status="approved"), None
    )
    live = Live(model="m", version=trained.version, image="i", url="u", target="local", order=1, run="r", since=0)
    await room.registry.put_live(live, None)
    return trained


async def test_drift_retrains_the_live_versions_project_on_the_recent_rows(room: Room) -> None:
    await room.push()
    await live_version(room)
    recent = await room.artifacts.put(f"x,y,{RECENT}\n".encode(), PARQUET)
    (trained,) = await deliver(room.worker, drift(recent))
    assert isinstance(trained, ModelTrained)
    assert (trained.commit, trained.seed) == ("old", 7)
    assert room.children.asked["prepare"]["location"].endswith(recent.sha256)
    assert [c["name"] for c in room.children.asked["prepare"]["schema"]["columns"]] == ["x"]


async def test_drift_retrains_what_was_watched_whatever_is_live_by_now(room: Room) -> None:
    await live_version(room)
    before = await room.registry.live("m")
    assert before
    await room.registry.put_live(before.model_copy(update={"version": "9-bbbbbbbb"}), before)
    (trained,) = await deliver(room.worker, drift())
    assert isinstance(trained, ModelTrained)
    assert trained.seed == 7


async def test_drift_that_only_alerts_trains_nothing(room: Room) -> None:
    await live_version(room)
    assert await deliver(room.worker, drift(action="alert")) == []
    assert room.children.asked == {}


async def test_drift_of_a_version_nobody_knows(room: Room) -> None:
    (failed,) = await deliver(room.worker, drift())
    assert isinstance(failed, TrainingFailed)
    assert "version 1-aaaaaaaa is not in the registry" in failed.message
