"""`belt schema`: prints the schemas of the events, for programs that publish or read them."""

import json as json_text
from typing import Annotated

import typer

from belt import output
from belt.output import Json
from contracts import json_schemas as schemas
from contracts.events import EVENTS


def schema(
    event: Annotated[
        str | None, typer.Argument(help="A subject, e.g. data.pushed, or `asyncapi`. Default: all events.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the JSON Schema of an event (or of all of them), or the AsyncAPI document of the bus.

    Example:  belt schema data.pushed
    """
    if event == schemas.ASYNCAPI:
        document = schemas.asyncapi()
    elif event is None:
        document = {subject: schemas.of_event(subject) for subject in EVENTS}
    else:
        try:
            document = schemas.of_event(event)
        except KeyError:
            known = ", ".join([*EVENTS, schemas.ASYNCAPI])
            raise typer.BadParameter(f"there is no event {event!r}; name one of {known}") from None
    text = json_text.dumps(document, indent=2, ensure_ascii=False)
    if json or not output.stdout().is_terminal:
        print(text)
    else:
        output.stdout().print_json(text)
