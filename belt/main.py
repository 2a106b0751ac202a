"""The `belt` command. Each command's module is imported when it is run, so that `belt --help` is quick."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import services  # noqa: F401  # before nats-py, which it keeps slim


class CommandSpec(NamedTuple):
    """Where a command is (`module:attribute`, a function or a `typer.Typer`) and what `belt --help` says of it."""

    at: str
    help: str
    panel: str
    example: str = ""
    """Of a group, whose own help has none."""


RUN, LOOK, USE, WIRE = "Run the belt", "See what happens", "Use and decide", "Wire it up"

COMMANDS = {
    "demo": CommandSpec("belt.demo.demo:demo", "Show the whole loop on real data, in about a minute.", RUN),
    "up": CommandSpec("belt.commands.up:up", "Start bus, gateway and all workers here and keep them running.", RUN),
    "doctor": CommandSpec(
        "belt.commands.doctor:doctor", "Check this machine and the belt on it, and say what to do.", RUN
    ),
    "push": CommandSpec(
        "belt.commands.push:push", "Push a model project: train, judge, build and deploy a new version.", RUN
    ),
    "runs": CommandSpec("belt.commands.runs:runs", "List the runs, newest first.", LOOK),
    "run": CommandSpec("belt.commands.runs:run", "Show one run: its stages, verdict and every event.", LOOK),
    "watch": CommandSpec("belt.commands.watch:watch", "Follow one run or all of them live.", LOOK),
    "logs": CommandSpec("belt.commands.logs:logs", "Show what the workers and the serving processes logged.", LOOK),
    "models": CommandSpec(
        "belt.commands.models:models", "List the models with their live and approved versions.", LOOK
    ),
    "deployments": CommandSpec(
        "belt.commands.models:deployments", "List what is live where, and what a rollback goes back to.", LOOK
    ),
    "trace": CommandSpec(
        "belt.commands.trace:trace", "Lead a prediction, version or image back to data, commit and verdict.", LOOK
    ),
    "predict": CommandSpec("belt.commands.predict:predict", "Ask the live version for predictions.", USE),
    "feedback": CommandSpec("belt.commands.predict:feedback", "Send labels that became known.", USE),
    "review": CommandSpec(
        "belt.commands.review:app", "Decide about versions that the gate did not pass.", USE, "belt review list"
    ),
    "rollback": CommandSpec(
        "belt.commands.rollback:rollback", "Move the traffic back to the previous (or a named) version.", USE
    ),
    "replay": CommandSpec("belt.commands.replay:replay", "Publish an event or the start of a run again.", USE),
    "hook": CommandSpec(
        "belt.commands.hook:app", "Push from git: install a hook.", WIRE, "belt hook install examples/digits"
    ),
    "ci": CommandSpec(
        "belt.commands.ci:app", "Print a CI workflow that tests and pushes a project.", WIRE, "belt ci github ."
    ),
    "schema": CommandSpec("belt.commands.schema:schema", "Print the JSON Schema of an event, or AsyncAPI.", WIRE),
}


class Lazy(TyperGroup):
    """Knows every command's name and summary; imports only the one that is run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        lives = COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=lives.help, rich_help_panel=lives.panel) if lives else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = {name: self.get_command(ctx, name) for name in COMMANDS}  # what a typo is compared with
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(COMMANDS[name]) if name else None, rest


def load(lives: CommandSpec) -> Any:
    """The real command: a function becomes one, a `typer.Typer` is a group."""
    module, _, attribute = lives.at.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return _group(found, lives)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name=attribute)(found)
    return typer.main.get_command(alone)


def _group(found: typer.Typer, lives: CommandSpec) -> Any:
    """A group below `belt`: completion is installed by `belt`, for all of them."""
    above = typer.Typer(add_completion=False, rich_markup_mode="rich")
    above.add_typer(found, name="group", help=f"{lives.help}\n\nExample:  {lives.example}")
    return typer.main.get_group(above).commands["group"]


app = typer.Typer(
    name="belt", cls=Lazy, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_show_locals=False
)


@app.callback()
def belt() -> None:
    """Push data or code; get a judged, packed, rolled-out and watched model.

    Example:  belt push examples/digits --wait

    NATS_URL and BELT_GATEWAY point belt at another bus and gateway than the one `belt up` started here.
    """


if __name__ == "__main__":
    app(prog_name="belt")
