"""The content-addressed artifact store: bytes are stored under their digest, and a reference to them is returned.

The store is the object store of the bus, or a folder at any fsspec URL. Every read is checked against the digest, also
from the local cache.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from nats.js.api import ObjectInfo
from nats.js.errors import NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from contracts import subjects
from contracts.artifact_ref import ArtifactRef
from services.host import sha256_of
from services.messaging import Bus, BusSettings, Permanent
from services.storage import archives

CACHE_BYTES = 2 * 1024**3
"""Size of the local cache; beyond it, the files used longest ago are removed."""
OBJECTS = f"OBJ_{subjects.ARTIFACTS}"
"""The stream of the object store."""


class ArtifactMissing(Permanent):
    """The store has no such artifact: it expired or was never written."""


class ArtifactCorrupt(Permanent):
    """The digest of the bytes is not that of the reference."""


class ArtifactStore(Protocol):
    """A store of artifacts."""

    async def put(self, data: bytes | Path, media_type: str) -> ArtifactRef:
        """Store bytes or the content of a file; the same bytes are stored once."""
        ...

    async def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local read-only file with the artifact's bytes.

        Raises:
            ArtifactMissing: the store does not have it.
            ArtifactCorrupt: the store has other bytes.
        """
        ...

    async def fetch_folder(self, ref: ArtifactRef) -> Path:
        """Return the local folder with the content of the archive `ref`; it must not be written to.

        Raises:
            archives.BadArchive: it is no archive, or a member points outside the folder.
        """
        ...


class _Cached(ABC):
    """The local cache of every store: a folder of files named by their digest."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    async def fetch(self, ref: ArtifactRef) -> Path:
        file = self._cache / ref.sha256
        if not await asyncio.to_thread(_is_intact, file, ref.sha256):
            partial = _sibling(file)
            try:
                await self._download(ref, partial)
                await asyncio.to_thread(_adopt, partial, file, ref)
            finally:
                partial.unlink(missing_ok=True)
            await asyncio.to_thread(_evict, self._cache)
        return file

    async def fetch_folder(self, ref: ArtifactRef) -> Path:
        file = await self.fetch(ref)
        folder = self._cache / f"{ref.sha256}.d"
        await asyncio.to_thread(archives.unpacked, file, folder)
        return folder

    @abstractmethod
    async def _download(self, ref: ArtifactRef, to: Path) -> None: ...


class NatsArtifactStore(_Cached):
    """Artifacts in the JetStream object store of the bus."""

    def __init__(self, bus: Bus, cache: Path) -> None:
        super().__init__(cache)
        self._bus = bus

    async def put(self, data: bytes | Path, media_type: str) -> ArtifactRef:
        digest, size = await asyncio.to_thread(_measure, data)
        store = await self._store()
        if not await _has(store, digest):
            if isinstance(data, bytes):
                await store.put(digest, data)
            else:
                with data.open("rb") as file:
                    await store.put(digest, file)
        return ArtifactRef(uri=f"nats://{subjects.ARTIFACTS}/{digest}", sha256=digest, size=size, media_type=media_type)

    async def _download(self, ref: ArtifactRef, to: Path) -> None:
        if not ref.uri.startswith(f"nats://{subjects.ARTIFACTS}/"):  # someone's own dataset, say
            await asyncio.to_thread(_copy_from, ref.uri, to)
            return
        try:
            info = await (await self._store()).get_info(ref.uri.rsplit("/", 1)[1])
            with to.open("wb") as file:
                async for chunk in self._chunks(info):
                    await asyncio.to_thread(file.write, chunk)
        except (ObjectNotFoundError, NotFoundError):
            raise ArtifactMissing(f"artifact {ref.uri} is not in the store") from None

    async def _chunks(self, info: ObjectInfo) -> AsyncIterator[bytes]:
        """Yield an object's chunks, read one by one: nats-py itself would create a consumer, which workers may not."""
        sequence, subject = 0, f"$O.{subjects.ARTIFACTS}.C.{info.nuid}"
        for _ in range(info.chunks or 0):
            message = await self._bus.js.get_msg(OBJECTS, seq=sequence + 1, subject=subject, next=True, direct=True)
            sequence = message.seq or 0
            yield message.data or b""

    async def _store(self) -> ObjectStore:
        return await self._bus.js.object_store(subjects.ARTIFACTS)


class FsspecArtifactStore(_Cached):
    """Artifacts as files under an fsspec URL, each named by its digest."""

    def __init__(self, url: str, cache: Path) -> None:
        super().__init__(cache)
        self._url = url.rstrip("/")

    async def put(self, data: bytes | Path, media_type: str) -> ArtifactRef:
        digest, size = await asyncio.to_thread(_measure, data)
        uri = f"{self._url}/{digest}"
        await asyncio.to_thread(_upload, data, uri)
        return ArtifactRef(uri=uri, sha256=digest, size=size, media_type=media_type)

    async def _download(self, ref: ArtifactRef, to: Path) -> None:
        await asyncio.to_thread(_copy_from, ref.uri, to)


def open_artifact_store(bus: Bus, settings: BusSettings) -> ArtifactStore:
    """Return the store that the settings name, with its cache under the worker's home."""
    cache = settings.home / "artifacts"
    cache.mkdir(parents=True, exist_ok=True)
    if settings.artifacts_url == f"nats://{subjects.ARTIFACTS}":
        return NatsArtifactStore(bus, cache)
    return FsspecArtifactStore(settings.artifacts_url, cache)


def _measure(data: bytes | Path) -> tuple[str, int]:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest(), len(data)
    return sha256_of(data), data.stat().st_size


def _is_intact(file: Path, sha256: str) -> bool:
    if not file.exists():
        return False
    os.utime(file)
    return sha256_of(file) == sha256


def _adopt(partial: Path, file: Path, ref: ArtifactRef) -> None:
    found = sha256_of(partial)
    if found != ref.sha256:
        raise ArtifactCorrupt(f"artifact {ref.uri} hashes to {found}, not to {ref.sha256}")
    partial.chmod(0o444)
    partial.replace(file)


def _evict(cache: Path) -> None:
    # A seal is removed only with its folder: a folder without a seal is unpacked again, also while it is in use.
    found = (file for file in cache.iterdir() if file.is_file() and file.suffix != archives.SEAL)
    files = sorted(found, key=lambda file: file.stat().st_mtime)
    excess = sum(file.stat().st_size for file in files) - CACHE_BYTES
    for file in files[:-8]:  # files in use are among the newest
        if excess <= 0:
            return
        excess -= file.stat().st_size
        file.unlink(missing_ok=True)
        shutil.rmtree(file.with_name(f"{file.name}.d"), ignore_errors=True)
        archives.seal_of(file.with_name(f"{file.name}.d")).unlink(missing_ok=True)


def _sibling(file: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".partial-")
    os.close(handle)
    return Path(name)


async def _has(store: ObjectStore, name: str) -> bool:
    try:
        await store.get_info(name)
    except (ObjectNotFoundError, NotFoundError):
        return False
    return True


def _upload(data: bytes | Path, uri: str) -> None:
    import fsspec

    fs, path = fsspec.core.url_to_fs(uri)
    if fs.exists(path):
        return
    fs.makedirs(fs._parent(path), exist_ok=True)
    with fs.transaction, fs.open(path, "wb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            with data.open("rb") as source:
                shutil.copyfileobj(source, file)


def _copy_from(uri: str, to: Path) -> None:
    import fsspec

    try:
        with fsspec.open(uri, "rb") as source, to.open("wb") as file:
            shutil.copyfileobj(source, file)
    except FileNotFoundError:
        raise ArtifactMissing(f"artifact {uri} is not in the store") from None
    except (ValueError, ImportError) as error:
        raise ArtifactMissing(f"artifact {uri} cannot be read here: {error}") from None
