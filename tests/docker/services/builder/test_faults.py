"""Faults while an image is built, on real engines: a retry succeeds, or the error says what to do."""

import asyncio
import base64
import contextlib
import http.server
import json
import os
import platform
import re
import secrets
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest

from contracts.events import BuildFailed, Event, ImagePushed, ModelApproved
from contracts.serve_spec import Serve
from services.builder.app import create_app
from services.builder.commands import CommandRunner
from services.builder.docker_build import DockerBuild
from services.builder.serving_image import LOCK, RUNTIME, DockerfileRecipe
from services.builder.settings import Settings
from services.docker_engine import DockerEngine, DockerTrouble, RegistryAway
from services.messaging.worker import Worker
from services.sandbox.environments import BASE_LOCK
from tests.docker.approvals import example
from tests.docker.conftest import Dockerd
from tests.docker.makers import Maker
from tests.docker.registries import PASSWORD, USER, Registry
from tests.fakes import MemoryInbox, deliver
from tests.waiting import eventually, until

BASE = "python:3.11-slim"
PYTHON = platform.python_version()


@contextlib.asynccontextmanager
async def builder(home: Path, registry: Registry, **more: Any) -> AsyncIterator["Builder"]:
    async with Maker(home, registry.address, **more) as maker:
        yield Builder(maker, await maker.example("digits", secrets.randbelow(2**31), trees=2))


class Builder:
    """A builder's worker that is handed one approved version, as often as wanted."""

    def __init__(self, maker: Maker, event: ModelApproved) -> None:
        self.maker, self.event = maker, event
        self.worker = Worker("builder", Settings(), failed=BuildFailed, inbox=MemoryInbox())
        create_app(self.worker, maker.bentos, maker.images)

    async def deliver(self, id: str = "1") -> Event | None:
        """Return the event that the worker publishes; None when it will retry the message later."""
        said = await deliver(self.worker, self.event, ce_id=id, ce_correlationid="run1")
        return said[0] if said else None


async def test_a_registry_that_was_down_gets_the_image_later(registry: Registry, home: Path) -> None:
    async with builder(home, registry) as it:
        registry.stop()
        assert await it.deliver() is None
        registry.start()
        said = await it.deliver()
        assert isinstance(said, ImagePushed)
        assert said.image.endswith(registry.digest("digits", it.event.version))


@pytest.mark.parametrize("by", ["file", "docker configuration"])
async def test_refused_credentials_are_named_and_mended(
    by: str, private_registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(home))

    def say(password: str) -> None:
        pair = f"{USER}:{password}"
        (home / "credentials").write_text(f"{pair}\n")
        auth = {"auth": base64.b64encode(pair.encode()).decode()} if by != "file" else {}
        (home / "config.json").write_text(json.dumps({"auths": {private_registry.address: auth} if auth else {}}))

    say("wrong")
    more = {"registry_credentials": str(home / "credentials")} if by == "file" else {}
    async with builder(home, private_registry, **more) as it:
        said = await it.deliver()
        assert isinstance(said, BuildFailed)
        assert said.attempts == 1
        for name in (private_registry.address, "BUILDER_REGISTRY_CREDENTIALS", "docker login"):
            assert name in said.message
        assert "wrong" not in said.message
        say(PASSWORD)
        assert isinstance(await it.deliver("2"), ImagePushed)


async def test_credentials_that_cannot_be_read_are_named(private_registry: Registry, home: Path) -> None:
    async with builder(home, private_registry, registry_credentials=str(home / "nowhere")) as it:
        said = await it.deliver()
        assert isinstance(said, BuildFailed)
        assert "BUILDER_REGISTRY_CREDENTIALS" in said.message
        (home / "nowhere").write_text("no colon")
        said = await it.deliver("2")
        assert isinstance(said, BuildFailed)
        assert "user:password" in said.message


async def test_a_missing_base_image_is_named(registry: Registry, home: Path) -> None:
    async with builder(home, registry, base_image=f"{registry.address}/nothing:{{python}}") as it:
        said = await it.deliver()
        assert isinstance(said, BuildFailed)
        assert said.attempts == 1
        assert "BUILDER_BASE_IMAGE" in said.message
        assert f"{registry.address}/nothing:3.11" in said.message


def test_the_registry_of_a_base_image_is_the_one_that_is_asked_about(registry: Registry) -> None:
    with pytest.raises(RegistryAway, match=r"Is the registry 127\.0\.0\.1:1 up"):
        DockerEngine("BUILDER").need("127.0.0.1:1/base:3.11")


async def test_an_engine_that_dies_in_mid_build_builds_later(
    empty_registry: Registry,
    home: Path,
    engine: docker.DockerClient,
    engine_of_its_own: Callable[[Path], Dockerd],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with builder(home, empty_registry) as it:
        other = engine_of_its_own(home / "docker")
        await asyncio.to_thread(_copy_base, engine, other)
        with monkeypatch.context() as there:
            there.setenv("DOCKER_HOST", other.url)
            building = asyncio.create_task(it.deliver())
            await eventually(lambda: asyncio.to_thread(_installs, capsys), 120)
            other.kill()
            assert await building is None
            assert await it.deliver() is None, "no engine at all"
        await asyncio.to_thread(_provide, empty_registry, home)  # a builder elsewhere made the runtime meanwhile
        other.start()
        monkeypatch.setenv("DOCKER_HOST", other.url)
        assert isinstance(await it.deliver(), ImagePushed)


async def test_a_full_disk_is_told_and_tried_again(
    empty_registry: Registry,
    home: Path,
    engine: docker.DockerClient,
    engine_of_its_own: Callable[[Path], Dockerd],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _disk(home, "3G") as disk:
        async with builder(home, empty_registry) as it:
            other = engine_of_its_own(disk / "docker")
            await asyncio.to_thread(_copy_base, engine, other)
            _fill(disk, but=250_000_000)
            with monkeypatch.context() as there:
                there.setenv("DOCKER_HOST", other.url)
                assert await it.deliver() is None
            assert "The disk is full: free space" in " ".join(capsys.readouterr().out.split())
            await asyncio.to_thread(_provide, empty_registry, home)
            (disk / "filler").unlink()
            monkeypatch.setenv("DOCKER_HOST", other.url)
            assert isinstance(await it.deliver(), ImagePushed)


def test_a_builder_that_is_stopped_ends_its_build(
    registry: Registry, home: Path, engine: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, commands = _recipe(registry, home)
    with ThreadPoolExecutor() as pool:
        making = pool.submit(recipe.provide, _context(home), Serve(system_packages=("hello",)), PYTHON, None)
        until(lambda: _installs(capsys), 120)
        commands.close()
        with pytest.raises(DockerTrouble, match="the builder is being stopped"):
            making.result()
    assert engine.api.images(f"{registry.address}/bentobelt-runtime") == []


async def test_a_step_that_fails_is_shown_with_its_own_last_lines(registry: Registry, home: Path) -> None:
    async with Maker(home, registry.address) as maker:
        dockerfile = f"FROM {BASE}\nRUN echo ready && echo no such thing >&2 && exit 3\n"
        event = await example(
            maker.artifacts, maker.base, "diabetes", 1, more="serve: {dockerfile: Dockerfile}\n",
            files={"Dockerfile": dockerfile},
        )  # fmt: skip
        said = await Builder(maker, event).deliver()
        assert isinstance(said, BuildFailed)
        assert (said.error, said.attempts) == ("BuildStepFailed", 1)
        assert "[2/2] RUN echo ready" in said.message
        assert "no such thing\n" in said.message
        assert "exit code: 3" in said.message


@pytest.mark.parametrize(
    ("serve", "says"),
    [
        ("{system_packages: [no-such-package-at-all]}", "Unable to locate package no-such-package-at-all"),
        ("{base_image: 'nats:2.15-alpine'}", "python: not found"),
    ],
)
async def test_a_serve_key_that_cannot_work_fails_at_once(
    serve: str, says: str, registry: Registry, home: Path
) -> None:
    async with Maker(home, registry.address) as maker:
        event = await example(maker.artifacts, maker.base, "diabetes", 1, more=f"serve: {serve}\n")
        said = await Builder(maker, event).deliver()
        assert isinstance(said, BuildFailed)
        assert said.attempts == 1
        assert says in said.message


async def test_where_packages_come_from_stays_in_the_build(
    registry: Registry, home: Path, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in an index's address reaches the index, and nothing that is kept."""
    gateway = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    recipe, _ = _recipe(registry, home)
    with _index(gateway) as (port, asked):
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://belt:hunter2@{gateway}:{port}/simple")
        image = recipe.provide(_context(home), Serve(), PYTHON, None)  # one that no engine has yet
    assert base64.b64encode(b"belt:hunter2").decode() in " ".join(asked), "the index was not asked"
    told = json.dumps(engine.api.history(image)) + json.dumps(engine.api.inspect_image(image))
    assert "hunter2" not in told
    assert not any(b"hunter2" in chunk for chunk in engine.images.get(image).save())
    package_list = json.loads(recipe.package_list(image, {RUNTIME: "x"}))
    assert [one["purl"].split("@")[0] for one in package_list["components"]] == ["pkg:pypi/six"]


def _recipe(registry: Registry, home: Path) -> tuple[DockerfileRecipe, CommandRunner]:
    commands = CommandRunner()
    builds = DockerBuild(commands, home, 600)
    return DockerfileRecipe(DockerEngine("BUILDER", seconds=300), builds, registry.address, BASE), commands


def _context(home: Path) -> Path:
    """A folder with a lock of one package, which differs from every other one."""
    lock = home / "context" / LOCK
    lock.parent.mkdir(parents=True)
    lock.write_text(f"# {uuid.uuid4()}\n{_only('six')}")
    return home / "context"


def _only(package: str) -> str:
    """One package of the lock."""
    found = re.search(rf"^{package}==.*?(?=^[a-z])", BASE_LOCK.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return "\n".join(line for line in found[0].splitlines() if not line.strip().startswith("#")) + "\n"


@contextlib.contextmanager
def _index(address: str) -> Iterator[tuple[int, list[str]]]:
    """A package index that has nothing, and what it was asked with."""
    asked: list[str] = []

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            known = bool(asked[-1])
            self.send_response(404 if known else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer((address, 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def _installs(capsys: pytest.CaptureFixture[str]) -> bool:
    """Return whether a builder has reported that packages are being installed."""
    return "runtime image: packages" in capsys.readouterr().out


def _copy_base(engine: docker.DockerClient, other: Dockerd) -> None:
    with contextlib.closing(docker.DockerClient(other.url, timeout=120)) as client:
        (image,) = client.images.load(b"".join(engine.images.get(BASE).save(named=True)))
        image.tag(BASE)


def _provide(registry: Registry, home: Path) -> None:
    """The runtime of our own lock in the registry, made by the machine's engine."""
    _recipe(registry, home)[0].prepare()


@contextlib.contextmanager
def _disk(home: Path, size: str) -> Iterator[Path]:
    """A small disk, as a file."""
    disk, folder = home / "disk", home / "mounted"
    folder.mkdir()
    subprocess.run(["truncate", "--size", size, disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, folder], check=True)
    try:
        yield folder
    finally:
        # Lazily: the engine on it is ended after the test.
        subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(disk: Path, but: int) -> None:
    there = os.statvfs(disk)
    size = there.f_bavail * there.f_frsize - but
    subprocess.run(["fallocate", "--length", str(size), disk / "filler"], check=True)
