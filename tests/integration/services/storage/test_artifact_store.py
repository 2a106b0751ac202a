import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from contracts.artifact_ref import TEXT, ArtifactRef
from services.messaging.connection import Bus
from services.messaging.settings import BusSettings
from services.storage.archives import BadArchive, pack_folder
from services.storage.artifact_store import (
    ArtifactCorrupt,
    ArtifactMissing,
    ArtifactStore,
    FsspecArtifactStore,
    open_artifact_store,
)


@pytest.fixture(params=["nats", "file", "memory"])
def store(request: pytest.FixtureRequest, bus: Bus, home: Path) -> ArtifactStore:
    url = {"nats": "nats://artifacts", "file": f"file://{home}/store", "memory": f"memory://{home.name}"}
    return open_artifact_store(bus, BusSettings(home=home, artifacts_url=url[request.param]))


async def test_bytes_come_back_and_are_stored_once(store: ArtifactStore, home: Path) -> None:
    content = b"x" * 300_000  # more than one chunk of the object store
    ref = await store.put(content, TEXT)
    assert await store.put(content, TEXT) == ref
    assert (ref.size, (await store.fetch(ref)).read_bytes() == content) == (300_000, True)
    file = home / "content"
    file.write_bytes(content)
    assert (await store.put(file, TEXT)).sha256 == ref.sha256


async def test_every_read_is_checked(store: ArtifactStore, home: Path) -> None:
    ref = await store.put(b"good", TEXT)
    cached = await store.fetch(ref)
    cached.chmod(0o644)
    cached.write_bytes(b"evil")
    assert (await store.fetch(ref)).read_bytes() == b"good"
    lying = ref.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ArtifactCorrupt, match="hashes to"):
        await store.fetch(lying)


async def test_a_missing_one_is_named(store: ArtifactStore) -> None:
    ref = await store.put(b"good", TEXT)
    gone = ArtifactRef(uri=ref.uri.replace(ref.sha256, "f" * 64), sha256="f" * 64, size=1, media_type=TEXT)
    with pytest.raises(ArtifactMissing, match="ffff"):
        await store.fetch(gone)


async def test_a_folder_travels_and_packs_the_same_every_time(store: ArtifactStore, home: Path) -> None:
    project = home / "project"
    (project / "sub" / "__pycache__").mkdir(parents=True)
    (project / ".git").mkdir()
    for name in ("model.yaml", "sub/pipeline.py", "sub/__pycache__/x.pyc", ".git/HEAD"):
        (project / name).write_text(name)
    packed = pack_folder(project)
    (project / "model.yaml").touch()
    assert pack_folder(project) == packed
    folder = await store.fetch_folder(await store.put(packed, TEXT))
    assert sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) == [
        "model.yaml",
        "sub/pipeline.py",
    ]


async def test_what_was_written_into_an_unpacked_folder_is_gone_at_the_next_read(
    store: ArtifactStore, home: Path
) -> None:
    (home / "project").mkdir()
    (home / "project" / "pipeline.py").write_text("good")
    ref = await store.put(pack_folder(home / "project"), TEXT)
    folder = await store.fetch_folder(ref)
    (folder / "pipeline.py").write_text("evil")
    (folder / "left.txt").write_text("behind")
    again = await store.fetch_folder(ref)
    assert [(file.name, file.read_text()) for file in again.iterdir()] == [("pipeline.py", "good")]


async def test_an_artifact_may_be_anywhere_that_fsspec_reads(bus: Bus, home: Path) -> None:
    content = b"someone's own data"
    (home / "own.csv").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    store = open_artifact_store(bus, BusSettings(home=home))
    own = ArtifactRef(uri=f"file://{home}/own.csv", sha256=digest, size=len(content), media_type=TEXT)
    assert (await store.fetch(own)).read_bytes() == content
    nowhere = own.model_copy(update={"uri": "nowhere", "sha256": "0" * 64})
    with pytest.raises(ArtifactMissing, match="nowhere"):
        await store.fetch(nowhere)
    unknown = own.model_copy(update={"uri": "ftpx://host/own.csv", "sha256": "1" * 64})
    with pytest.raises(ArtifactMissing, match="ftpx"):
        await store.fetch(unknown)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil"])
async def test_an_archive_that_leaves_its_folder_is_refused(bus: Bus, home: Path, name: str) -> None:
    store = FsspecArtifactStore(f"file://{home}/store", home / "cache")
    (home / "cache").mkdir()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    ref = await store.put(raw.getvalue(), TEXT)
    with pytest.raises(BadArchive, match="outside"):
        await store.fetch_folder(ref)
    assert not (home / "cache" / "evil").exists()


async def test_no_archive_at_all_is_refused(bus: Bus, home: Path) -> None:
    store = open_artifact_store(bus, BusSettings(home=home))
    with pytest.raises(BadArchive, match="cannot be unpacked"):
        await store.fetch_folder(await store.put(b"no tar", TEXT))
