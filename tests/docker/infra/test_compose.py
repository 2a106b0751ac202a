"""Compose, as a person uses it: one command, then `belt push` from the host; and a second machine that serves."""

import json
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import nats
import pandas as pd
import pytest
import yaml

from contracts.subjects import WORKERS
from services.messaging import permissions
from tests.docker.stack import IMAGES, ONCE, ROOT, SERVICES, Stack
from tests.permitted import violations
from tests.waiting import until

pytestmark = pytest.mark.timeout(1500)
DIGITS = ROOT / "examples" / "digits" / "data" / "digits.parquet"
ROWS = pd.read_parquet(DIGITS).drop(columns="digit").head(20).to_dict(orient="records")
SCALED = [f"--scale={worker}={3 if worker == 'trainer' else 2}" for worker in WORKERS]
SOCKET = "/var/run/docker.sock"
BRIDGE = "172.17.0.1"


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images of all services, built from the checkout; and those that compose names."""
    subprocess.run([ROOT / "tests/docker/images.sh", "nats", "traefik", "prometheus", "docker"], check=True)
    Stack(tmp_path_factory.mktemp("build")).compose("build", "--quiet")
    return IMAGES


@pytest.fixture(scope="module")
def stack(images: str, engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole belt, with three trainers and two of each other worker."""
    gateway_of_bridge = engine.networks.get("bridge").attrs["IPAM"]["Config"][0].get("Gateway", BRIDGE)
    made = Stack(tmp_path_factory.mktemp("stack"), NATS_BIND=gateway_of_bridge)
    (made.data / "digits.parquet").write_bytes(DIGITS.read_bytes())
    try:
        made.up(*SCALED, *SERVICES)
        yield made
    finally:
        made.down(engine)
        left = _left(engine, made)
        assert left == [], left


@pytest.fixture(scope="module")
def pushed(stack: Stack) -> dict[str, Any]:
    """A first push of `digits`, deployed."""
    return stack.push("examples/digits")


# -- images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", WORKERS)
def test_every_app_imports_in_its_own_image(images: str, engine: docker.DockerClient, service: str) -> None:
    look = (
        f"import services.{service}.app, os, shutil, sys; "
        "assert os.getuid() == 1034, os.getuid(); "
        "tools = [tool for tool in ('cc', 'gcc', 'make') if shutil.which(tool)]; assert not tools, tools; "
        "import importlib.util as u; assert u.find_spec('pytest') is None or 'trainer' in sys.argv[1]"
    )
    engine.containers.run(f"{images}/{service}:latest", ["python", "-P", "-c", look, service], remove=True)


@pytest.mark.parametrize("service", WORKERS)
def test_an_image_tells_nothing_of_the_index_it_was_built_with(
    images: str, engine: docker.DockerClient, service: str
) -> None:
    image = engine.images.get(f"{images}/{service}:latest")
    told = json.dumps([image.attrs["Config"], image.history()]).lower()
    assert "index_url" not in told
    assert "://" not in told.replace("https://docs.docker.com", "")


# -- the stack -----------------------------------------------------------------------------------------------


def test_a_push_from_the_host_is_live(stack: Stack, pushed: dict[str, Any], engine: docker.DockerClient) -> None:
    version = pushed["version"]
    answer = stack.http.post("/digits/predict", json={"rows": ROWS})
    assert answer.status_code == 200
    assert answer.headers["X-Model-Version"] == stack.version("digits") == version
    predictions = answer.json()["predictions"]
    labels = [{"id": one["id"], "label": one["prediction"]} for one in predictions]
    assert stack.http.post("/digits/feedback", json={"labels": labels}).json() == {"accepted": len(labels)}
    traced = stack.belt("trace", predictions[0]["id"], "--json")
    assert f"127.0.0.1:{stack.ports['registry']}/digits@sha256:" in traced
    (container,) = stack.serving(engine)
    assert "@sha256:" in container.attrs["Config"]["Image"]


async def test_a_bare_path_is_a_file_of_the_data_folder(stack: Stack, pushed: dict[str, Any]) -> None:
    """And any NATS client is a client: this is all that an event needs."""
    bus = await nats.connect((stack.home / "nats.url").read_text().strip())
    await bus.publish("data.pushed", b'{"model": "digits", "dataset": "/data/digits.parquet"}')
    await bus.close()
    until(lambda: stack.version("digits") != pushed["version"], 120)
    stack.belt("rollback", "digits", "--reason", "a test")
    until(lambda: stack.version("digits") == pushed["version"])


def test_two_deployers_leave_each_others_servers_alone(stack: Stack, pushed: dict[str, Any]) -> None:
    until(lambda: stack.version("digits") == pushed["version"])
    told = stack.compose("logs", "--no-color", "deployer")
    assert told.count('"event": "started"') == 2
    assert told.count('"event": "live"') >= 1
    assert "starting again" not in told
    assert "unresponsive" not in told


def test_the_model_store_lists_every_approved_version(stack: Stack, pushed: dict[str, Any]) -> None:
    for replica in ("1", "2"):
        listed = stack.compose("exec", "--no-TTY", f"--index={replica}", "evaluator", "bentoml", "models", "list")
        assert f"digits:{pushed['version']}" in listed


def test_only_who_needs_the_engine_sees_it(stack: Stack, engine: docker.DockerClient) -> None:
    found = {one["Service"]: engine.containers.get(one["ID"]).attrs for one in stack.containers()}
    sockets = {name for name, one in found.items() if SOCKET in json.dumps(one["Mounts"])}
    assert sockets == {"builder", "deployer"}
    root = {name for name in WORKERS if found[name]["Config"]["User"] not in ("bentobelt", "1034")}
    assert root == {"builder", "deployer"}


def test_a_service_has_its_own_secret_and_no_other(stack: Stack, engine: docker.DockerClient) -> None:
    passwords = json.loads(stack.compose("exec", "--no-TTY", "nats", "cat", "/run/secrets/passwords.json"))
    assert set(permissions.users((stack.target,))) < set(passwords)
    for worker in WORKERS:
        readable = stack.compose("exec", "--no-TTY", worker, "sh", "-c", "cat /run/secrets/*; env")
        known = {user for user, password in passwords.items() if password in readable}
        own = {f"deployer-{stack.target}", "serving"} if worker == "deployer" else {worker}
        assert known == own, worker
    for one in stack.containers():
        told = json.dumps(engine.containers.get(one["ID"]).attrs)
        assert not [user for user, password in passwords.items() if password in told], one["Service"]


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    addresses = {port["URL"] for one in stack.containers() for port in one["Publishers"] or () if port["PublishedPort"]}
    # The bus is bound to Docker's bridge on purpose here, for the second machine.
    assert addresses <= {"127.0.0.1", BRIDGE}


def test_up_again_changes_nothing(stack: Stack, pushed: dict[str, Any]) -> None:
    before = {one["Name"]: one["ID"] for one in stack.containers() if one["Service"] not in ONCE}
    url = (stack.home / "nats.url").read_text()
    stack.up(*SCALED, *SERVICES)
    assert {one["Name"]: one["ID"] for one in stack.containers() if one["Service"] not in ONCE} == before
    assert (stack.home / "nats.url").read_text() == url
    assert (stack.home / "nats.url").stat().st_mode & 0o777 == 0o600


# -- what Prometheus sees --------------------------------------------------------------------------------------

QUIET = {"Answers that are no success, per second"}
"""Panels that may have nothing to show, after a loop in which nothing went wrong."""


def test_every_query_of_every_panel_is_answered(stack: Stack, pushed: dict[str, Any]) -> None:
    asked = []
    for file in (ROOT / "infra" / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            asked += [(panel["title"], target["expr"]) for target in panel["targets"]]
    stack.http.post("/digits/predict", json={"rows": ROWS})
    assert len(asked) > 25
    for title, query in asked:
        known = query.replace("$model", ".*").replace("$version", ".*")
        until(lambda known=known, title=title: _asked(stack, known) or title in QUIET, 60)  # type: ignore[misc]


def test_every_replica_is_scraped(stack: Stack, pushed: dict[str, Any]) -> None:
    replicas = sum(1 for one in stack.containers() if one["Service"] in WORKERS)
    until(lambda: _value(stack, 'sum(up{job="workers"})') == replicas, 60)
    until(lambda: _value(stack, 'sum(up{job="serving"})') >= 1, 60)


def _asked(stack: Stack, query: str) -> list[Any]:
    url = f"http://127.0.0.1:{stack.ports['prometheus']}/api/v1/query?query={urllib.parse.quote(query)}"
    answer = httpx.get(url).json()
    assert answer["status"] == "success", (query, answer)
    result: list[Any] = answer["data"]["result"]
    return result


def _value(stack: Stack, query: str) -> float:
    return sum(float(one["value"][1]) for one in _asked(stack, query))


# -- a second machine ------------------------------------------------------------------------------------------


def test_a_production_machine_serves_what_was_approved(
    stack: Stack, pushed: dict[str, Any], engine: docker.DockerClient, tmp_path: Path
) -> None:
    target = f"{stack.target}-elsewhere"
    stack.configure(TARGETS=f"{stack.target} {target}")
    stack.compose("up", "--detach", "first-run")
    until((stack.home / f"{target}.env").exists)
    stack.compose("kill", "--signal", "HUP", "nats")
    written = dict(line.split("=", 1) for line in (stack.home / f"{target}.env").read_text().splitlines())
    assert written.pop("TARGET") == target
    address = (stack.home / "nats.url").read_text().strip().rpartition("@")[2]
    settings = {name: value.replace("BUS_ADDRESS:4222", address) for name, value in written.items()}
    machine = Stack(tmp_path, "compose.vm.yaml", TARGET=target, **settings)
    try:
        machine.up()
        told = stack.push("examples/digits")
        until(lambda: _answers(machine) == told["version"], 120)
        assert machine.http.post("/digits/predict", json={"rows": ROWS}).status_code == 200
        live = {one["target"] for one in json.loads(stack.belt("deployments", "--json"))}
        assert {stack.target, target} <= live
    finally:
        machine.down(engine)
        assert _left(engine, machine) == []


def _answers(machine: Stack) -> str | None:
    answer = machine.http.get("/digits/info")
    return str(answer.json()["version"]) if answer.status_code == 200 else None


# -- and after all that ----------------------------------------------------------------------------------------


def test_nobody_asked_the_bus_for_what_is_not_theirs(stack: Stack, pushed: dict[str, Any]) -> None:
    assert violations(stack.compose("logs", "--no-color", "nats")) == []


def test_every_service_can_be_stopped_and_checked() -> None:
    for file in ("compose.yaml", "compose.vm.yaml"):
        for name, service in yaml.safe_load((ROOT / file).read_text())["services"].items():
            assert "stop_grace_period" in service, name
            assert "container_name" not in service, name
            # Workers bring theirs in their image.
            assert "healthcheck" in service or "build" in service, name


def _left(engine: docker.DockerClient, stack: Stack) -> list[str]:
    of_project = {"label": f"com.docker.compose.project={stack.name}"}
    found = [one.name for one in engine.containers.list(all=True, filters=of_project)]
    found += [one.name for one in stack.serving(engine)]
    found += [one.name for one in engine.volumes.list(filters=of_project)]
    return found + [one.name for one in engine.networks.list(filters=of_project)]
