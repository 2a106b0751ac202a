"""Wiring of the deployer: read, roll out, say what became of it."""

import asyncio

from nats.aio.msg import Msg

from contracts.envelope import Envelope
from contracts.events import DeploymentFailed, ImagePushed, RollbackRequested
from services.artifacts import open_artifacts
from services.deployer.checks import HttpChecks
from services.deployer.domain import outcome, rollback_target
from services.deployer.gateway import Traefik
from services.deployer.processes import Processes
from services.deployer.rollout import Rollout
from services.deployer.settings import Settings
from services.deployer.watch import Watch
from services.environments import Environments
from services.leases import Leases
from services.registry import Deployed, Registry
from services.worker import Emit, Worker

# What may end in a rollout a few seconds later. Missing one costs time, nothing else, so no durable is kept for them.
COMING = ("data.pushed", "drift.detected")
STANDBY_SECONDS = 120.0
"""A server on standby that nothing came for is ended after this time: it holds memory."""


def create_app(worker: Worker, registry: Registry, rollout: Rollout, target: str) -> None:
    """Subscribe the deployer's two handlers."""

    @worker.on(ImagePushed)
    async def release(event: ImagePushed, about: Envelope) -> list[Emit]:
        deployed = Deployed(image=event, run=about.run, generation=about.generation)
        live = await rollout.release(deployed, about.generation)
        return [Emit(outcome(deployed, live, "release"))]

    @worker.on(RollbackRequested)
    async def roll_back(event: RollbackRequested, about: Envelope) -> list[Emit]:
        images = {deployed.image.version: deployed for deployed in await registry.images(event.model, target)}
        live = await registry.live(event.model, target)
        deployed = images[rollback_target(event.model, live, event.to, about.generation, images)]
        live = await rollout.roll_back(deployed, about.generation)
        return [Emit(outcome(deployed, live, "rollback"), run=deployed.run)]


async def stand_by(worker: Worker, servers: Processes) -> None:
    """Pay a server's imports while the model is still being trained."""
    coming = asyncio.Event()

    async def note(_: Msg) -> None:
        coming.set()

    for subject in COMING:
        await worker.bus.nc.subscribe(subject, cb=note)
    while True:
        try:
            await asyncio.wait_for(coming.wait(), STANDBY_SECONDS)
            coming.clear()
            await servers.stand_by()
        except TimeoutError:
            await servers.stand_down()


def main() -> None:
    settings = Settings()
    worker = Worker("deployer", settings, failed=DeploymentFailed, consumer=f"deployer-{settings.target}")
    registry, artifacts = Registry(worker.bus), open_artifacts(worker.bus, settings)
    environments = Environments(settings.envs or settings.home / "envs", artifacts)
    servers = Processes(settings.home, settings.nats_url, artifacts, environments, settings.grace_seconds)
    checks = HttpChecks(servers, settings.ready_seconds)
    gateway = Traefik(settings.gateway_url, settings.routes_file, settings.switch_seconds)
    rollout = Rollout(settings.target, registry, Leases(worker.bus), servers, checks, gateway)
    watch = Watch(settings.target, registry, rollout, servers, gateway, settings.watch_seconds)
    create_app(worker, registry, rollout, settings.target)
    servers.sweep()
    worker.background(watch.run)
    worker.background(lambda: stand_by(worker, servers))
    worker.on_close(checks.close)
    worker.on_close(gateway.close)
    worker.run()


if __name__ == "__main__":
    main()
