"""`belt rollback`: moves the traffic back to the previous version or to a named one."""

import asyncio
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from belt import connection, git, output
from belt.output import HOME, By, Failed, Home, Json, Model
from belt.publish import publish
from contracts.events import DeploymentFailed, ModelDeployed, ModelSuperseded, RollbackRequested
from services.storage import Registry
from services.timeline import history, wording

Ended = ModelDeployed | ModelSuperseded | DeploymentFailed


def rollback(
    model: Model,
    to: Annotated[str | None, typer.Option(help="A version that was live before. Default: the previous one.")] = None,
    reason: Annotated[str, typer.Option(help="Reason; it is stored with the event.")] = "belt rollback",
    by: By = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until the traffic has moved.")] = 120.0,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Move the traffic back to the previous version, or to a named one, and wait until it has moved.

    Example:  belt rollback digits --reason "wrong sevens"
    """
    ended = asyncio.run(_rollback(model, to, by or git.person(Path.cwd()), reason, timeout, home))
    if not isinstance(ended, ModelDeployed):
        output.fail(f"{model} was not rolled back: {wording.describe(ended)}")
    output.result(
        json, ended.model_dump(mode="json", exclude={"profile"}), f"{model} {ended.version} is live at {ended.url}"
    )


async def _rollback(model: str, to: str | None, by: str, reason: str, timeout: float, home: Path) -> Ended:
    async with connection.bus(home, reconnect=True) as bus:
        await _check(Registry(bus), connection.model_name(model), to)
        event = RollbackRequested(model=model, to=to, by=by, reason=reason)
        id = str(uuid4())
        async with history.follow_all(bus) as upcoming:
            await publish(bus, event, id=id)
            try:
                return await asyncio.wait_for(_ended(upcoming, id), timeout)
            except TimeoutError:
                raise Failed(
                    f"the deployer did not answer within {timeout:g} s; `belt deployments` shows the live version"
                ) from None


async def _check(registry: Registry, model: str, to: str | None) -> None:
    """Refuse a rollback that the deployer would refuse, and name the versions that are possible."""
    lives = [live for live in await registry.lives() if live.model == model]
    if not lives:
        raise Failed(f"{model} is not deployed; `belt deployments` lists the deployed models")
    images = sorted({deployed.image.version for deployed in await registry.images(model)})
    if to is None and not any(live.previous for live in lives):
        kept = ", ".join(version for version in images if version != lives[0].version)
        other = f"; name one with --to: {kept}" if kept else ""
        raise Failed(f"{model} has no previous version to go back to from {lives[0].version}{other}")
    if to is not None and not connection.is_version(to):
        raise Failed(f"there is no version {to!r} of {model}; name one of {', '.join(images)}")
    if to and not any([await registry.image(model, to, live.target) for live in lives]):
        raise Failed(f"{model} {to} was never deployed; name one of {', '.join(images)}")


async def _ended(upcoming: history.NextItem, id: str) -> Ended:
    while True:
        found = (await upcoming()).event
        if found and found[1].causation == id and isinstance(found[0], Ended):
            return found[0]
