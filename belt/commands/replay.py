"""`belt replay`: publish a stored event again, as the same event or, with --rerun, as the start of a new run."""

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
from services.messaging import Bus
from services.timeline import history


def replay(
    event: Annotated[str, typer.Argument(metavar="EVENT|RUN", help="EVENTS:<sequence>, an event's id, or a run.")],
    rerun: Annotated[bool, typer.Option("--rerun", help="Do it all again, as a new run.")] = False,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Publish an event again; of a run the one that was given up, or else the one that started it.

    It stays the same event: a worker that has dealt with it says again what it said then, and one that has not (it gave
    it up, or its outcome got lost) deals with it now. With --rerun it is a new event and starts a new run.

    Example:  belt replay 3f2a90c1d4e5b6a7 --rerun
    """
    about, sequence = connection.run(_replay(home, event, rerun))
    document = {"run": about.run, "event": about.id, "subject": about.subject, "sequence": sequence, "rerun": rerun}
    output.result(json, document, about.run)
    follow = f"belt watch {about.run}" if rerun else "belt watch"
    output.info(f"{about.subject} is on the bus again as EVENTS:{sequence}; follow it with `{follow}`")


async def _replay(home: Path, given: str, rerun: bool) -> tuple[Envelope, int]:
    async with connection.bus(home) as bus:
        about = await _find(bus, given, rerun)
        message = await bus.js.get_msg("EVENTS", about.sequence)
        if rerun:
            about = _as_new(about)
        headers = (message.headers or {}) | _headers(about)
        return about, await send(bus, about.subject, _payload(message, about), headers)


async def _find(bus: Bus, given: str, rerun: bool) -> Envelope:
    """The envelope of the event that is meant.

    Raises:
        Failed: there is none, or several.
    """
    stored = [about for _, about in await history.events(bus)]
    found = [a for a in stored if given in (a.id, f"EVENTS:{a.sequence}")]
    found = found or _of_runs([a for a in stored if a.run.startswith(given)], rerun)
    if not found:
        raise Failed(
            f"no event and no run {given!r} in the stream, which keeps 30 days; `belt run RUN` lists its events"
        )
    if len({(a.identity, a.subject) for a in found}) > 1:
        listed = ", ".join(f"EVENTS:{a.sequence} ({a.subject})" for a in found[:5])
        raise Failed(f"{given!r} may be any of {listed}: name one of them")
    return found[0]


def _of_runs(stored: Sequence[Envelope], rerun: bool) -> list[Envelope]:
    """What is meant of each run: what its last event, a `<stage>.failed`, was about, or else its start."""
    ends = {a.run: a for a in stored if a.subject != "alert.raised"}  # which tells of it
    causes = {(end.run, end.causation) for end in ends.values() if end.subject.endswith(".failed") and not rerun}
    given_up = [a for a in stored if (a.run, a.id) in causes]
    others = ends.keys() - {a.run for a in given_up}
    return given_up + [a for a in stored if a.run in others and a.subject in STARTS_A_RUN]


def _as_new(about: Envelope) -> Envelope:
    """The same cause under a new id, now.

    Raises:
        Failed: it is not what starts a run.
    """
    if about.subject not in STARTS_A_RUN:
        raise Failed(f"{about.subject} starts no run; `belt replay {about.run} --rerun` does the whole run again")
    id = str(uuid4())
    run = cloudevents.run_of(SOURCE, id, about.model)
    new = {"id": id, "source": SOURCE, "run": run, "causation": about.id, "time": datetime.now(UTC)}
    return about.model_copy(update=new)


def _headers(about: Envelope) -> dict[str, str]:
    """What makes the message this very event, also when it first came without headers.

    The Nats-Msg-Id is a new one: the bus would drop the old one within an hour.
    """
    written = {
        "ce-specversion": "1.0",
        "ce-id": about.id,
        "ce-source": about.source,
        "ce-type": f"dev.bentobelt.{about.subject}.v1",
        "ce-time": about.time.isoformat().replace("+00:00", "Z"),
        "ce-subject": about.model,
        "ce-correlationid": about.run,
        "ce-generation": str(about.generation),
        "content-type": "application/json",
        "Nats-Msg-Id": f"{about.subject}:{about.id}:replay:{uuid4()}",
    }
    return written | ({"ce-causationid": about.causation} if about.causation else {})


def _payload(message: RawStreamMsg, about: Envelope) -> bytes:
    """The plain payload, as it was; a structured event is published in binary mode."""
    body = message.data or b""
    return json_text.dumps(json_text.loads(body)["data"]).encode() if about.structured else body
