"""The builder's handler: builds once, says where."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.artifact_ref import JOBLIB, PARQUET, TAR_GZ, ArtifactRef
from contracts.events import BuildFailed, ImagePushed, ModelApproved
from contracts.features import Feature, Probe
from contracts.model_spec import ModelSpec, parse
from contracts.profiles import ColumnProfile, Profile
from contracts.runtime import Environment, Limits
from contracts.verdicts import PerformanceTarget, Verdict
from services.builder.app import create_app
from services.builder.bento import BuildRefused, BuiltBento
from services.builder.packed import PackedBentos
from services.builder.settings import Settings
from services.messaging.worker import Worker
from services.sandbox.diagnostics import ChildKilled
from services.storage.artifact_store import FsspecArtifactStore
from tests.fakes import MemoryArtifacts, MemoryInbox, deliver


class FakeBentos:
    """Bentos that are text files; `errors` are raised one after the other."""

    def __init__(self, folder: Path) -> None:
        self.built: list[str] = []
        self.errors: list[Exception] = []
        self._folder = folder

    @contextlib.asynccontextmanager
    async def build(self, event: ModelApproved, run: str) -> AsyncIterator[BuiltBento]:
        if self.errors:
            raise self.errors.pop(0)
        self.built.append(event.version)
        (self._folder / "bento.tar").write_text(f"{event.tag} of {run}")
        yield built(self._folder, SPEC)

    async def spec(self, event: ModelApproved) -> ModelSpec:
        return SPEC


SPEC = parse("name: digits\ntarget: y\nserve: {memory: 512MiB}\nenv: {MOOD: quiet}\n")


def built(folder: Path, spec: ModelSpec) -> BuiltBento:
    return BuiltBento(folder / "bento", folder / "bento.tar", folder / "project", spec)


def ref(name: str, media_type: str) -> ArtifactRef:
    return ArtifactRef(uri=f"memory://{name}", sha256="0" * 64, size=1, media_type=media_type)


APPROVED = ModelApproved(
    model="digits",
    version="7-aaaaaaaa",
    tag="digits:7-aaaaaaaa",
    task="classification",
    artifact=ref("model", JOBLIB),
    project=ref("project", TAR_GZ),
    features=(Feature(name="a", type="number"),),
    target=Feature(name="y", type="integer"),
    environment=Environment(python="3.11.7", lock="0" * 64),
    profile=Profile(rows=1, columns=(), prediction=ColumnProfile(name="y", counts=())),
    probe=Probe(rows=({"a": 1.0},), predictions=(1,)),
    promise=PerformanceTarget(metric="accuracy", value=0.9),
    verdict=Verdict(outcome="pass", confidence=0.95, conditions=()),
    approved_by="gate",
    dataset=ref("data", PARQUET),
    trained=1.0,
)


@pytest.fixture
def bentos(home: Path) -> FakeBentos:
    return FakeBentos(home)


def builder(bentos: FakeBentos, artifacts: MemoryArtifacts, home: Path) -> Worker:
    worker = Worker("builder", Settings(home=home), failed=BuildFailed, inbox=MemoryInbox())
    create_app(worker, bentos, PackedBentos(artifacts, home / "builds"))
    return worker


async def test_an_approved_model_is_built_and_pushed_by_digest(bentos: FakeBentos, home: Path) -> None:
    artifacts = MemoryArtifacts()
    (event,) = await deliver(builder(bentos, artifacts, home), APPROVED, ce_correlationid="r1")
    assert isinstance(event, ImagePushed)
    assert event.artifact is not None
    assert (event.tag, event.image) == (APPROVED.tag, f"bento+{event.artifact.uri}")
    assert (await artifacts.fetch(event.artifact)).read_text() == "digits:7-aaaaaaaa of r1"
    assert (event.limits, event.env) == (Limits(memory=512 * 1024**2), {"MOOD": "quiet"})
    assert (event.probe, event.promise, event.environment) == (APPROVED.probe, APPROVED.promise, APPROVED.environment)


async def test_the_same_version_is_built_once(bentos: FakeBentos, home: Path) -> None:
    artifacts = MemoryArtifacts()
    (first,) = await deliver(builder(bentos, artifacts, home), APPROVED, ce_id="1")
    (again,) = await deliver(builder(bentos, artifacts, home), APPROVED, ce_id="2")
    assert first == again
    assert bentos.built == ["7-aaaaaaaa"]


async def test_an_image_that_the_store_lost_is_built_again(bentos: FakeBentos, home: Path) -> None:
    artifacts = MemoryArtifacts()
    (first,) = await deliver(builder(bentos, artifacts, home), APPROVED, ce_id="1")
    assert isinstance(first, ImagePushed)
    assert first.artifact
    (artifacts.folder / first.artifact.sha256).unlink()
    (again,) = await deliver(builder(bentos, artifacts, home), APPROVED, ce_id="2")
    assert isinstance(again, ImagePushed)
    assert again.artifact
    assert (await artifacts.fetch(again.artifact)).exists()
    assert bentos.built == ["7-aaaaaaaa"] * 2


async def test_an_image_that_only_the_cache_still_has_goes_back_into_the_store(bentos: FakeBentos, home: Path) -> None:
    store, cache = home / "store", home / "cache"
    cache.mkdir()
    images = PackedBentos(FsspecArtifactStore(f"file://{store}", cache), home / "builds")
    (home / "bento.tar").write_text("a bento")
    made = await images.make(APPROVED, "r1", built(home, SPEC))
    assert await images.find(APPROVED) == made
    (lost,) = store.iterdir()
    lost.unlink()
    assert await images.find(APPROVED) == made
    assert lost.read_text() == "a bento"


async def test_what_bentoml_refuses_fails_at_once(bentos: FakeBentos, home: Path) -> None:
    bentos.errors = [BuildRefused("the build failed with BentoMLException: no such model")]
    (event,) = await deliver(builder(bentos, MemoryArtifacts(), home), APPROVED)
    assert isinstance(event, BuildFailed)
    assert (event.version, event.attempts, event.error) == ("7-aaaaaaaa", 1, "BuildRefused")
    assert event.message == "the build failed with BentoMLException: no such model"


async def test_a_killed_build_is_tried_once_more(bentos: FakeBentos, home: Path) -> None:
    bentos.errors = [ChildKilled("the process of the build was ended by signal 9")]
    worker = builder(bentos, MemoryArtifacts(), home)
    assert await deliver(worker, APPROVED) == []
    (event,) = await deliver(worker, APPROVED)
    assert isinstance(event, ImagePushed)


async def test_keys_of_an_image_are_named_when_a_bento_is_only_packed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "bento.tar").write_text("a bento")
    spec = parse("name: digits\ntarget: y\nserve: {system_packages: [libgomp1]}\n")
    await PackedBentos(MemoryArtifacts(), home / "builds").make(APPROVED, "r1", built(home, spec))
    assert "serve.system_packages" in capsys.readouterr().out
