"""`belt review`: a person approves or rejects the versions that the gate did not pass."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import typer

from belt import connection, git, output
from belt.output import HOME, By, Failed, Home, Json, Model
from belt.publish import publish
from contracts.events import ReviewDecided
from services.storage import ArtifactCorrupt, ArtifactMissing, Candidate, Registry
from services.timeline import wording

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")

Version = Annotated[str, typer.Argument(help="The version, as `belt review list` shows it.")]
Decision = Literal["approve", "reject"]
Reason = Annotated[str, typer.Option(help="Reason; it is stored with the version.")]


@app.callback()
def review() -> None:
    """Approve or reject versions that the gate did not pass.

    Example:  belt review list
    """


@app.command("list")
def waiting(home: Home = HOME, json: Json = False) -> None:
    """List the versions that wait for a review, with the estimate, interval and outcome of each condition.

    Example:  belt review list
    """
    found = asyncio.run(_waiting(home))
    rows = ([c.model, c.version, c.run, condition, c.report and "yes"] for c in found for condition in _conditions(c))
    columns = ("MODEL", "VERSION", "RUN", "CONDITION", "REPORT")
    shown = {"model", "version", "run", "generation", "status", "verdict", "report"}
    documents = [candidate.model_dump(mode="json", include=shown) for candidate in found]
    output.result(json, documents, output.table(columns, rows, "Nothing waits for a review."))


@app.command()
def approve(
    model: Model, version: Version, reason: Reason, by: By = None, home: Home = HOME, json: Json = False
) -> None:
    """Approve a version that the gate did not pass; it is then built and deployed.

    Example:  belt review approve digits 12-9f3c2a1b --reason "the drop is noise"
    """
    _decide(model, version, "approve", reason, by, home, json)


@app.command()
def reject(
    model: Model, version: Version, reason: Reason, by: By = None, home: Home = HOME, json: Json = False
) -> None:
    """Reject a version for good.

    Example:  belt review reject digits 12-9f3c2a1b --reason "worse on sevens"
    """
    _decide(model, version, "reject", reason, by, home, json)


@app.command()
def report(
    model: Model,
    version: Version,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: MODEL-VERSION.html here.")
    ] = None,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Save the HTML report on the held-out rows of a version.

    Example:  belt review report digits 12-9f3c2a1b -o report.html
    """
    file = file or Path(f"{model}-{version}.html")
    file.write_bytes(asyncio.run(_report(model, version, home)))
    output.result(json, {"file": str(file)}, str(file))


def _decide(model: str, version: str, decision: Decision, reason: str, by: str | None, home: Path, json: bool) -> None:
    if not reason.strip():
        raise typer.BadParameter("--reason must not be empty: give the reason of the decision")
    who = by or git.person(Path.cwd())
    candidate = asyncio.run(_publish(model, version, decision, who, reason, home))
    document = {"model": model, "version": version, "decision": decision, "by": who, "run": candidate.run}
    output.result(json, document, f"{model} {version}: {wording.DECIDED[decision]} by {who}")
    if decision == "approve":
        output.info(f"the run continues; follow it with `belt watch {candidate.run}`")


async def _publish(model: str, version: str, decision: Decision, by: str, reason: str, home: Path) -> Candidate:
    async with connection.bus(home) as bus:
        candidate = await _candidate(Registry(bus), model, version)
        event = ReviewDecided(model=model, version=version, decision=decision, by=by, reason=reason)
        if candidate.status != "waiting":
            now = f"it is {candidate.status} (by {candidate.by})"
            raise Failed(f"{event.model} {event.version} does not wait for a review: {now}")
        await publish(bus, event, id=str(uuid4()), run=candidate.run)
        return candidate


async def _waiting(home: Path) -> list[Candidate]:
    async with connection.bus(home) as bus:
        registry = Registry(bus)
        found = [await registry.candidates(model) for model in await registry.models()]
        return [candidate for candidates in found for candidate in candidates if candidate.status == "waiting"]


async def _report(model: str, version: str, home: Path) -> bytes:
    async with connection.bus(home) as bus:
        candidate = await _candidate(Registry(bus), model, version)
        if candidate.report is None:
            raise Failed(f"there is no report on {model} {version}; `belt trace {model}:{version}` shows its verdict")
        try:
            with connection.artifacts(bus) as artifacts:
                return (await artifacts.fetch(candidate.report)).read_bytes()
        except (ArtifactMissing, ArtifactCorrupt) as error:
            raise Failed(str(error)) from None


async def _candidate(registry: Registry, model: str, version: str) -> Candidate:
    found = await registry.candidate(connection.model_name(model), version) if connection.is_version(version) else None
    if found is None:
        known = ", ".join(c.version for c in (await registry.candidates(model))[-5:])
        raise Failed(
            f"there is no version {version!r} of {model}; " + (f"it has {known}" if known else "it has no versions")
        )
    return found


def _conditions(candidate: Candidate) -> list[str]:
    results = candidate.verdict.conditions if candidate.verdict else ()
    return [" – ".join(filter(None, (wording.condition(result), result.why))) for result in results] or [""]
