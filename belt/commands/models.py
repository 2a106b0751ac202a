"""`belt models` and `belt deployments`: read the registry, which is kept longer than the event stream."""

import asyncio
from pathlib import Path
from typing import Any

from belt import connection, output
from belt.output import HOME, Home, Json
from services.storage import Candidate, Live, Project, Registry
from services.timeline import wording


def models(home: Home = HOME, json: Json = False) -> None:
    """List the models with the live version, the approved ones, those that wait for a review, and the last run.

    Example:  belt models
    """
    found = asyncio.run(_models(home))
    rows = []
    for m in found:
        approved, waiting = ", ".join(m["approved"][-3:][::-1]), ", ".join(m["waiting"])
        rows.append([m["model"], m["live"], approved, waiting, m["last_run"], m["project"]])
    columns = ("MODEL", "LIVE", "APPROVED (NEWEST 3)", "WAITING FOR REVIEW", "LAST RUN", "PROJECT")
    output.result(json, found, output.table(columns, rows, "No models yet: `belt push PROJECT` makes the first one."))


def deployments(home: Home = HOME, json: Json = False) -> None:
    """List the live version of each model and target, and the version that a rollback goes back to.

    Example:  belt deployments --json
    """
    found = asyncio.run(_deployments(home))
    rows = (
        [x.model, x.target, x.version, x.previous, output.local_time(x.since), x.url, wording.short_image(x.image)]
        for x in found
    )
    columns = ("MODEL", "TARGET", "LIVE", "PREVIOUS", "SINCE", "URL", "IMAGE")
    output.result(json, found, output.table(columns, rows, "Nothing is deployed yet: `belt runs` shows the runs."))


async def _models(home: Path) -> list[dict[str, Any]]:
    async with connection.bus(home) as bus:
        registry = Registry(bus)
        lives = await registry.lives()
        return [
            _model(name, await registry.candidates(name), await registry.project(name), lives)
            for name in await registry.models()
        ]


async def _deployments(home: Path) -> list[Live]:
    async with connection.bus(home) as bus:
        return await Registry(bus).lives()


def _model(name: str, candidates: list[Candidate], project: Project | None, lives: list[Live]) -> dict[str, Any]:
    statuses = ("approved", "waiting", "rejected")
    return {
        "model": name,
        "live": next((live.version for live in lives if live.model == name), None),
        **{status: [one.version for one in candidates if one.status == status] for status in statuses},
        "last_run": candidates[-1].run if candidates else None,
        "project": project.archive.sha256[:12] if project else None,
        "commit": project.commit if project else None,
    }
