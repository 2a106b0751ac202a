"""`belt push`: a model project and its data onto the belt."""

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from belt import git, history, project, reach, runs, say, story, watch
from belt.project import MEDIA_TYPES, Source
from belt.publish import SOURCE, publish
from belt.say import HOME, Home, Json
from belt.screen import Screen
from belt.story import Run
from contracts.artifact import TAR_GZ, ArtifactRef
from contracts.envelope import run_of
from contracts.events import DataPushed
from services.artifacts import Artifacts, pack_folder
from services.bus import Bus


def push(
    folder: Annotated[Path, typer.Argument(metavar="PROJECT", exists=True, file_okay=False, help="The model project.")],
    data: Annotated[str | None, typer.Option(help="Data to train on: a local file (uploaded) or a URI.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit 1 unless it is deployed.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the people who read `belt runs`.")] = None,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Push a model project: checks it, uploads it with its data, and starts a run, whose id it prints.

    Example:  belt push examples/digits --data rows.parquet --wait
    """
    id = str(uuid4())
    try:
        reach.run(_push(folder, data, wait, reason, home, json, id))
    except KeyboardInterrupt:
        say.note("interrupted; what was pushed goes on: `belt runs` lists it, `belt watch RUN` follows it again")
        raise typer.Exit(1) from None


async def _push(
    folder: Path, data: str | None, wait: bool, reason: str | None, home: Path, as_json: bool, id: str
) -> None:
    spec = project.spec_of(folder)
    source = project.source_of(folder, spec, data)
    run = run_of(SOURCE, id, spec.name)
    async with reach.bus(home, patient=wait) as bus:
        event = await _upload(bus, folder, spec.name, source, reason)
        if wait:
            ended = await _follow(bus, event, id, run, as_json)
            _finish(ended, as_json)
        else:
            sequence = await publish(bus, event, id=id)
            pushed = {"run": run, "model": spec.name, "event": id, "sequence": sequence, "commit": event.commit}
            say.answer(as_json, pushed, run)
            say.note(f"pushed {spec.name}; follow it with `belt watch {run}`")


async def _upload(bus: Bus, folder: Path, model: str, source: Source, reason: str | None) -> DataPushed:
    with reach.artifacts(bus) as artifacts:
        archive = await artifacts.put(pack_folder(folder, project.left_out(source)), TAR_GZ)
        dataset = await _dataset(artifacts, source)
    return DataPushed(model=model, dataset=dataset, project=archive, commit=git.commit(folder), reason=reason)


async def _dataset(artifacts: Artifacts, source: Source) -> ArtifactRef | str | None:
    if source.file is None:
        return source.uri
    return await artifacts.put(source.file, MEDIA_TYPES[source.file.suffix.lower()])


async def _follow(bus: Bus, event: DataPushed, id: str, run: str, as_json: bool) -> Run:
    async with history.happenings(bus) as queue:
        await publish(bus, event, id=id)
        if not as_json:
            print(run, flush=True)
        with Screen(say.stderr()) as screen:
            return await watch.until_over(bus, queue, run, screen)


def _finish(run: Run, as_json: bool) -> None:
    if as_json:
        say.answer(True, runs.document(run), "")
    if run.outcome != "deployed":
        next_step = story.command_after(run)
        say.fail(f"{run.model} was not deployed ({run.outcome}): {run.why}\nnext: {next_step}")
    say.note(f"{run.model} {run.version} is live at {run.url}")
