"""`belt replay`: publishes a stored event again, as the same event or, with --rerun, as the start of a new run."""

import asyncio
import json as json_text
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from nats.js.api import RawStreamMsg

from belt import connection, output
from belt.output import HOME, Failed, Home, Json
from belt.publish import SOURCE, send
from contracts import cloudevents
from contracts.cloudevents import STARTS_A_RUN, Envelope
from contracts.events import event_type
from services.messaging import Bus
from services.timeline import history


def replay(
    event: Annotated[str, typer.Argument(metavar="EVENT|RUN", help="EVENTS:<sequence>, the id of an event, or a run.")],
    rerun: Annotated[bool, typer.Option("--rerun", help="Start a new run with the same payload.")] = False,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Publish a stored event again: of a run the event that a stage gave up, else the one that started the run.

    It stays the same event: a worker that has handled it repeats its outputs.
    A worker that gave it up, or whose outputs were lost, handles it now.
    With --rerun it is a new event and starts a new run.

    Example:  belt replay 3f2a90c1d4e5b6a7 --rerun
    """
    about, sequence = asyncio.run(_replay(home, event, rerun))
    document = {"run": about.run, "event": about.id, "subject": about.subject, "sequence": sequence, "rerun": rerun}
    output.result(json, document, about.run)
    follow = f"belt watch {about.run}" if rerun else "belt watch"
    output.info(f"{about.subject} was published again as EVENTS:{sequence}; follow it with `{follow}`")


async def _replay(home: Path, given: str, rerun: bool) -> tuple[Envelope, int]:
    async with connection.bus(home) as bus:
        about = await _find(bus, given, rerun)
        message = await bus.js.get_msg("EVENTS", about.sequence)
        if rerun:
            about = _as_new(about)
        headers = (message.headers or {}) | _headers(about)
        return about, await send(bus, about.subject, _payload(message, about), headers)


async def _find(bus: Bus, given: str, rerun: bool) -> Envelope:
    """Return the envelope of the wanted event; fail when none or several match."""
    stored = [about for _, about in await history.events(bus)]
    found = [a for a in stored if given in (a.id, f"EVENTS:{a.sequence}")]
    found = found or _of_runs([a for a in stored if a.run.startswith(given)], rerun)
    if not found:
        raise Failed(
            f"there is no event and no run {given!r} in the last 30 days; `belt run RUN` lists the events of a run"
        )
    if len({(a.identity, a.subject) for a in found}) > 1:
        listed = ", ".join(f"EVENTS:{a.sequence} ({a.subject})" for a in found[:5])
        raise Failed(f"{given!r} matches {listed}: name one of them")
    return found[0]


def _of_runs(stored: Sequence[Envelope], rerun: bool) -> list[Envelope]:
    """Return for each run the event to replay: the cause of a final `<stage>.failed`, else the start of the run."""
    ends = {a.run: a for a in stored if a.subject != "alert.raised"}  # an alert follows the failure
    causes = {(end.run, end.causation) for end in ends.values() if end.subject.endswith(".failed") and not rerun}
    given_up = [a for a in stored if (a.run, a.id) in causes]
    others = ends.keys() - {a.run for a in given_up}
    return given_up + [a for a in stored if a.run in others and a.subject in STARTS_A_RUN]


def _as_new(about: Envelope) -> Envelope:
    """Return the envelope of a new event with the same payload; fail when this event does not start a run."""
    if about.subject not in STARTS_A_RUN:
        raise Failed(f"{about.subject} starts no run; `belt replay {about.run} --rerun` repeats the whole run")
    id = str(uuid4())
    run = cloudevents.run_of(SOURCE, id, about.model)
    new = {"id": id, "source": SOURCE, "run": run, "causation": about.id, "time": datetime.now(UTC)}
    return about.model_copy(update=new)


def _headers(about: Envelope) -> dict[str, str]:
    """Return the headers that identify the event, also when it was first published without headers."""
    written = cloudevents.headers(
        event_type(about.subject).model_construct(model=about.model),
        **about.model_dump(include={"id", "source", "run", "generation", "time", "causation"}),
    )
    # The Nats-Msg-Id is new, because the bus drops a repeated one within an hour.
    return written | {"Nats-Msg-Id": f"{about.subject}:{about.id}:replay:{uuid4()}"}


def _payload(message: RawStreamMsg, about: Envelope) -> bytes:
    """Return the payload unchanged; the payload of a structured event is taken out, for binary mode."""
    body = message.data or b""
    return json_text.dumps(json_text.loads(body)["data"]).encode() if about.structured else body
