"""Images of real Bentos: made by a real engine, pushed to a real registry, run as a deployer runs them."""

import asyncio
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import docker
import pytest

from contracts.artifact_ref import CYCLONEDX
from contracts.events import ModelApproved
from services.builder.domain import BuiltImage
from services.storage.artifact_store import ArtifactStore
from tests.docker.approvals import example, version
from tests.docker.containers import answer, serving
from tests.docker.makers import Maker
from tests.docker.registries import Registry
from tests.waiting import eventually, until

KEEPS_OUT = ("gcc", "cc", "ld", "make", "pip", "pip3", "uv", "git")
IMPORTS = """
import bentoml, joblib, nats, numpy.testing, pandas.testing, pyarrow.compute, pyarrow.fs, pyarrow.parquet, scipy.stats
import sklearn.ensemble, sklearn.experimental.enable_iterative_imputer, sklearn.impute, sklearn.datasets, uvicorn
"""
BYTECODE = """
import importlib.util, pathlib, sys
for name in ("asyncio", "json", "bentoml", "pandas", "sklearn.ensemble._forest"):
    print(name, pathlib.Path(importlib.util.find_spec(name).cached).exists())
print("serving", *sorted(path.stem.split(".")[0] for path in pathlib.Path("/bento/src/serving").glob("__pycache__/*")))
"""
NOT_COMPILED = """
import importlib.util, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
for path in site.rglob("*.py"):
    if not pathlib.Path(importlib.util.cache_from_source(str(path))).exists():
        print(".".join(path.relative_to(site).with_suffix("").parts).removesuffix(".__init__"))
"""


@pytest.fixture
async def maker(shared_registry: Registry, home: Path) -> AsyncIterator[Maker]:
    async with Maker(home, shared_registry.address) as maker:
        yield maker


async def made(maker: Maker, event: ModelApproved) -> BuiltImage:
    assert await maker.images.find(event) is None
    return await maker.make(event)


@asynccontextmanager
async def staying_ready(maker: Maker) -> AsyncIterator[None]:
    """Run the builder's background work."""
    ahead = asyncio.create_task(maker.images.stay_ready())
    try:
        yield
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)


async def test_a_version_is_built_pushed_and_serves(
    maker: Maker, shared_registry: Registry, engine: docker.DockerClient
) -> None:
    event = await maker.example("digits", 1)
    image = await made(maker, event)
    digest = shared_registry.digest("digits", event.version)
    assert image.image == f"{shared_registry.address}/digits@{digest}"
    about = engine.images.get(image.image)
    assert image.size == about.attrs["Size"]
    labels = about.labels
    assert labels["org.opencontainers.image.version"] == event.version
    assert labels["org.opencontainers.image.revision"] == "c0ffee"
    assert labels["dev.bentobelt.run"] == "run1"
    assert labels["dev.bentobelt.dataset"] == event.dataset.sha256
    assert about.attrs["Config"]["User"] == "1034:1034"
    await _has_its_package_list(maker.artifacts, image)
    with serving(engine, image.image) as container:
        assert answer(container, event) == list(event.probe.predictions)
        _is_bare(container)
        until(lambda: engine.api.inspect_container(container.id)["State"]["Health"]["Status"] == "healthy")
        container.stop(timeout=20)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
        assert "startup hook" in container.logs().decode()
    with serving(engine, image.image, PYTHONPROFILEIMPORTTIME="1") as container:
        assert answer(container, event) == list(event.probe.predictions)
        _has_compiled_what_it_imports(container)


def _is_bare(container: Any) -> None:
    def run(*command: str) -> str:
        code, said = container.exec_run(list(command))
        assert code == 0, said.decode()
        return str(said.decode())

    found = run("sh", "-c", f"for tool in {' '.join(KEEPS_OUT)}; do command -v $tool; done; true")
    assert found == ""
    assert run("id", "-u", "-n").strip() == "serving"
    run("python", "-c", IMPORTS)
    code, said = container.exec_run(["python", "-m", "pip"])
    assert code, said
    lines = dict(line.split(" ", 1) for line in run("python", "-c", BYTECODE).splitlines())
    serving_modules = lines.pop("serving").split()
    assert set(lines.values()) == {"True"}, lines
    assert {"app", "service", "model"} <= set(serving_modules)
    code, _ = container.exec_run(["sh", "-c", "echo x >/bento/x"])
    assert code, "the root can be written to"


def _has_compiled_what_it_imports(container: Any) -> None:
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", container.logs().decode(), re.MULTILINE))
    assert {"bentoml._internal", "sklearn.utils"} <= imported
    code, said = container.exec_run(["python", "-c", NOT_COMPILED], environment={"PYTHONPROFILEIMPORTTIME": ""})
    assert code == 0, said.decode()
    not_compiled = set(said.decode().split())
    assert len(not_compiled) < 20, "files that are no Python of this version, and those alone"
    assert not_compiled & imported == set()


async def _has_its_package_list(artifacts: ArtifactStore, image: BuiltImage) -> None:
    assert image.sbom is not None
    assert image.sbom.media_type == CYCLONEDX
    package_list = json.loads((await artifacts.fetch(image.sbom)).read_text())
    assert (package_list["bomFormat"], package_list["specVersion"]) == ("CycloneDX", "1.5")
    found = {one["name"].lower(): one["purl"] for one in package_list["components"]}
    assert found["scikit-learn"].startswith("pkg:pypi/scikit-learn@1.")
    assert {"bentoml", "numpy", "pandas"} <= set(found)
    assert not {"pip", "uv", "setuptools"} & set(found)


async def test_the_second_time_nothing_is_built_or_pushed(
    maker: Maker, engine: docker.DockerClient, shared_registry: Registry
) -> None:
    event = await maker.example("diabetes", 1)
    image = await made(maker, event)
    with serving(engine, image.image) as container:
        assert answer(container, event) == pytest.approx(list(event.probe.predictions))
    before = engine.images.get(image.image).id
    assert await maker.images.find(event) == image
    assert engine.images.get(image.image).id == before
    # Another builder, which never saw it: the registry knows.
    engine.images.remove(f"{shared_registry.address}/diabetes:{event.version}")
    assert await maker.images.find(event) == image
    # The same version of another model is not taken for it.
    other = event.model_copy(update={"artifact": event.artifact.model_copy(update={"sha256": "0" * 64})})
    assert await maker.images.find(other) is None


async def test_a_runtime_is_made_before_the_first_version(
    home: Path, empty_registry: Registry, engine: docker.DockerClient
) -> None:
    base = _base_by_digest(engine, empty_registry)
    async with Maker(home, empty_registry.address, base_image=base) as maker:
        event = await maker.example("digits", 41, trees=2)
        async with staying_ready(maker):
            await eventually(lambda: asyncio.to_thread(empty_registry.tags, "bentobelt-runtime"), 600)
            runtimes = empty_registry.tags("bentobelt-runtime")
            image = await made(maker, event)
        assert empty_registry.tags("bentobelt-runtime") == runtimes
    (key,) = runtimes
    repository = f"{empty_registry.address}/bentobelt-runtime"
    whole = ([f"{repository}:{key}"], [f"{repository}@{empty_registry.digest('bentobelt-runtime', key)}"])
    until(lambda: [(one["RepoTags"], one["RepoDigests"]) for one in engine.api.images(repository)] == [whole])
    assert [name for name in _names(engine, base) if empty_registry.address in name] == [base]
    _holds_nothing_twice(engine, image.image, home / "image.tar")


def _base_by_digest(engine: docker.DockerClient, registry: Registry) -> str:
    engine.api.tag("python:3.11-slim", f"{registry.address}/base", "1")
    engine.images.push(f"{registry.address}/base", "1")
    return f"{registry.address}/base@{registry.digest('base', '1')}"


def _names(engine: docker.DockerClient, image: str) -> list[str]:
    return list(engine.api.inspect_image(image)["RepoDigests"])


def _holds_nothing_twice(engine: docker.DockerClient, image: str, file: Path) -> None:
    """Check that no layer writes a file of another layer again: packages and their bytecode."""
    with file.open("wb") as saved:
        for chunk in engine.images.get(image).save():
            saved.write(chunk)
    found: Counter[str] = Counter()
    with tarfile.open(file) as whole:
        (manifest,) = json.load(_member(whole, "manifest.json"))
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(whole, layer), mode="r|") as tar:
                found.update(one.name for one in tar if one.isfile() and one.name.startswith(("opt/", "bento/")))
    assert len(found) > 5000
    assert [name for name, layers in found.items() if layers > 1] == []


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    member = tar.extractfile(name)
    assert member is not None, f"{name} is a file"
    return member


async def test_nothing_is_prepared_without_an_engine_or_a_registry(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home}/nobody.sock")
    said = ""

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "the first build makes it" in said

    async with Maker(home, "127.0.0.1:1") as maker:
        ahead = asyncio.create_task(maker.images.stay_ready())
        await eventually(lambda: asyncio.to_thread(told))
        assert not ahead.done()
        assert "Traceback" not in said
        ahead.cancel()
        await maker.images.close()


async def test_a_new_version_pushes_its_model_and_little_else(maker: Maker, shared_registry: Registry) -> None:
    first, second = [await maker.example("digits", number) for number in (11, 12)]
    await made(maker, first)
    runtimes = shared_registry.tags("bentobelt-runtime")
    await made(maker, second)
    assert shared_registry.tags("bentobelt-runtime") == runtimes
    there = shared_registry.layers("digits", first.version)
    new = {
        digest: size for digest, size in shared_registry.layers("digits", second.version).items() if digest not in there
    }
    model = (await maker.artifacts.fetch(second.artifact)).stat().st_size
    assert sum(new.values()) < model + 100_000
    assert len(new) == 2, "one layer, and the configuration"


async def test_old_images_are_forgotten_unless_a_container_runs_them(
    maker: Maker, engine: docker.DockerClient, shared_registry: Registry
) -> None:
    events = [await maker.example("digits", number, trees=2) for number in (31, 32, 33, 34)]
    oldest = await made(maker, events[0])
    with serving(engine, oldest.image) as container:
        for event in events[1:]:
            await made(maker, event)  # keeps two

        def kept() -> set[str]:
            images = engine.api.images(f"{shared_registry.address}/digits")
            return {tag.rsplit(":", 1)[1] for one in images for tag in one["RepoTags"] or ()}

        async with staying_ready(maker):
            await eventually(lambda: asyncio.to_thread(lambda: version(32) not in kept()))
        assert {version(31), version(33), version(34)} <= kept()
        assert container.status != "exited"


async def test_a_projects_own_requirements_are_in_its_image(maker: Maker, engine: docker.DockerClient) -> None:
    event = await maker.example("diabetes", 5, requirements=["imbalanced-learn"])
    image = await made(maker, event)
    assert image.sbom is not None
    package_list = json.loads((await maker.artifacts.fetch(image.sbom)).read_text())
    assert "imbalanced-learn" in {one["name"] for one in package_list["components"]}
    with serving(engine, image.image) as container:
        assert answer(container, event) == pytest.approx(list(event.probe.predictions))
        code, said = container.exec_run(["python", "-c", "import imblearn.ensemble, pyarrow._s3fs"])
        assert code == 0, said.decode()


async def test_what_bentoml_containerize_makes_is_pushed_the_same_way(
    shared_registry: Registry, home: Path, engine: docker.DockerClient
) -> None:
    async with Maker(home, shared_registry.address, way="containerize") as maker:
        event = await maker.example("digits", 21, trees=2)
        image = await made(maker, event)
        assert image.image.endswith(shared_registry.digest("digits", event.version))
        assert await maker.images.find(event) == image
        assert engine.images.get(image.image).labels["dev.bentobelt.run"] == "run21"
        assert image.sbom is not None
        package_list = json.loads((await maker.artifacts.fetch(image.sbom)).read_text())
        assert "bentoml" in {one["name"] for one in package_list["components"]}


async def test_a_version_says_what_it_may_use(maker: Maker) -> None:
    event = await example(maker.artifacts, maker.base, "diabetes", 3, more="serve: {memory: 512MiB, cpus: 0.5}\n")
    limits = (await maker.bentos.spec(event)).serve.limits
    assert (limits.memory, limits.cpus) == (512 * 1024**2, 0.5)


async def test_system_packages_are_in_the_image(maker: Maker, engine: docker.DockerClient) -> None:
    event = await example(maker.artifacts, maker.base, "diabetes", 6, more="serve: {system_packages: [hello]}\n")
    image = await made(maker, event)
    with serving(engine, image.image) as container:
        assert answer(container, event) == pytest.approx(list(event.probe.predictions))
        code, said = container.exec_run(["hello"])
        assert (code, b"Hello" in said) == (0, True), said.decode()


DOCKERFILE = """\
FROM python:3.11-slim
COPY pipeline.py /copied.py
RUN echo quiet >/mood
USER nobody
"""


async def test_a_dockerfile_of_the_project_is_built_first_and_used_as_the_base(
    maker: Maker, engine: docker.DockerClient
) -> None:
    event = await example(
        maker.artifacts, maker.base, "diabetes", 7, more="serve: {dockerfile: docker/Dockerfile}\n",
        files={"docker/Dockerfile": DOCKERFILE},
    )  # fmt: skip
    image = await made(maker, event)
    labels = engine.images.get(image.image).labels
    assert labels["org.opencontainers.image.base.name"] == "docker/Dockerfile"
    with serving(engine, image.image) as container:
        assert answer(container, event) == pytest.approx(list(event.probe.predictions))
        assert container.exec_run(["cat", "/mood"])[1] == b"quiet\n"
        assert b"def build" in container.exec_run(["cat", "/copied.py"])[1]
        assert container.exec_run(["id", "-u"])[1] == b"1034\n"


async def test_a_base_image_of_the_project_is_used(
    maker: Maker, engine: docker.DockerClient, shared_registry: Registry
) -> None:
    name = f"{shared_registry.address}/own-base"
    engine.images.build(fileobj=io.BytesIO(b"FROM python:3.11-slim\nENV MOOD=quiet\n"), tag=f"{name}:1", rm=True)
    event = await example(maker.artifacts, maker.base, "diabetes", 8, more=f"serve: {{base_image: '{name}:1'}}\n")
    about = engine.images.get((await made(maker, event)).image)
    assert "MOOD=quiet" in about.attrs["Config"]["Env"]
    assert about.labels["org.opencontainers.image.base.name"] == f"{name}:1"


async def test_variables_of_the_project_are_in_the_bento_and_in_its_event(maker: Maker) -> None:
    event = await example(maker.artifacts, maker.base, "diabetes", 9, more="env: {MOOD: quiet}\n")
    async with maker.bentos.build(event, "run9") as bento:
        assert "MOOD" in (bento.folder / "bento.yaml").read_text()
        assert bento.spec.env == {"MOOD": "quiet"}
