"""One training, from project and data to a fitted model, in child processes of the project's environment."""

import asyncio
import hashlib
import importlib.util
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.artifact_ref import JOBLIB, PARQUET, ArtifactRef
from contracts.events import ModelTrained
from contracts.model_spec import BadSpec, ModelSpec
from contracts.profiles import ColumnProfile, Profile
from contracts.runtime import Environment
from services.host import sha256_of
from services.messaging.worker import log
from services.sandbox import JobFailed, JobKilled, JobTimedOut, Sandbox, diagnostics
from services.storage import ArtifactCorrupt, ArtifactMissing, ArtifactStore
from services.trainer.domain import NO_DATASET, dataset_of, named, read_spec
from services.trainer.errors import BadProject, ProjectTestsFailed, explained
from services.trainer.jobs.data_schema import Rejected, Schema
from services.trainer.settings import Settings

JOBS = "services.trainer.jobs.fit"
PRELOAD = (
    JOBS,
    *("sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline", "sklearn.datasets", "pytest"),
    *("pyarrow.parquet", "pyarrow.dataset", "pyarrow.pandas_compat", "narwhals._pandas_like.dataframe"),
)
"""Modules that each fork server imports once: those of most projects and their tests, and pandas' late imports."""
RETRY_SECONDS = (0.5, 2.0, 8.0)
"""Seconds between attempts to read a remote dataset."""
STEPS = ("read", "check", "tests", "fit", "save")
FINAL_ERRORS = ("ImportError", "ModuleNotFoundError", "ValueError")
"""An unknown protocol, or one whose package is not installed."""


@dataclass(frozen=True)
class OpenedProject:
    """A project that can be read."""

    archive: ArtifactRef
    folder: Path
    spec: ModelSpec
    code: str
    """Digest of model.yaml and the Python files: a project with new data alone keeps it."""


@dataclass(frozen=True)
class TrainingRequest:
    """One training that was asked for. Without a schema, the schema is learned from the data."""

    model: str
    version: str
    commit: str | None
    dataset: str | ArtifactRef | None
    schema: Schema | None


class Training:
    """Trains in child processes; puts model, data and held-out rows into the artifact store."""

    def __init__(
        self, artifacts: ArtifactStore, sandbox: Sandbox, settings: Settings, delays: Sequence[float] = RETRY_SECONDS
    ) -> None:
        self._artifacts, self._sandbox, self._settings, self._delays = artifacts, sandbox, settings, delays

    async def open(self, archive: ArtifactRef, model: str) -> OpenedProject:
        """Unpack the project in an archive.

        Raises:
            BadProject: it has no usable model.yaml, or the model.yaml of another model.
            BadArchive: the archive cannot be unpacked, or would write outside its folder.
        """
        folder = await self._artifacts.fetch_folder(archive)
        try:
            spec = read_spec((folder / "model.yaml").read_text("utf-8"), model)
        except FileNotFoundError:
            raise BadProject("the project has no model.yaml at its top") from None
        except UnicodeDecodeError as error:
            raise BadProject(f"model.yaml is not UTF-8: byte {error.start}") from None
        except BadSpec as error:
            raise BadProject(str(error)) from None
        return OpenedProject(archive, folder, spec, await asyncio.to_thread(digest_of_code, folder))

    async def run(self, request: TrainingRequest, project: OpenedProject) -> tuple[ModelTrained, Schema]:
        """Train, and return the event with the schema that the data fits.

        Raises:
            Rejected: the data cannot be trained on.
            Permanent, ChildKilled: see `errors`.
        """
        location = await self._locate(request, project)
        environment = await self._sandbox.environments.resolve(project.spec.requirements)
        parent = self._settings.home.resolve() / "scratch"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            steps = _Steps(self._sandbox, self._settings, environment, project, Path(scratch), self._delays)
            data = await steps.prepare_and_test(location, named(request.dataset, project.spec), request.schema)
            fitted = await steps.fit(data["features"])
            return await self._trained(request, project, environment, Path(scratch), data, fitted)

    async def _locate(self, request: TrainingRequest, project: OpenedProject) -> str:
        """Return the location of the data for a child process: a path or a URI."""
        if isinstance(request.dataset, ArtifactRef):
            try:
                return str(await self._artifacts.fetch(request.dataset))
            except (ArtifactMissing, ArtifactCorrupt) as error:
                raise Rejected(f"the dataset cannot be read: {error}") from None
        try:
            found = dataset_of(request.dataset, project.spec, project.folder)
        except BadSpec as error:
            raise BadProject(str(error)) from None
        if found is None:
            raise Rejected(NO_DATASET)
        return found

    async def _trained(
        self,
        request: TrainingRequest,
        project: OpenedProject,
        environment: Environment,
        scratch: Path,
        data: Mapping[str, Any],
        fitted: Mapping[str, Any],
    ) -> tuple[ModelTrained, Schema]:
        profile = Profile(
            rows=data["reference_rows"],
            columns=tuple(ColumnProfile.model_validate(column) for column in data["columns"]),
            prediction=ColumnProfile.model_validate(fitted["prediction"]),
        )
        artifact, dataset, test = await asyncio.gather(
            self._artifacts.put(scratch / "model.joblib", JOBLIB),
            self._artifacts.put(scratch / "data.parquet", PARQUET),
            self._artifacts.put(scratch / "test.parquet", PARQUET),
        )
        trained = ModelTrained(
            model=request.model,
            version=request.version,
            task=project.spec.task,
            artifact=artifact,
            dataset=dataset,
            test=test,
            project=project.archive,
            features=data["features"],
            target=data["target"],
            classes=tuple(fitted["classes"]),
            profile=profile,
            commit=request.commit,
            metrics=fitted["metrics"],
            environment=environment,
            seed=project.spec.seed,
            seconds=fitted["seconds"],
            warnings=tuple(data["warnings"]),
        )
        return trained, Schema.model_validate(data["schema"])


class _Steps:
    """The child jobs of one training."""

    def __init__(
        self,
        sandbox: Sandbox,
        settings: Settings,
        environment: Environment,
        project: OpenedProject,
        scratch: Path,
        delays: Sequence[float],
    ) -> None:
        self._sandbox, self._settings, self._environment = sandbox, settings, environment
        self._project, self._delays = project, delays
        spec = project.spec.model_dump(mode="json")
        self._has_tests = (project.folder / "tests").is_dir()
        self._at: dict[str, str] = {}
        self._done: set[str] = set()
        self._common = {"spec": spec, "project": str(project.folder), "scratch": str(scratch)}

    async def prepare_and_test(self, location: str, name: str, schema: Schema | None) -> Mapping[str, Any]:
        """Check the data while the project's tests run; if both fail, the data's error is raised."""
        testing = asyncio.create_task(self._test())
        try:
            data = await self._prepare(location, name, schema)
            await testing
            return data
        finally:
            testing.cancel()
            await asyncio.gather(testing, return_exceptions=True)

    async def fit(self, features: list[Any]) -> Mapping[str, Any]:
        with explained("the training", "TRAINER_SECONDS", self._settings.memory):
            return await self._run("fit", self._settings.seconds, features=features)

    async def _prepare(self, location: str, name: str, schema: Schema | None) -> Mapping[str, Any]:
        known = schema.model_dump() if schema else None
        if "://" in location and not location.startswith("file://"):
            location = await self._download(location, name)
        with explained("reading the data", "TRAINER_READ_SECONDS", self._settings.memory):
            data = await self._run(
                "prepare",
                self._settings.read_seconds,
                location=location,
                name=name,
                schema=known,
                min_rows=self._settings.min_rows,
            )
        if "violations" in data:
            raise Rejected(*data["violations"])
        return data

    async def _download(self, uri: str, name: str) -> str:
        """Return a local copy of a remote dataset. All attempts share the time limit of reading."""
        ends = time.monotonic() + self._settings.read_seconds
        for delay in (*self._delays, None):
            try:
                return str((await self._run("fetch", max(0.0, ends - time.monotonic()), location=uri))["path"])
            except JobTimedOut:
                limit = f"{self._settings.read_seconds:g} s (TRAINER_READ_SECONDS)"
                raise Rejected(f"dataset {name} cannot be read: it did not arrive within {limit}") from None
            except (JobFailed, JobKilled) as error:
                if delay is None or getattr(error, "kind", "") in FINAL_ERRORS:
                    raise Rejected(f"dataset {name} cannot be read: {error}") from None
                log.warning("the dataset will be read again", error=str(error), seconds=delay)
                await asyncio.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    async def _test(self) -> None:
        if not self._has_tests:
            return
        with explained("the project's tests", "TRAINER_TEST_SECONDS", self._settings.memory):
            result = await self._run("tests", self._settings.test_seconds, packages=_packages())
        if not result["passed"]:
            output = result["output"]
            hint = f" ({diagnostics.MISSING})" if "ModuleNotFoundError" in output else ""
            raise ProjectTestsFailed(f"the project's tests fail, so nothing was trained{hint}:\n{output}")

    async def _run(self, job: str, seconds: float, **more: Any) -> Mapping[str, Any]:
        # The packages for s3:// and the like are in the base environment, not in a project's.
        environment = self._sandbox.environments.base if job == "fetch" else self._environment
        answer = await self._sandbox.run(
            environment,
            f"{JOBS}:{job}",
            {**self._common, **more},
            seconds=seconds,
            memory=self._settings.memory,
            progress=lambda step: self._log_progress(job, step),
        )
        if job != "fetch":  # its step is `read`, which goes on
            self._done |= {self._at.pop(job)} if job in self._at else set()
        return answer

    def _log_progress(self, job: str, progress: Mapping[str, Any]) -> None:
        """Log a step with the number of finished steps: jobs run side by side, and this number never falls."""
        before = self._at.get(job, progress["step"])
        self._at[job] = progress["step"]
        if before != progress["step"]:
            self._done.add(before)
        total = len(STEPS) if self._has_tests else len(STEPS) - 1
        log.info("progress", **progress, done=len(self._done), total=total)


def _packages() -> str:
    """The folder that this worker's pytest is installed in."""
    found = importlib.util.find_spec("pytest")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parents[1])


def digest_of_code(project: Path) -> str:
    """Return the sha256 over names and contents of a project's model.yaml and Python files.

    Other files, such as notes or data, do not change the schema that the data must fit.
    """
    digest = hashlib.sha256()
    code = (path for path in project.rglob("*.py") if path.is_file() and "__pycache__" not in path.parts)
    for file in (project / "model.yaml", *sorted(code)):
        digest.update(f"{file.relative_to(project).as_posix()}\n{sha256_of(file)}\n".encode())
    return digest.hexdigest()
