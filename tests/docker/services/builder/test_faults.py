"""What fails around an image, on real engines: each ends in a retry that succeeds, or says what to do."""

import asyncio
import base64
import contextlib
import dataclasses
import http.server
import json
import os
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
from services.builder import layers
from services.builder.app import create_app
from services.builder.layered import RUNTIME, SCRIPT, UV, Layered, Runtime
from services.builder.scratch import SCRATCH
from services.builder.settings import Settings
from services.docker_engine.client import Engine, Making
from services.docker_engine.errors import DockerRefused, DockerTrouble, RegistryAway
from services.messaging.worker import Worker
from services.sandbox.environments import BASE_LOCK
from tests.docker.conftest import Dockerd
from tests.docker.makers import Maker
from tests.docker.registries import PASSWORD, USER, Registry
from tests.fakes import MemoryInbox, deliver
from tests.waiting import eventually, until

BASE = "python:3.11-slim"


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
        """What it says; None when it wants to try again later."""
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
        Engine(registry.address, None, 60).need("127.0.0.1:1/base:3.11")


async def test_an_engine_that_dies_in_mid_build_builds_later(
    empty_registry: Registry,
    home: Path,
    engine: docker.DockerClient,
    engine_of_its_own: Callable[[Path], Dockerd],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with builder(home, empty_registry) as it:
        other = engine_of_its_own(home / "docker")
        await asyncio.to_thread(_copy_base, engine, other)
        with monkeypatch.context() as there:
            there.setenv("DOCKER_HOST", other.url)
            building = asyncio.create_task(it.deliver())
            await eventually(lambda: _builds(other))
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
            assert "The disk is full: make room" in " ".join(capsys.readouterr().out.split())
            await asyncio.to_thread(_provide, empty_registry, home)
            (disk / "filler").unlink()
            monkeypatch.setenv("DOCKER_HOST", other.url)
            assert isinstance(await it.deliver(), ImagePushed)


def test_a_builder_that_is_stopped_in_mid_making_leaves_nothing(
    registry: Registry, home: Path, engine: docker.DockerClient
) -> None:
    asked = Engine(registry.address, None, 120)
    runtime = Runtime(_only("six"), BASE, f"# {uuid.uuid4()}")

    def left() -> list[str]:
        containers = engine.api.containers(all=True, filters={"name": SCRATCH})
        images = engine.api.images(f"{registry.address}/bentobelt-runtime")
        names = [tag for image in images for tag in image["RepoTags"] if runtime.key in tag]
        return [*names, *(one["Names"][0] for one in containers), *_volumes(engine)]

    with ThreadPoolExecutor() as pool:
        making = pool.submit(Layered(asked, BASE, home).provide, runtime)
        until(lambda: len(left()) >= 3)
        asked.close()
        with pytest.raises((DockerTrouble, DockerRefused)):
            making.result()
    until(lambda: left() == [])


def test_a_part_that_is_not_said_to_be_made_is_missed(registry: Registry, engine: docker.DockerClient) -> None:
    """An image that lacks what its name stands for would be everyone's."""
    asked, name = Engine(registry.address, None, 120), f"{registry.address}/missed"
    asked.name(BASE, f"{name}:begun")
    made: list[str] = []
    command = ["sh", "-c", "echo made one; echo made two >&2; echo made three"]
    making = Making("/opt/serving", command, layers.files({"build/x": b""}), ["true"], "USER 1", {})
    names = {part: f"{name}:{part}" for part in ("one", "two", "three")}
    with pytest.raises(DockerTrouble, match="three is made before what is below it"):
        asked.extend(f"{name}:begun", making, names, made.append)
    making = dataclasses.replace(making, make=["sh", "-c", "echo made one; echo made two"], files=layers.files({}))
    with pytest.raises(DockerTrouble, match="three were not made"):
        asked.extend(f"{name}:begun", making, names, made.append)
    assert made == [f"{name}:one", f"{name}:one", f"{name}:two"]
    asked.clear()
    until(lambda: not engine.api.images(name) and not _volumes(engine))


def _volumes(engine: docker.DockerClient) -> list[str]:
    return [volume["Name"] for volume in engine.api.volumes(filters={"name": SCRATCH})["Volumes"] or ()]


@pytest.mark.parametrize("uv", [UV, SCRIPT], ids=["the builder's uv", "one that does not run there"])
async def test_where_packages_come_from_stays_in_the_build(
    registry: Registry, home: Path, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, uv: Path
) -> None:
    """A password in an index's address reaches the index, and nothing that is kept."""
    gateway = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with _index(gateway) as (port, asked):
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://belt:hunter2@{gateway}:{port}/simple")
        layered = Layered(Engine(registry.address, None, 120), BASE, home)
        image = layered.provide(Runtime(_only("six"), BASE, f"# {uuid.uuid4()}", uv))  # one that no engine has yet
    assert base64.b64encode(b"belt:hunter2").decode() in " ".join(asked), "the index was not asked"
    told = json.dumps(engine.api.history(image)) + json.dumps(engine.api.inspect_image(image))
    assert "hunter2" not in told
    assert not any(b"hunter2" in chunk for chunk in engine.images.get(image).save())
    until(lambda: not _volumes(engine))
    bill = json.loads(layered.bill(image, {RUNTIME: "x"}))
    assert [one["purl"].split("@")[0] for one in bill["components"]] == ["pkg:pypi/six"]
    engine.images.remove(image)


def _only(package: str) -> bytes:
    """One package of the lock."""
    found = re.search(rf"^{package}==.*?(?=^[a-z])", BASE_LOCK.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return "\n".join(line for line in found[0].splitlines() if not line.strip().startswith("#")).encode() + b"\n"


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


def _copy_base(engine: docker.DockerClient, other: Dockerd) -> None:
    with contextlib.closing(docker.DockerClient(other.url, timeout=120)) as client:
        (image,) = client.images.load(b"".join(engine.images.get(BASE).save(named=True)))
        image.tag(BASE)


def _provide(registry: Registry, home: Path) -> None:
    """The runtime of our own lock in the registry, made by the machine's engine."""
    Layered(Engine(registry.address, None, 300), BASE, home).provide(Runtime(BASE_LOCK.read_bytes(), BASE, ""))


async def _builds(other: Dockerd) -> bool:
    def running() -> bool:
        with contextlib.closing(docker.DockerClient(other.url, timeout=30)) as client:
            return any(
                "pip" in container.attrs["Path"] + str(container.attrs["Args"])
                for container in client.containers.list()
            )

    return await asyncio.to_thread(running)


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
