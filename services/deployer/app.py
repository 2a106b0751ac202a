"""Wiring of the deployer: read the event, roll out the version, publish the outcome."""

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
    newest_live,
    outcome,
    predates_target,
    rollback_target,
    rolled_back,
    superseded_elsewhere,
)
from services.deployer.gateway import Traefik
from services.deployer.readiness import HttpChecks
from services.deployer.reconciler import Reconciler
from services.deployer.rollout import Rollout
from services.deployer.server_pool import ServerPool
from services.deployer.settings import Settings
from services.messaging import Leases, from_environment
from services.messaging.worker import Emit, Worker, log
from services.sandbox import Environments
from services.storage import Deployed, Registry, open_artifact_store

ROLLOUT_HINTS = ("data.pushed", "drift.detected")
"""Events that may lead to a rollout a few seconds later. No durable consumer: a missed one only costs time."""
STANDBY_SECONDS = 120.0
"""A server on standby is ended if nothing came for it within this time, because it holds memory."""


def create_app(worker: Worker, registry: Registry, rollout: Rollout, target: str) -> None:
    """Subscribe the deployer's two handlers."""

    @worker.on(ImagePushed)
    async def release(event: ImagePushed, about: Envelope) -> list[Emit]:
        order = about.generation
        if await registry.live(event.model, target) is None:
            newest = newest_live(event.model, await registry.lives())
            if instead := superseded_elsewhere(event.version, order, newest):
                return [Emit(ModelSuperseded(model=event.model, version=event.version, by=instead))]
            # A new target takes over the order of the other targets: it has yet to read the events up to there.
            order = max(order, newest.order if newest else 0)
        deployed = Deployed(image=event, run=about.run, generation=about.generation)
        live = await rollout.roll_out(deployed, order)
        return [Emit(outcome(deployed, live, "release"))]

    @worker.on(RollbackRequested)
    async def roll_back(event: RollbackRequested, about: Envelope) -> list[Emit]:
        deployed = await _rollback_image(registry, target, event, about)
        if deployed is None:
            log.info("this rollback is older than this target", model=event.model, by=event.by)
            return []
        live = await rollout.roll_out(deployed, about.generation, rolled_back)
        return [Emit(outcome(deployed, live, "rollback"), run=deployed.run)]


async def _rollback_image(
    registry: Registry, target: str, event: RollbackRequested, about: Envelope
) -> Deployed | None:
    """Return the image to go back to; None if the request is older than this target and does not concern it.

    Raises:
        CannotRollBack: there is no such image.
    """
    live = await registry.live(event.model, target)
    version = rollback_target(live, event.to, about.generation)
    if version and (deployed := await registry.image(event.model, version, target)):
        return deployed
    newest = newest_live(event.model, await registry.lives())
    if not predates_target(live, newest, about.generation, about.time.timestamp()):
        known = [deployed.image.version for deployed in await registry.images(event.model, target)]
        raise cannot_roll_back(event.model, live, event.to, known)
    applied = already_applied(newest, about.generation)
    return await registry.image(event.model, applied.version, applied.target) if applied else None


async def keep_standby(worker: Worker, servers: ProcessBackend) -> None:
    """Start a server on standby whenever a rollout is likely, so that its imports are done while a model is trained.

    The client subscribes again by itself after an outage of the bus. Hints published meanwhile are missed.
    """
    hint = asyncio.Event()

    async def on_hint(_: Msg) -> None:
        hint.set()

    for subject in ROLLOUT_HINTS:
        await worker.bus.nc.subscribe(subject, cb=on_hint)
    while True:
        try:
            await asyncio.wait_for(hint.wait(), STANDBY_SECONDS)
        except TimeoutError:
            await servers.end_standby()
            continue
        hint.clear()
        try:
            await servers.start_standby()
        except OSError as error:  # no memory or disk for it: the rollout itself will fail with a message
            log.warning("no server on standby", error=str(error))


def process_backend(worker: Worker, settings: Settings, was_used: bool) -> ProcessBackend:
    """Create the backend that runs servers as processes of this machine, with one on standby.

    `was_used` means that a model may be live, so that a server is needed at once.
    """
    artifacts = open_artifact_store(worker.bus, settings)
    environments = Environments(settings.envs or settings.home / "envs", artifacts)
    serving_bus = settings.serving_nats_url or settings.nats_url
    servers = ProcessBackend(settings.home, serving_bus, artifacts, environments, settings.grace_seconds)
    servers.remove_abandoned()
    if was_used:  # its imports run while the bus starts
        servers.start_first_standby()
    worker.background(lambda: keep_standby(worker, servers))
    return servers


def container_backend(settings: Settings) -> ServerBackend:
    """Create the backend that runs servers as containers. It has no standby: the image is not known before."""
    # The Docker SDK is heavy, and processes do not need it.
    from services.deployer.backends.containers import ContainerBackend
    from services.deployer.backends.engine import ServingEngine
    from services.deployer.backends.images import ImageCache

    engine = ServingEngine(settings.registry_credentials)
    return ContainerBackend(
        engine,
        ImageCache(engine),
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
    in_containers = settings.servers == "containers"
    servers = container_backend(settings) if in_containers else process_backend(worker, settings, gateway.has_routes())
    checks = HttpChecks(servers, settings.ready_seconds)
    pool = ServerPool(settings.target, registry, servers, checks, gateway)
    rollout = Rollout(settings.target, registry, Leases(worker.bus), pool, gateway)

    reconciler = Reconciler(
        settings.target, registry, rollout, pool, servers, gateway, worker.emit_root, settings.watch_seconds
    )
    create_app(worker, registry, rollout, settings.target)
    worker.background(reconciler.run)
    worker.on_close(checks.close)
    worker.on_close(gateway.close)
    worker.run()


if __name__ == "__main__":
    main()
