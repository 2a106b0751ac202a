"""Wiring of the deployer: read, roll out, say what became of it."""

import asyncio
import functools

from nats.aio.msg import Msg

from contracts.cloudevents import Envelope
from contracts.events import DeploymentFailed, ImagePushed, ModelSuperseded, RollbackRequested
from services.deployer.backends.processes import ProcessBackend
from services.deployer.backends.protocol import ServerBackend
from services.deployer.domain import (
    already_applied,
    cannot_roll_back,
    leading,
    outcome,
    predates_target,
    rollback_target,
    superseded_elsewhere,
)
from services.deployer.gateway import Traefik
from services.deployer.readiness import HttpChecks
from services.deployer.reconciler import Reconciler
from services.deployer.rollout import Rollout
from services.deployer.settings import Settings
from services.messaging import Leases, from_environment
from services.messaging.worker import Emit, Worker, log
from services.sandbox import Environments
from services.storage import Deployed, Registry, open_artifact_store

# What may end in a rollout a few seconds later. Missing one costs time, nothing else, so no durable is kept for them.
COMING = ("data.pushed", "drift.detected")
STANDBY_SECONDS = 120.0
"""A server on standby that nothing came for is ended after this time: it holds memory."""


def create_app(worker: Worker, registry: Registry, rollout: Rollout, target: str) -> None:
    """Subscribe the deployer's two handlers."""

    @worker.on(ImagePushed)
    async def release(event: ImagePushed, about: Envelope) -> list[Emit]:
        order = about.generation
        if await registry.live(event.model, target) is None:
            leader = leading(event.model, await registry.lives())
            if instead := superseded_elsewhere(event.version, order, leader):
                return [Emit(ModelSuperseded(model=event.model, version=event.version, by=instead))]
            # With the order it has there: the stream still has to come to what it was decided against.
            order = max(order, leader.order if leader else 0)
        deployed = Deployed(image=event, run=about.run, generation=about.generation)
        live = await rollout.release(deployed, order)
        return [Emit(outcome(deployed, live, "release"))]

    @worker.on(RollbackRequested)
    async def roll_back(event: RollbackRequested, about: Envelope) -> list[Emit]:
        live = await registry.live(event.model, target)
        version = rollback_target(live, event.to, about.generation)
        deployed = await registry.image(event.model, version, target) if version else None
        if deployed is None:
            leader = leading(event.model, await registry.lives())
            if not predates_target(live, leader, about.generation, about.time.timestamp()):
                there_are = [deployed.image.version for deployed in await registry.images(event.model, target)]
                raise cannot_roll_back(event.model, live, event.to, there_are)
            if there := already_applied(leader, about.generation):
                deployed = await registry.image(event.model, there.version, there.target)
        if deployed is None:
            log.info("this rollback was before this target's time", model=event.model, by=event.by)
            return []
        live = await rollout.roll_back(deployed, about.generation)
        return [Emit(outcome(deployed, live, "rollback"), run=deployed.run)]


async def stand_by(worker: Worker, servers: ProcessBackend) -> None:
    """Pay a server's imports while the model is still being trained.

    The client subscribes again by itself when the bus was away; what was said meanwhile is missed, as any hint may be.
    """
    coming = asyncio.Event()

    async def note(_: Msg) -> None:
        coming.set()

    for subject in COMING:
        await worker.bus.nc.subscribe(subject, cb=note)
    while True:
        try:
            await asyncio.wait_for(coming.wait(), STANDBY_SECONDS)
        except TimeoutError:
            await servers.stand_down()
            continue
        coming.clear()
        try:
            await servers.stand_by()
        except OSError as error:  # no memory or disk for it: the rollout itself will tell
            log.warning("no server on standby", error=str(error))


def processes(worker: Worker, settings: Settings, may_be_live: bool) -> ProcessBackend:
    """Servers as processes of this machine, with one on standby."""
    artifacts = open_artifact_store(worker.bus, settings)
    environments = Environments(settings.envs or settings.home / "envs", artifacts)
    serving_bus = settings.serving_nats_url or settings.nats_url
    servers = ProcessBackend(settings.home, serving_bus, artifacts, environments, settings.grace_seconds)
    servers.sweep()
    if may_be_live:  # its imports are paid while the bus appears
        servers.prepare()
    worker.background(lambda: stand_by(worker, servers))
    return servers


def containers(settings: Settings) -> ServerBackend:
    """Servers as containers. None is on standby: the exact image is what runs, and it is not known before."""
    # The Docker SDK is heavy, and processes need none of it.
    from services.deployer.backends.containers import ContainerBackend
    from services.deployer.backends.engine import Engine
    from services.deployer.backends.images import ImageCache

    engine = Engine()
    return ContainerBackend(
        engine,
        ImageCache(engine, settings.registry_credentials),
        belt=settings.belt,
        target=settings.target,
        network=settings.network,
        nats_url=settings.serving_nats_url or settings.nats_url,
        grace=settings.grace_seconds,
    )


def main() -> None:
    settings = from_environment(Settings)
    failed = functools.partial(DeploymentFailed, target=settings.target)
    worker = Worker("deployer", settings, failed=failed, consumer=f"deployer-{settings.target}")
    registry = Registry(worker.bus)
    gateway = Traefik(settings.gateway_url, settings.routes_folder, settings.switch_seconds, settings.public_url)
    contained = settings.servers == "containers"
    servers = containers(settings) if contained else processes(worker, settings, gateway.has_routes())
    checks = HttpChecks(servers, settings.ready_seconds)
    rollout = Rollout(settings.target, registry, Leases(worker.bus), servers, checks, gateway)

    async def tell(event: DeploymentFailed, id: str) -> None:
        await worker.emit_root(event, id=id)

    watch = Reconciler(settings.target, registry, rollout, servers, gateway, tell, settings.watch_seconds)
    create_app(worker, registry, rollout, settings.target)
    worker.background(watch.run)
    worker.on_close(checks.close)
    worker.on_close(gateway.close)
    worker.run()


if __name__ == "__main__":
    main()
