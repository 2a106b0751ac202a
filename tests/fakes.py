"""Hand-written stand-ins for what is beyond the process, and a way to hand a worker one event."""

import hashlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from faststream.nats import NatsBroker, TestNatsBroker

from contracts import cloudevents
from contracts.artifact_ref import ArtifactRef
from contracts.events import Event, subject_of
from services.messaging.inbox import Entry
from services.messaging.worker import Worker
from services.storage.archives import unpack_beside
from services.storage.artifact_store import ArtifactMissing
from services.storage.registry import Candidate, Conflict, Deployed, Live, Project

__all__ = ["Delivered", "MemoryArtifacts", "MemoryInbox", "MemoryRegistry", "deliver"]


_folders: list[Path] = []


def remove_folders() -> None:
    """Remove the folders of all MemoryArtifacts, at the end of a session."""
    while _folders:
        shutil.rmtree(_folders.pop())


class MemoryArtifacts:
    """Artifacts in a temporary folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="belt-test-"))
        _folders.append(self.folder)

    async def put(self, data: bytes | Path, media_type: str) -> ArtifactRef:
        content = data if isinstance(data, bytes) else data.read_bytes()  # tiny files
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return ArtifactRef(uri=f"memory://{digest}", sha256=digest, size=len(content), media_type=media_type)

    async def fetch(self, ref: ArtifactRef) -> Path:
        file = self.folder / ref.sha256
        if not file.exists():
            raise ArtifactMissing(f"artifact {ref.uri} is not in the store")
        return file

    async def fetch_folder(self, ref: ArtifactRef) -> Path:
        folder = self.folder / f"{ref.sha256}.d"
        if not folder.is_dir():
            unpack_beside(await self.fetch(ref), folder)
        return folder


class MemoryInbox:
    """The inbox in a dictionary."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        self._generations: dict[str, int] = {}

    async def entry(self, consumer: str, identity: str) -> Entry:
        return self._entries.get((consumer, identity), Entry())

    async def record(self, consumer: str, identity: str, entry: Entry) -> None:
        self._entries[consumer, identity] = entry

    async def first_generation(self, run: str, generation: int) -> int:
        return self._generations.setdefault(run, generation)


class MemoryRegistry:
    """The registry in dictionaries."""

    def __init__(self) -> None:
        self.all_candidates: dict[tuple[str, str], Candidate] = {}
        self.all_live: dict[tuple[str, str], Live] = {}
        self.all_images: dict[tuple[str, str, str], Deployed] = {}
        self.all_projects: dict[str, Project] = {}

    async def candidate(self, model: str, version: str) -> Candidate | None:
        return self.all_candidates.get((model, version))

    async def candidates(self, model: str) -> list[Candidate]:
        return [c for (name, _), c in sorted(self.all_candidates.items()) if name == model]

    async def put_candidate(self, candidate: Candidate, expected: Candidate | None) -> None:
        self._expect(self.all_candidates.get((candidate.model, candidate.version)), expected)
        self.all_candidates[candidate.model, candidate.version] = candidate

    async def models(self) -> list[str]:
        return sorted({name for name, _ in self.all_candidates} | set(self.all_projects))

    async def live(self, model: str, target: str = "local") -> Live | None:
        return self.all_live.get((model, target))

    async def lives(self) -> list[Live]:
        return list(self.all_live.values())

    async def put_live(self, live: Live, expected: Live | None) -> None:
        self._expect(self.all_live.get((live.model, live.target)), expected)
        self.all_live[live.model, live.target] = live

    async def image(self, model: str, version: str, target: str = "local") -> Deployed | None:
        return self.all_images.get((model, version, target))

    async def images(self, model: str, target: str = "*") -> list[Deployed]:
        wanted = [d for (name, _, at), d in self.all_images.items() if name == model and target in ("*", at)]
        return sorted(wanted, key=lambda deployed: deployed.generation)

    async def put_image(self, deployed: Deployed, target: str = "local") -> None:
        self.all_images[deployed.image.model, deployed.image.version, target] = deployed

    async def project(self, model: str) -> Project | None:
        return self.all_projects.get(model)

    async def put_project(self, project: Project, expected: Project | None) -> None:
        self._expect(self.all_projects.get(project.model), expected)
        self.all_projects[project.model] = project

    def _expect(self, found: object, expected: object) -> None:
        if found != expected:
            raise Conflict("the record was changed by someone else")


class Delivered(list[Event]):
    """The events a worker emitted, with the headers of each in `headers`."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[dict[str, str]] = []


async def deliver(worker: Worker, event: Event | bytes, subject: str | None = None, **headers: str) -> Delivered:
    """Hand `event` (or a raw body) to the worker through an in-memory broker; return what it emitted.

    Headers are given with underscores: `ce_id="x"`. Dead letters are collected as raw bodies in `worker.dead`.
    """
    emitted = Delivered()

    async def publish(message: object, to: str, headers: dict[str, str] | None = None, **_: object) -> None:
        assert isinstance(message, bytes)
        if not to.startswith("dlq."):
            emitted.append(cloudevents.read(to, headers, message, 1, datetime.now(UTC))[0])
            emitted.headers.append(headers or {})
        else:
            dead.append((to, dict(headers or {})))

    dead: list[tuple[str, dict[str, str]]] = []
    async with TestNatsBroker(worker.broker) as broker:
        assert isinstance(broker, NatsBroker)
        send, worker.broker.publish = broker.publish, publish  # type: ignore[method-assign,assignment]
        body = event if isinstance(event, bytes) else cloudevents.body(event)
        to = subject or (subject_of(event) if isinstance(event, Event) else "")
        written = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            await send(body, to, headers=written)
        finally:
            worker.broker.publish = send  # type: ignore[method-assign]
    worker.dead = dead  # type: ignore[attr-defined]
    return emitted
