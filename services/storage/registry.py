"""Records of approved, live and previous versions per model, and of the newest project of each model.

Key-value records on the bus with one writer each: the evaluator writes candidates, the deployer live and image
records, the trainer projects. A record outlives the event stream, so that any answer can be traced.
"""

import asyncio
from typing import Any, Literal, TypeVar

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from contracts import subjects
from contracts.artifact_ref import ArtifactRef
from contracts.events import ImagePushed, ModelApproved, ModelTrained
from contracts.values import Frozen
from contracts.verdicts import Verdict
from services.messaging import Bus

Record = TypeVar("Record", bound=Frozen)


class Conflict(Exception):
    """Another process wrote the record in between: read it again and decide again."""


class Candidate(Frozen):
    """A version and its whole lineage. Key `<model>.candidate.<version>`, written by the evaluator."""

    model: str
    version: str
    run: str
    generation: int
    started_by: str | None = None
    """Id of the event that started the run."""
    trained_at: float = 0.0
    """Unix seconds of `model.trained`."""
    order: int = 0
    """Order of the last decision: the generation of the run, or the sequence of a person's review."""
    trained: ModelTrained
    verdict: Verdict | None = None
    status: Literal["approved", "waiting", "rejected"]
    approved: ModelApproved | None = None
    report: ArtifactRef | None = None
    by: str = "gate"
    reason: str | None = None


class Live(Frozen):
    """The version that gets the traffic of a target. Key `<model>.live.<target>`, written by the deployer."""

    model: str
    version: str
    image: str
    url: str
    target: str
    order: int
    """Order of the decision: decisions of a lower order are superseded."""
    run: str
    since: float
    previous: str | None = None
    retired: tuple[str, ...] = ()
    """Versions rolled back from: never `previous` again."""


class Deployed(Frozen):
    """The data to start a version again. Key `<model>.image.<target>.<version>`, written by the deployer."""

    image: ImagePushed
    run: str
    generation: int


class Project(Frozen):
    """The newest pushed project of a model. Key `<model>` in bucket `projects`, written by the trainer."""

    model: str
    archive: ArtifactRef
    order: int
    """Generation of the push: an older push never replaces a newer one."""
    commit: str | None = None
    data_schema: dict[str, Any] | None = None
    """The schema of the data, learned at the first training of the code in `learned_with`."""
    learned_with: str | None = None
    """Digest of that code, without its data. A project that fails later changes neither."""


class Registry:
    """Typed access to the registry and projects buckets."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def candidate(self, model: str, version: str) -> Candidate | None:
        """Return the lineage of one version."""
        return await self._get(subjects.REGISTRY, f"{model}.candidate.{version}", Candidate)

    async def candidates(self, model: str) -> list[Candidate]:
        """Return all judged versions of a model, oldest first."""
        found = await self._all(f"{model}.candidate.*", Candidate)
        return sorted(found, key=lambda candidate: (candidate.generation, candidate.version))

    async def put_candidate(self, candidate: Candidate, expected: Candidate | None) -> None:
        """Record a judgement (expected: None) or a later decision about the version.

        Raises:
            Conflict: the record is not the expected one.
        """
        key = f"{candidate.model}.candidate.{candidate.version}"
        await self._replace(subjects.REGISTRY, key, candidate, expected)

    async def models(self) -> list[str]:
        """Return the names of all models that were ever pushed or judged."""
        judged = await self._keys(subjects.REGISTRY, ">")
        pushed = await self._keys(subjects.PROJECTS, ">")
        return sorted({key.split(".", 1)[0] for key in (*judged, *pushed)})

    async def live(self, model: str, target: str = "local") -> Live | None:
        """Return the live version on a target."""
        return await self._get(subjects.REGISTRY, f"{model}.live.{target}", Live)

    async def lives(self) -> list[Live]:
        """Return the live versions on all targets, by model and target."""
        return await self._all("*.live.*", Live)

    async def put_live(self, live: Live, expected: Live | None) -> None:
        """Make `live` the record, provided that the record still is `expected`.

        Raises:
            Conflict: the record is not the expected one.
        """
        await self._replace(subjects.REGISTRY, f"{live.model}.live.{live.target}", live, expected)

    async def image(self, model: str, version: str, target: str = "local") -> Deployed | None:
        """Return the image of a version that a target once ran."""
        return await self._get(subjects.REGISTRY, f"{model}.image.{target}.{version}", Deployed)

    async def images(self, model: str, target: str = "*") -> list[Deployed]:
        """Return the images that targets ran, oldest version first."""
        found = await self._all(f"{model}.image.{target}.*", Deployed)
        return sorted(found, key=lambda deployed: deployed.generation)

    async def put_image(self, deployed: Deployed, target: str = "local") -> None:
        key = f"{deployed.image.model}.image.{target}.{deployed.image.version}"
        await self._put(subjects.REGISTRY, key, deployed)

    async def project(self, model: str) -> Project | None:
        """Return the newest pushed project."""
        return await self._get(subjects.PROJECTS, model, Project)

    async def put_project(self, project: Project, expected: Project | None) -> None:
        """Record the newest project, provided that the record still is `expected`.

        Raises:
            Conflict: the record is not the expected one.
        """
        await self._replace(subjects.PROJECTS, project.model, project, expected)

    async def _get(self, bucket: str, key: str, kind: type[Record]) -> Record | None:
        try:
            entry = await (await self._bus.bucket(bucket)).get(key)
        except KeyNotFoundError:
            return None
        return kind.model_validate_json(entry.value or b"")

    async def _replace(self, bucket: str, key: str, record: Record, expected: Record | None) -> None:
        """Write by revision: a record that another process wrote in between is never lost."""
        kept = await self._bus.bucket(bucket)
        try:
            if expected is None:
                await kept.create(key, record.model_dump_json().encode())
                return
            entry = await kept.get(key)
            if type(record).model_validate_json(entry.value or b"") != expected:
                raise Conflict(f"{key} was changed by another process")
            await kept.update(key, record.model_dump_json().encode(), last=entry.revision)
        except (KeyWrongLastSequenceError, KeyNotFoundError) as error:
            raise Conflict(f"{key} was changed by another process") from error

    async def _put(self, bucket: str, key: str, record: Frozen) -> None:
        await (await self._bus.bucket(bucket)).put(key, record.model_dump_json().encode())

    async def _all(self, pattern: str, kind: type[Record]) -> list[Record]:
        """Every record whose key matches, in the order of their keys."""
        keys = await self._keys(subjects.REGISTRY, pattern)
        found = await asyncio.gather(*(self._get(subjects.REGISTRY, key, kind) for key in keys))
        return [record for record in found if record is not None]

    async def _keys(self, bucket: str, pattern: str) -> list[str]:
        # Watching a bucket would create a consumer each time, and a user that may create consumers could have the bus
        # deliver any message to any subject.
        prefix = f"$KV.{bucket}."
        info = await self._bus.js.stream_info(f"KV_{bucket}", subjects_filter=prefix + pattern)
        return sorted(subject.removeprefix(prefix) for subject in info.state.subjects or {})
