"""The deployer's handlers with servers, gateway and registry in memory: order, rollback, kills between two effects."""

import asyncio
import contextlib
import functools
import itertools
import math
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.artifact_ref import BENTO, ArtifactRef
from contracts.events import DeploymentFailed, Event, ImagePushed, ModelDeployed, ModelSuperseded, RollbackRequested
from contracts.features import Probe
from contracts.profiles import Profile
from contracts.runtime import Environment
from contracts.verdicts import PerformanceTarget
from services.deployer.app import create_app
from services.deployer.backends.protocol import BackendAway, ExitReport, Server
from services.deployer.domain import PredictionsDiffer, rolled_back
from services.deployer.gateway import NotSwitched
from services.deployer.liveness import PASSES
from services.deployer.readiness import DidNotStart, Lost
from services.deployer.reconciler import CRASHES_REPORTED, Reconciler
from services.deployer.rollout import Rollout
from services.deployer.server_pool import ServerPool
from services.deployer.settings import Settings
from services.messaging.worker import Worker
from services.storage.registry import Deployed, Live
from tests.fakes import Delivered, MemoryInbox, MemoryRegistry, deliver

V1, V2, V3 = "1-aaaaaaaa", "2-bbbbbbbb", "3-cccccccc"


class Killed(BaseException):
    """The deployer process ends here."""


class FakeServers:
    """Servers that are records only; `away` is what runs them, for a while."""

    def __init__(self) -> None:
        self.records: list[Server] = []
        self.seen: list[Server] = []
        self.away = False
        self.dead: set[str] = set()
        self.checked: set[str] = set()
        self.others: set[str] = set()
        """Ids of what another replica of the deployer has just started."""
        self.started: list[str] = []
        self.ending_began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def refresh(self) -> None:
        self.answer()
        self.seen = list(self.records)

    def answer(self) -> None:
        if self.away:
            raise BackendAway("no engine answers")

    def all(self) -> list[Server]:
        return list(self.seen)

    def is_alive(self, server: Server) -> bool:
        return server in self.seen and server.id not in self.dead

    async def start(self, deployed: Deployed) -> Server:
        image, number = deployed.image, len(self.started) + 1
        server = Server(
            model=image.model, version=image.version, image=image.image, id=str(number),
            url=f"http://127.0.0.1:{9000 + number}", since=float(number),
        )  # fmt: skip
        self.answer()
        self.records.append(server)
        self.started.append(image.version)
        await self.refresh()
        return server

    async def stop(self, server: Server) -> None:
        self.ending_began.set()
        await self.may_end.wait()
        self.answer()
        self.records.remove(server)
        await self.refresh()

    async def mark_checked(self, server: Server) -> None:
        self.checked.add(server.id)

    def is_checked(self, server: Server) -> bool:
        return server.id in self.checked

    def owned_by_other_replica(self, server: Server) -> bool:
        return server.id in self.others

    async def exit_report(self, server: Server) -> ExitReport:
        return ExitReport("its last words")

    @property
    def running(self) -> set[str]:
        return {server.version for server in self.records if server.id not in self.dead}


class FakeChecks:
    """Every server is ready and right, but for the versions in `broken`."""

    def __init__(self, servers: FakeServers) -> None:
        self._servers = servers
        self.broken: dict[str, list[BaseException]] = {}
        self.late: set[str] = set()
        """Versions that answer only once somebody has waited until they are ready."""
        self.failing: dict[str, float] = {}
        """Id of a server → number of requests that will fail."""

    async def ready(self, server: Server) -> None:
        self.late.discard(server.version)
        if errors := self.broken.get(server.version):
            raise errors.pop(0)

    async def answers(self, server: Server) -> bool:
        self.failing[server.id] = self.failing.get(server.id, 0) - 1
        return self._servers.is_alive(server) and server.version not in self.late and self.failing[server.id] < 0

    async def predictions(self, server: Server, probe: Probe) -> None:
        return None


class FakeGateway:
    """Routes in a dict; `away` lets waiting fail."""

    def __init__(self) -> None:
        self.routes: dict[str, str] = {}
        self.away: list[BaseException] = []

    def url(self, model: str) -> str:
        return f"http://gateway/{model}"

    def address(self, model: str) -> str | None:
        return self.routes.get(model)

    def route(self, model: str, address: str | None) -> None:
        self.routes.pop(model, None)
        if address is not None:
            self.routes[model] = address

    async def wait_for(self, model: str, version: str) -> None:
        if self.away:
            raise self.away.pop(0)


class FakeLeases:
    """Nobody else is there. `at_switch` is what happens just before a switch."""

    def __init__(self) -> None:
        self.at_switch: list[BaseException] = []

    @contextlib.asynccontextmanager
    async def hold(self, name: str, wait: float = 0.0) -> AsyncIterator[None]:
        if self.at_switch:
            raise self.at_switch.pop(0)
        yield


class World:
    """State that survives a deployer, and a deployer that can be started anew."""

    def __init__(self, home: Path) -> None:
        self.registry, self.servers, self.gateway = MemoryRegistry(), FakeServers(), FakeGateway()
        self.leases, self.checks, self.home = FakeLeases(), FakeChecks(self.servers), home
        self.reported: dict[str, DeploymentFailed] = {}
        self.now = 0.0
        self.restart()

    def restart(self) -> None:
        self.servers.seen = []
        settings = Settings(home=self.home)
        failed = functools.partial(DeploymentFailed, target=settings.target)
        self.worker = Worker("deployer", settings, failed=failed, consumer="deployer-local", inbox=MemoryInbox())
        self.pool = ServerPool("local", self.registry, self.servers, self.checks, self.gateway)
        self.rollout = Rollout("local", self.registry, self.leases, self.pool, self.gateway)
        self.reconciler = Reconciler(
            "local", self.registry, self.rollout, self.pool, self.servers, self.gateway, self.report, 0.01,
            lambda: self.now,
        )  # fmt: skip
        create_app(self.worker, self.registry, self.rollout, "local")  # type: ignore[arg-type]

    async def report(self, event: DeploymentFailed, id: str) -> None:
        assert id not in self.reported
        self.reported[id] = event

    async def push(self, version: str, order: int | None = None) -> Delivered:
        generation = order or int(version.split("-")[0])
        return await deliver(
            self.worker, image(version), ce_id=f"{version}/{generation}", ce_correlationid=f"run{version}",
            ce_generation=str(generation),
        )  # fmt: skip

    async def back(self, order: int, to: str | None = None, asked: datetime | None = None) -> Delivered:
        event = RollbackRequested(model="digits", to=to, by="ada", reason="worse")
        time = (asked or datetime.now(UTC)).isoformat()
        return await deliver(self.worker, event, ce_id=f"back{order}/{to}", ce_generation=str(order), ce_time=time)

    async def reconcile(self) -> None:
        await self.reconciler.start_pass()
        await self.reconciler.finish_pass()

    @property
    def live(self) -> str:
        return self.registry.all_live["digits", "local"].version

    @property
    def routed(self) -> str:
        return next(s.version for s in self.servers.records if s.url == self.gateway.routes["digits"])


def image(version: str) -> ImagePushed:
    ref = ArtifactRef(uri=f"memory://{version}", sha256="0" * 64, size=1, media_type=BENTO)
    return ImagePushed(
        model="digits", version=version, tag=f"digits:{version}", image=f"bento+{ref.uri}", artifact=ref, size=1,
        environment=Environment(python="3.11.7", lock="0" * 64), probe=Probe(rows=(), predictions=()),
        profile=Profile(rows=0, columns=(), prediction={"name": "p", "counts": ()}),  # type: ignore[arg-type]
        promise=PerformanceTarget(metric="accuracy", value=0.9),
    )  # fmt: skip


def live_on(target: str, version: str, order: int, retired: tuple[str, ...] = ()) -> Live:
    return Live(
        model="digits", version=version, image="i", url="u", target=target, order=order, run="r", since=0.0,
        retired=retired,
    )  # fmt: skip


async def rolled_back_elsewhere(world: World) -> Live:
    """On target `other` all three were live, and V3 was rolled back from at 40."""
    for number, version in enumerate((V1, V2, V3), start=1):
        await world.registry.put_image(Deployed(image=image(version), run=f"run{version}", generation=number), "other")
    live = live_on("other", V2, 40, retired=(V3,))
    await world.registry.put_live(live, None)
    return live


def failures(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, DeploymentFailed)]


@pytest.fixture
def world(home: Path) -> World:
    return World(home)


async def test_a_pushed_image_goes_live(world: World) -> None:
    (event,) = await world.push(V1)
    assert isinstance(event, ModelDeployed)
    assert (event.version, event.previous, event.reason, event.url) == (V1, None, "release", "http://gateway/digits")
    assert world.live == world.routed == V1


async def test_the_version_before_stays_warm_and_the_one_before_that_ends(world: World) -> None:
    for version in (V1, V2, V3):
        (event,) = await world.push(version)
    assert isinstance(event, ModelDeployed)
    assert event.previous == V2
    await world.reconcile()
    assert world.servers.running == {V2, V3}
    assert world.routed == V3


async def test_an_older_version_never_replaces_a_newer_one(world: World) -> None:
    await world.push(V2)
    (event,) = await world.push(V1)
    assert event == ModelSuperseded(model="digits", version=V1, by=V2)
    assert world.servers.started == [V2]


async def test_a_version_superseded_while_it_started_is_ended_again(world: World) -> None:
    checked = world.pool.checked

    async def overtaken(deployed: Deployed) -> Server:
        server = await checked(deployed)
        if deployed.image.version == V1:
            await world.rollout.roll_out(Deployed(image=image(V2), run="r", generation=2), 2)
        return server

    world.pool.checked = overtaken  # type: ignore[method-assign]
    (event,) = await world.push(V1)
    assert event == ModelSuperseded(model="digits", version=V1, by=V2)
    await world.reconcile()
    assert world.servers.running == {V2}
    assert world.routed == V2


async def test_a_rollback_takes_the_warm_version(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    answer = await world.back(10)
    (event,) = answer
    assert isinstance(event, ModelDeployed)
    assert (event.version, event.reason, event.previous) == (V1, "rollback", None)
    assert (answer.headers[0]["ce-correlationid"], answer.headers[0]["ce-generation"]) == (f"run{V1}", "10")
    assert world.servers.started == [V1, V2]
    await world.reconcile()
    assert world.servers.running == {V1}


async def test_a_rollback_to_an_ended_version_starts_it_again(world: World) -> None:
    for version in (V1, V2, V3):
        await world.push(version)
    await world.reconcile()
    (event,) = await world.back(10, to=V1)
    assert isinstance(event, ModelDeployed)
    assert world.servers.started == [V1, V2, V3, V1]
    await world.reconcile()
    assert world.servers.running == {V1}


async def test_a_rollback_to_a_version_that_is_just_being_ended_starts_it_again(world: World) -> None:
    for version in (V1, V2, V3):
        await world.push(version)
    world.servers.may_end.clear()
    await world.reconciler.start_pass()
    await world.servers.ending_began.wait()
    (event,) = await world.back(10, to=V1)
    world.servers.may_end.set()
    await world.reconciler.finish_pass()
    assert isinstance(event, ModelDeployed)
    assert world.servers.started == [V1, V2, V3, V1]
    assert world.routed == V1


async def test_a_rollback_beats_what_was_under_way(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    await world.back(10)
    (event,) = await world.push(V3)
    assert event == ModelSuperseded(model="digits", version=V3, by=V1)
    (later,) = await world.push("11-dddddddd")
    assert isinstance(later, ModelDeployed)
    assert later.previous == V1


async def test_an_impossible_rollback_says_so_and_changes_nothing(world: World) -> None:
    await world.push(V1)
    (event,) = await world.back(10)
    assert isinstance(event, DeploymentFailed)
    assert V1 in event.message
    assert event.error == "CannotRollBack"
    assert world.routed == V1


@pytest.mark.parametrize("error", [DidNotStart("boom, end of log"), PredictionsDiffer("3, not 4")])
async def test_a_bad_version_fails_and_the_live_one_goes_on(world: World, error: Exception) -> None:
    await world.push(V1)
    world.checks.broken[V2] = [error]
    (event,) = await world.push(V2)
    assert isinstance(event, DeploymentFailed)
    assert (event.version, event.message, event.target) == (V2, str(error), "local")
    assert world.servers.running == {V1}
    assert world.live == world.routed == V1
    assert [d.image.version for d in await world.registry.images("digits")] == [V1]


async def test_a_version_killed_at_its_start_is_started_once_more(world: World) -> None:
    world.checks.broken[V1] = [Lost("signal 9")]
    (event,) = await world.push(V1)
    assert isinstance(event, ModelDeployed)
    world.checks.broken[V2] = [Lost("signal 9"), Lost("signal 9")]
    (event,) = await world.push(V2)
    assert isinstance(event, DeploymentFailed)
    assert world.servers.running == {V1}


@pytest.mark.parametrize("moment", ["before the record", "before the route answered", "before the event"])
async def test_killed_between_two_effects_the_redelivery_completes_it(world: World, moment: str) -> None:
    await world.push(V1)
    if moment == "before the record":
        world.leases.at_switch = [Killed()]
    elif moment == "before the route answered":
        world.gateway.away = [Killed()]
    deployed = Deployed(image=image(V2), run="r", generation=2)
    with contextlib.suppress(Killed):
        await world.rollout.roll_out(deployed, 2)
    world.restart()
    (event,) = await world.push(V2)
    assert isinstance(event, ModelDeployed)
    assert (event.version, event.previous) == (V2, V1)
    assert world.servers.started == [V1, V2]
    assert world.live == world.routed == V2
    assert world.servers.running == {V1, V2}


async def test_killed_after_the_record_the_watch_moves_the_route(world: World) -> None:
    await world.push(V1)
    old = world.gateway.routes["digits"]
    world.gateway.away = [Killed()]
    with contextlib.suppress(Killed):
        await world.rollout.roll_out(Deployed(image=image(V2), run="r", generation=2), 2)
    world.gateway.routes["digits"] = old
    world.restart()
    await world.reconcile()
    assert world.routed == world.live == V2


async def test_the_same_message_again_changes_nothing(world: World) -> None:
    (first,) = await world.push(V1)
    world.restart()
    (again,) = await world.push(V1)
    assert first == again
    assert world.servers.started == [V1]


async def test_a_rollback_delivered_again_does_not_go_back_twice(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    (first,) = await world.back(10)
    world.restart()
    (again,) = await world.back(10)
    assert first == again
    assert world.routed == V1


async def test_a_gateway_that_is_away_is_waited_for(world: World) -> None:
    world.gateway.away = [NotSwitched("nothing")] * 20  # more than the attempts that a message has
    (event,) = await world.push(V1)
    assert isinstance(event, ModelDeployed)
    assert world.servers.started == [V1]


async def test_while_the_gateway_is_away_another_version_can_be_chosen(world: World) -> None:
    await world.push(V1)
    wait_for = world.gateway.wait_for

    async def away(model: str, version: str) -> None:
        if version == V2:
            await world.rollout.roll_out(Deployed(image=image(V1), run="r", generation=1), 10, rolled_back)
            raise NotSwitched("still the one before")
        await wait_for(model, version)

    world.gateway.wait_for = away  # type: ignore[method-assign]
    (event,) = await world.push(V2)
    assert event == ModelSuperseded(model="digits", version=V2, by=V1)
    assert world.live == world.routed == V1


async def test_a_server_that_dies_while_the_gateway_is_away_is_started_again(world: World) -> None:
    world.gateway.away = [NotSwitched("nothing")]
    wait_for = world.gateway.wait_for

    async def dying(model: str, version: str) -> None:
        if world.gateway.away:
            world.servers.dead.add("1")
        await wait_for(model, version)

    world.gateway.wait_for = dying  # type: ignore[method-assign]
    (event,) = await world.push(V1)
    assert isinstance(event, ModelDeployed)
    assert world.gateway.routes["digits"] == "http://127.0.0.1:9002"


async def test_a_live_server_that_died_is_started_again_and_routed(world: World) -> None:
    await world.push(V1)
    world.servers.dead.add("1")
    await world.reconcile()
    assert world.servers.started == [V1, V1]
    assert world.gateway.routes["digits"] == "http://127.0.0.1:9002"
    assert [server.id for server in world.servers.records] == ["2"]


async def test_a_restarted_deployer_adopts_what_runs(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    world.restart()
    await world.reconcile()
    assert world.servers.started == [V1, V2]
    assert world.routed == V2


async def test_after_a_cold_start_live_and_previous_come_back(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    world.servers.records.clear()
    world.restart()
    await world.reconcile()
    assert world.servers.started[2:] == [V2, V1]
    assert world.servers.running == {V1, V2}
    assert world.routed == V2


async def test_leftovers_of_a_dead_deployer_are_ended(world: World) -> None:
    await world.push(V1)
    await world.servers.start(Deployed(image=image(V3), run="r", generation=3))
    world.restart()
    await world.reconcile()
    assert world.servers.running == {V1}


async def test_what_another_replica_is_starting_is_left_to_it(world: World) -> None:
    await world.push(V1)
    theirs = await world.servers.start(Deployed(image=image(V3), run="r", generation=3))
    world.servers.others = {theirs.id}
    await world.reconcile()
    assert world.servers.running == {V1, V3}
    world.servers.others = set()  # it took too long
    await world.reconcile()
    assert world.servers.running == {V1}


async def test_what_another_replica_starts_again_is_not_started_here_too(world: World) -> None:
    await world.push(V1)
    world.servers.dead = {server.id for server in world.servers.records}
    theirs = await world.servers.start(Deployed(image=image(V1), run="r", generation=1))
    world.servers.others = {theirs.id}
    await world.reconcile()
    assert world.servers.started == [V1, V1]
    world.servers.checked.add(theirs.id)
    await world.reconcile()
    assert (world.servers.started, world.routed) == ([V1, V1], V1)


async def test_a_new_target_takes_what_leads_elsewhere_and_none_of_those_before(world: World) -> None:
    await world.registry.put_live(live_on("other", V2, 2), None)
    (event,) = await world.push(V1)
    assert event == ModelSuperseded(model="digits", version=V1, by=V2)
    (event,) = await world.push(V2)
    assert isinstance(event, ModelDeployed)
    assert world.servers.started == [V2]


async def test_a_new_target_never_takes_what_was_rolled_back_elsewhere(world: World) -> None:
    await world.registry.put_live(live_on("old", V1, 1), None)
    await world.registry.put_live(live_on("other", V2, 40, retired=(V3,)), None)
    assert await world.back(20, to=V1) == []
    assert await world.back(40) == []
    events = [event for version in (V1, V2, V3) for event in await world.push(version)]
    assert [type(event) for event in events] == [ModelSuperseded, ModelDeployed, ModelSuperseded]
    assert await world.back(20, to=V1) == []
    assert not [event for event in await world.back(40) if isinstance(event, DeploymentFailed)]
    assert world.servers.started == [V2]
    assert world.live == world.routed == V2
    (later,) = await world.push("50-dddddddd")
    assert isinstance(later, ModelDeployed)
    assert later.previous == V2


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("versions", list(itertools.permutations((V1, V2, V3))))
@pytest.mark.parametrize("to", [None, V2])
async def test_however_the_past_arrives_and_comes_again_a_new_target_starts_what_leads_once(
    world: World, versions: tuple[str, ...], position: int, to: str | None
) -> None:
    await rolled_back_elsewhere(world)
    for _ in range(2):  # the second time is a replay: nothing of what was handled is remembered
        for number in range(4):
            if number == position:
                assert not failures(await world.back(20, to=V1) + await world.back(40, to=to))
            if number < 3:
                assert not failures(await world.push(versions[number]))
        assert world.live == world.routed == V2
        world.restart()
    assert world.servers.started == [V2]
    assert world.registry.all_live["digits", "local"].order == 40
    assert not failures(await world.back(30))
    assert world.live == V2


async def test_a_rollback_elsewhere_brings_what_the_stream_has_no_image_of_any_more(world: World) -> None:
    await rolled_back_elsewhere(world)
    (event,) = await world.back(40)
    assert isinstance(event, ModelDeployed)
    assert (event.version, event.reason, event.target) == (V2, "rollback", "local")
    world.restart()
    assert await world.back(40) == [event]
    assert await world.push(V3) == [ModelSuperseded(model="digits", version=V3, by=V2)]
    assert world.servers.started == [V2]


async def test_a_rollback_elsewhere_to_what_was_passed_over_here_is_followed(world: World) -> None:
    before = await rolled_back_elsewhere(world)
    await world.push(V1)
    await world.registry.put_live(live_on("other", V1, 60, retired=(V3, V2)), before)
    assert await world.push(V2) == [ModelSuperseded(model="digits", version=V2, by=V1)]
    assert not failures(await world.back(40) + await world.back(60))
    assert world.servers.started == [V1]
    assert world.live == world.routed == V1


async def test_what_is_rolled_back_elsewhere_while_it_starts_here_does_not_go_live(world: World) -> None:
    before = await rolled_back_elsewhere(world)
    checked, begun, go_on = world.pool.checked, asyncio.Event(), asyncio.Event()

    async def slow(deployed: Deployed) -> Server:
        server = await checked(deployed)
        begun.set()
        await go_on.wait()
        return server

    world.pool.checked = slow  # type: ignore[method-assign]
    first = asyncio.create_task(world.push(V2))
    await begun.wait()
    world.restart()  # the rollback has a consumer of its own, and any replica may get it
    await world.registry.put_live(live_on("other", V1, 60, retired=(V3, V2)), before)
    (event,) = await world.back(60)
    go_on.set()
    assert isinstance(event, ModelDeployed)
    assert await first == [ModelSuperseded(model="digits", version=V2, by=V1)]
    assert world.live == world.routed == V1


async def test_a_rollback_from_before_the_first_version_here_is_no_failure(world: World) -> None:
    asked = datetime.now(UTC)
    await world.push(V3)
    assert await world.back(10, asked=asked) == []
    (event,) = await world.back(11)
    assert isinstance(event, DeploymentFailed)


async def test_a_target_that_serves_takes_every_version(world: World) -> None:
    await world.push(V1)
    await world.registry.put_live(live_on("other", V3, 3), None)
    (event,) = await world.push(V2)
    assert isinstance(event, ModelDeployed)


async def test_nothing_is_sent_to_where_a_dead_server_was(world: World) -> None:
    await world.push(V1)
    world.servers.records.clear()
    world.checks.broken[V1] = [DidNotStart("boom")]
    world.restart()
    await world.reconcile()
    assert world.gateway.routes == {}
    await world.reconcile()
    assert world.routed == V1


async def test_a_live_version_that_crashes_again_and_again_is_told_once(world: World) -> None:
    await world.push(V1)
    for _ in range(9):
        world.servers.dead.update(server.id for server in world.servers.records)
        await world.reconcile()
        world.now += 31.0
    (failed,) = world.reported.values()
    assert (failed.version, failed.target, failed.error, failed.attempts) == (V1, "local", "CrashLoop", 5)
    assert "its last words" in failed.message
    await world.push(V2)
    for _ in range(5):
        world.servers.dead.update(server.id for server in world.servers.records)
        await world.reconcile()
        world.now += 31.0
    assert [failed.version for failed in world.reported.values()] == [V1, V2]


async def test_a_version_that_dies_now_and_then_is_not_told(world: World) -> None:
    await world.push(V1)
    for _ in range(9):
        world.servers.dead.update(server.id for server in world.servers.records)
        await world.reconcile()
        world.now += 200.0
    assert world.reported == {}


async def test_a_crash_loop_backs_off(world: World) -> None:
    await world.push(V1)
    for _ in range(5):
        world.servers.dead.update(server.id for server in world.servers.records)
        await world.reconcile()
    assert len(world.servers.started) == 3


async def test_a_version_that_does_not_come_up_again_does_not_end_the_watch(world: World) -> None:
    await world.push(V1)
    world.servers.dead.add("1")
    world.checks.broken[V1] = [DidNotStart("boom")]
    await world.reconcile()
    assert world.servers.running == set()
    await world.reconcile()
    assert world.servers.running == {V1}
    assert world.routed == V1


async def test_a_server_nobody_checked_gets_no_traffic(world: World) -> None:
    await world.servers.start(Deployed(image=image(V1), run="r", generation=1))
    (event,) = await world.push(V1)
    assert isinstance(event, ModelDeployed)
    assert [server.id for server in world.servers.records] == ["2"]


async def test_nothing_is_ended_before_the_gateway_has_followed(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    wait_for = world.gateway.wait_for

    async def slow(model: str, version: str) -> None:
        # Recorded and routed, but not seen to have arrived: the version before may still get requests.
        world.gateway.wait_for = wait_for  # type: ignore[method-assign]
        world.gateway.away = [NotSwitched("slow")]
        await world.reconcile()
        assert world.servers.running == {V1, V2}
        raise NotSwitched("slow")

    world.gateway.wait_for = slow  # type: ignore[method-assign]
    (event,) = await world.back(10)
    assert isinstance(event, ModelDeployed)
    await world.reconcile()
    assert world.servers.running == {V1}
    assert world.routed == V1


async def test_while_nobody_says_what_runs_what_is_live_stays_routed(world: World) -> None:
    await world.push(V1)
    route = world.gateway.routes["digits"]
    world.servers.away = True
    await world.reconcile()
    world.restart()
    await world.reconcile()
    assert world.gateway.routes["digits"] == route
    world.servers.away = False
    await world.reconcile()
    assert world.gateway.routes["digits"] == route
    assert world.servers.started == [V1]


async def test_an_engine_that_is_away_in_the_middle_of_a_rollout_is_tried_again(world: World) -> None:
    await world.push(V1)
    world.servers.away = True
    with pytest.raises(BackendAway):
        await world.rollout.roll_out(Deployed(image=image(V2), run="r", generation=2), 2)
    world.servers.away = False
    assert world.live == world.routed == V1
    (event,) = await world.push(V2)
    assert isinstance(event, ModelDeployed)
    assert world.servers.running == {V1, V2}


async def test_after_a_restart_a_rollback_uses_what_runs_before_the_watch_has_looked(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    world.restart()
    (event,) = await world.back(10)
    assert isinstance(event, ModelDeployed)
    assert world.servers.started == [V1, V2]


async def test_a_server_that_is_slow_to_answer_is_not_replaced(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    world.restart()
    world.checks.failing = {"1": 2, "2": 2}
    await world.reconcile()
    world.checks.failing = {"1": 2}
    (event,) = await world.back(10)
    assert isinstance(event, ModelDeployed)
    assert world.servers.started == [V1, V2]
    assert world.gateway.routes["digits"] == "http://127.0.0.1:9001"


async def test_a_warm_version_that_hangs_is_ended_after_another_has_taken_its_place(world: World) -> None:
    await world.push(V1)
    await world.push(V2)
    world.checks.failing = {"1": math.inf}
    (event,) = await world.back(10)
    assert isinstance(event, ModelDeployed)
    assert world.servers.started == [V1, V2, V1]
    assert world.gateway.routes["digits"] == "http://127.0.0.1:9003"
    assert [server.id for server in world.servers.records] == ["1", "2", "3"]
    await world.reconcile()
    assert [server.id for server in world.servers.records] == ["3"]


async def test_a_live_server_that_hangs_is_replaced(world: World) -> None:
    await world.push(V1)
    world.checks.failing = {"1": math.inf}
    for _ in range(PASSES):
        await world.reconcile()
    assert world.servers.started == [V1]
    await world.reconcile()
    assert world.gateway.routes["digits"] == "http://127.0.0.1:9002"
    assert [server.id for server in world.servers.records] == ["2"]


async def test_a_live_server_that_hangs_stays_until_there_is_another_and_may_recover(world: World) -> None:
    await world.push(V1)
    world.restart()
    world.checks.failing = {"1": math.inf}
    world.checks.broken[V1] = [DidNotStart("no memory")]
    await world.reconcile()
    assert world.servers.started == [V1, V1]
    assert world.routed == V1
    assert [server.id for server in world.servers.records] == ["1"]
    world.checks.failing.clear()
    for _ in range(3):
        await world.reconcile()
    assert world.servers.started == [V1, V1]
    assert [server.id for server in world.servers.records] == ["1"]


async def test_what_its_engine_starts_again_and_again_is_told_too(world: World) -> None:
    await world.push(V1)
    for _ in range(9):
        (server,) = world.servers.records
        world.servers.records = [server.model_copy(update={"since": server.since + 1})]
        await world.reconcile()
        world.now += 31.0
    (failed,) = world.reported.values()
    assert (failed.version, failed.error, failed.attempts) == (V1, "CrashLoop", 5)
    assert world.servers.started == [V1]
    assert world.routed == V1


async def test_what_its_engine_starts_again_before_it_was_looked_at_counts(world: World) -> None:
    await world.push(V1)
    for _ in range(CRASHES_REPORTED):
        (server,) = world.servers.records
        world.servers.records = [server.model_copy(update={"since": server.since + 1})]
        await world.reconcile()
        world.now += 1.0
    (failed,) = world.reported.values()
    assert failed.attempts == CRASHES_REPORTED


async def test_a_server_its_engine_has_just_started_again_is_waited_for(world: World) -> None:
    await world.push(V1)
    (server,) = world.servers.records
    world.servers.records = [server.model_copy(update={"since": time.time()})]
    world.checks.late.add(V1)
    await world.reconcile()
    assert world.servers.started == [V1]
    assert V1 not in world.checks.late
