"""The `belt` command. A command's module is imported when the command runs, so that `belt --help` is quick."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import services  # noqa: F401  # before nats-py, which it keeps slim


class CommandSpec(NamedTuple):
    """Location of a command (`module:attribute`, a function or a `typer.Typer`) and its line in `belt --help`."""

    at: str
    help: str
    panel: str
    example: str = ""
    """Shown in the help of a group; the help of a command has its own."""


RUN, LOOK, USE, CONNECT = "Run", "Inspect", "Use and decide", "Connect git, CI and other programs"

COMMANDS = {
    "demo": CommandSpec("belt.demo.demo:demo", "Show the whole loop on real data, in about a minute.", RUN),
    "up": CommandSpec("belt.commands.up:up", "Start the bus, the gateway and all workers, and keep them running.", RUN),
    "doctor": CommandSpec(
        "belt.commands.doctor:doctor", "Check this machine and its `belt up`, and say what to do.", RUN
    ),
    "push": CommandSpec(
        "belt.commands.push:push", "Push a model project: train, judge, build and deploy a new version.", RUN
    ),
    "runs": CommandSpec("belt.commands.runs:runs", "List the runs, newest first.", LOOK),
    "run": CommandSpec("belt.commands.runs:run", "Show one run: its stages, verdict and every event.", LOOK),
    "watch": CommandSpec("belt.commands.watch:watch", "Follow one run or all of them live.", LOOK),
    "logs": CommandSpec(
        "belt.commands.logs:logs", "Show the log lines of the workers and the serving processes.", LOOK
    ),
    "models": CommandSpec(
        "belt.commands.models:models", "List the models with their live and approved versions.", LOOK
    ),
    "deployments": CommandSpec(
        "belt.commands.models:deployments", "List the live version of each model and the one before it.", LOOK
    ),
    "trace": CommandSpec(
        "belt.commands.trace:trace", "Trace a prediction, version or image back to its data, commit and verdict.", LOOK
    ),
    "predict": CommandSpec("belt.commands.predict:predict", "Get predictions from the live version.", USE),
    "feedback": CommandSpec("belt.commands.predict:feedback", "Send the true labels of predictions.", USE),
    "review": CommandSpec(
        "belt.commands.review:app", "Approve or reject versions that the gate did not pass.", USE, "belt review list"
    ),
    "rollback": CommandSpec(
        "belt.commands.rollback:rollback", "Move the traffic back to the previous (or a named) version.", USE
    ),
    "replay": CommandSpec("belt.commands.replay:replay", "Publish a stored event again, or start its run anew.", USE),
    "hook": CommandSpec(
        "belt.commands.hook:app",
        "Install a git hook that pushes the project.",
        CONNECT,
        "belt hook install examples/digits",
    ),
    "ci": CommandSpec(
        "belt.commands.ci:app", "Print a CI workflow that tests and pushes a project.", CONNECT, "belt ci github ."
    ),
    "schema": CommandSpec("belt.commands.schema:schema", "Print the JSON Schema of an event, or AsyncAPI.", CONNECT),
}


class LazyGroup(TyperGroup):
    """A group that knows the name and summary of every command and imports only the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        spec = COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=spec.help, rich_help_panel=spec.panel) if spec else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = {
            name: self.get_command(ctx, name) for name in COMMANDS
        }  # the names that a typo is compared with
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(COMMANDS[name]) if name else None, rest


def load(spec: CommandSpec) -> Any:
    """Import a command: a function becomes a command, a `typer.Typer` a group."""
    module, _, attribute = spec.at.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return _group(found, spec)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name=attribute)(found)
    return typer.main.get_command(alone)


def _group(found: typer.Typer, spec: CommandSpec) -> Any:
    """Make a group below `belt` without options for shell completion: `belt` itself has them."""
    above = typer.Typer(add_completion=False, rich_markup_mode="rich")
    above.add_typer(found, name="group", help=f"{spec.help}\n\nExample:  {spec.example}")
    return typer.main.get_group(above).commands["group"]


app = typer.Typer(
    name="belt", cls=LazyGroup, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_show_locals=False
)


@app.callback()
def belt() -> None:
    """Push data or code; get a model that is judged, packed, deployed and monitored.

    Example:  belt push examples/digits --wait

    `belt up` writes the addresses of the bus and the gateway into its home (--home).
    The other commands read them there. Set NATS_URL and BELT_GATEWAY to use others.
    """


if __name__ == "__main__":
    app(prog_name="belt")
