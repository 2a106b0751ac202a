"""`belt push`: uploads a model project and its data and starts a run."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from belt import connection, git, output, project_check
from belt.commands import runs, watch
from belt.live_view import LiveView
from belt.output import HOME, Failed, Home, Json, Project
from belt.project_check import MEDIA_TYPES, Source
from belt.publish import SOURCE, publish
from contracts.artifact_ref import TAR_GZ, ArtifactRef
from contracts.cloudevents import run_of
from contracts.events import DataPushed
from services.messaging import Bus
from services.storage import pack_folder
from services.timeline import Run, history
from services.timeline import runs as timeline


@dataclass(frozen=True)
class Push:
    """One push; the id of its run is known before anything is published."""

    folder: Path
    model: str
    source: Source
    reason: str | None
    id: str

    @property
    def run(self) -> str:
        return run_of(SOURCE, self.id, self.model)


def push(
    folder: Project,
    data: Annotated[str | None, typer.Option(help="Data to train on: a local file (uploaded) or a URI.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit 1 unless it is deployed.")] = False,
    reason: Annotated[str | None, typer.Option(help="Reason of the push, shown with its run.")] = None,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Check a model project, upload it with its data, start a run, and print the run's id.

    Example:  belt push examples/digits --data rows.parquet --wait
    """
    spec = project_check.load_spec(folder)
    wanted = Push(folder, spec.name, project_check.data_source(folder, spec, data), reason, str(uuid4()))
    try:
        asyncio.run(_push_and_follow(wanted, home, json) if wait else _push(wanted, home, json))
    except KeyboardInterrupt:
        output.info(f"interrupted; a run that was pushed goes on: follow it with `belt watch {wanted.run}`")
        raise typer.Exit(1) from None


async def _push(wanted: Push, home: Path, as_json: bool) -> None:
    async with connection.bus(home) as bus:
        event = await _upload(bus, wanted)
        sequence = await publish(bus, event, id=wanted.id)
    document = {"run": wanted.run, "model": wanted.model, "event": wanted.id, "sequence": sequence}
    output.result(as_json, document | {"commit": event.commit}, wanted.run)
    output.info(f"pushed {wanted.model}; follow it with `belt watch {wanted.run}`")


async def _push_and_follow(wanted: Push, home: Path, as_json: bool) -> None:
    async with connection.bus(home, reconnect=True) as bus:
        event = await _upload(bus, wanted)
        known: dict[str, Run] = {}
        async with history.follow_all(bus) as upcoming:
            await publish(bus, event, id=wanted.id)
            if not as_json:
                print(wanted.run, flush=True)
            with LiveView(output.stderr()) as view:
                await watch.follow(upcoming, known, view, only=wanted.run)
    run = known[wanted.run]
    if as_json:
        output.result(True, runs.document(run), "")
    if run.outcome != "deployed":
        raise Failed(f"{timeline.outcome_line(run)}\nnext: {timeline.next_command(run)}")
    output.info(f"{run.model} {run.version} is live at {run.url}")


async def _upload(bus: Bus, wanted: Push) -> DataPushed:
    with connection.artifacts(bus) as artifacts:
        excluded = project_check.excluded_files(wanted.folder, wanted.source)
        archive = await artifacts.put(pack_folder(wanted.folder, excluded), TAR_GZ)
        dataset: ArtifactRef | str | None = wanted.source.uri
        if file := wanted.source.file:
            dataset = await artifacts.put(file, MEDIA_TYPES[file.suffix.lower()])
    commit = git.commit(wanted.folder)
    return DataPushed(model=wanted.model, dataset=dataset, project=archive, commit=commit, reason=wanted.reason)
