"""`belt trace`: traces a prediction, a version or an image back to everything it was made from."""

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from belt import connection, output
from belt.output import HOME, Failed, Home, Json
from contracts.events import ImagePushed
from contracts.verdicts import ConditionResult
from services.messaging import Bus
from services.storage import Candidate, Registry
from services.timeline import history, wording

_VERSION = r"\d+-[0-9a-f]{8}"
_PREDICTION = re.compile(rf"^(?P<model>[a-z0-9-]{{1,40}})\.(?P<version>{_VERSION})\..+$")
_TAG = re.compile(rf"^(?:(?P<model>[a-z0-9-]{{1,40}})[:.@/ ])?(?P<version>{_VERSION})$")


def trace(
    given: Annotated[
        str,
        typer.Argument(metavar="PREDICTION|VERSION|IMAGE", help="Id of a prediction, [MODEL:]VERSION, or an image."),
    ],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Trace a prediction, a version or an image back to its run, cause, commit, data, verdict and image.

    Reads the registry, which is kept longer than the event stream.

    Example:  belt trace digits.12-9f3c2a1b.01J8Z3
    """
    found = asyncio.run(_trace(home, given))
    output.result(json, found, _view(found))


def parse(given: str) -> tuple[str | None, str] | None:
    """Return the model and version in a prediction id, a tag or a bare version; None when it is something else."""
    match = _PREDICTION.match(given) or _TAG.match(given)
    return (match["model"], match["version"]) if match else None


async def _trace(home: Path, given: str) -> dict[str, Any]:
    async with connection.bus(home) as bus:
        registry = Registry(bus)
        candidate = await _candidate(registry, given)
        model, version = candidate.model, candidate.version
        images = [one.image.image for one in await registry.images(model) if one.image.version == version]
        live_on = [one.target for one in await registry.lives() if (one.model, one.version) == (model, version)]
        found = await _from_stream(bus, candidate) | _answer(candidate, live_on)
        return found | ({"image": images[-1]} if images else {})


async def _candidate(registry: Registry, given: str) -> Candidate:
    named = parse(given)
    models = [named[0]] if named and named[0] else await registry.models()
    found: list[Candidate] = []
    for model in models:
        version = named[1] if named else await _version_of_image(registry, model, given)
        if version and (candidate := await registry.candidate(model, version)):
            found.append(candidate)
    if not found:
        raise Failed(
            f"{given!r} is no prediction id, version or image of a model here; `belt models` lists models and versions"
        )
    if len(found) > 1:
        raise Failed(
            f"several models have a version {given}: write {' or '.join(f'{c.model}:{c.version}' for c in found)}"
        )
    return found[0]


async def _version_of_image(registry: Registry, model: str, image: str) -> str | None:
    digest = image.rpartition("sha256:")[2].rpartition("/")[2]
    for deployed in await registry.images(model):
        if deployed.image.image == image or (len(digest) >= 12 and digest in deployed.image.image):
            return deployed.image.version
    return None


async def _from_stream(bus: Bus, candidate: Candidate) -> dict[str, Any]:
    """Return what only the event stream has: the event that started the run, and an image not deployed yet."""
    known: dict[str, Any] = {"cause": None, "image": None}
    for event, about in await history.events(bus):
        if about.id == candidate.started_by and about.model == candidate.model:
            summary = wording.describe(event)
            known["cause"] = {"subject": about.subject, "time": about.time, "source": about.source, "says": summary}
        if isinstance(event, ImagePushed) and (event.model, event.version) == (candidate.model, candidate.version):
            known["image"] = event.image
    return known


def _answer(candidate: Candidate, live_on: list[str]) -> dict[str, Any]:
    trained = candidate.trained
    return {
        "model": candidate.model,
        "version": candidate.version,
        "status": candidate.status,
        "live_on": live_on,
        "run": candidate.run,
        "generation": candidate.generation,
        "started_by": candidate.started_by,
        "commit": trained.commit,
        "data": trained.dataset.sha256,
        "dataset": trained.dataset.model_dump(),
        "project": trained.project.model_dump(),
        "environment": trained.environment.model_dump(),
        "seed": trained.seed,
        "metrics": trained.metrics,
        "verdict": candidate.verdict and candidate.verdict.model_dump(mode="json"),
        "decided_by": candidate.by,
        "reason": candidate.reason,
        "report": candidate.report and candidate.report.uri,
    }


def _view(found: dict[str, Any]) -> Any:
    cause = found["cause"] or {}
    python, lock = found["environment"]["python"], found["environment"]["lock"]
    started = " ".join(filter(None, (cause.get("subject"), found["started_by"], output.local_time(cause.get("time")))))
    verdict = found["verdict"]
    results = [ConditionResult.model_validate(result) for result in verdict["conditions"]] if verdict else []
    return output.key_values(
        {
            "model": found["model"],
            "version": found["version"],
            "status": f"{found['status']} by {found['decided_by']}"
            + (f": {found['reason']}" if found["reason"] else ""),
            "live on": ", ".join(found["live_on"]) or "nothing",
            "run": found["run"],
            "started by": started,
            "": cause.get("says"),
            "commit": found["commit"],
            "data": f"sha256:{found['data']} ({wording.size(found['dataset']['size'])})",
            "project": f"sha256:{found['project']['sha256']}",
            "python": f"{python}, lock {lock[:12]}, seed {found['seed']}",
            "metrics": wording.metrics(found["metrics"]),
            "verdict": "\n".join([verdict["outcome"], *map(wording.condition, results)]) if verdict else "not judged",
            "image": found["image"],
            "report": found["report"],
        }
    )
