"""The `belt` command. A command's module is imported when the command runs, so that `belt --help` is quick."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import services  # noqa: F401  # before nats-py, which it keeps slim


class CommandSpec(NamedTuple):
    """Location of a command in this package (`module:attribute`) and its line in `belt --help`."""

    at: str
    help: str
    panel: str


RUN, LOOK, USE, CONNECT = "Run", "Inspect", "Use and decide", "Connect git, CI and other programs"

COMMANDS = {
    "demo": CommandSpec("demo.demo:demo", "Show the whole loop on real data, in about a minute.", RUN),
    "up": CommandSpec("commands.up:up", "Start the bus, the gateway and all workers, and keep them running.", RUN),
    "doctor": CommandSpec("commands.doctor:doctor", "Check this machine and its `belt up`, and say what to do.", RUN),
    "push": CommandSpec(
        "commands.push:push", "Push a model project: train, judge, build and deploy a new version.", RUN
    ),
    "runs": CommandSpec("commands.runs:runs", "List the runs, newest first.", LOOK),
    "run": CommandSpec("commands.runs:run", "Show one run: its stages, verdict and every event.", LOOK),
    "watch": CommandSpec("commands.watch:watch", "Follow one run or all of them live.", LOOK),
    "logs": CommandSpec("commands.logs:logs", "Show the log lines of the workers and the serving processes.", LOOK),
    "models": CommandSpec("commands.models:models", "List the models with their live and approved versions.", LOOK),
    "deployments": CommandSpec(
        "commands.models:deployments", "List the live version of each model and the one before it.", LOOK
    ),
    "trace": CommandSpec(
        "commands.trace:trace", "Trace a prediction, version or image back to its data, commit and verdict.", LOOK
    ),
    "predict": CommandSpec("commands.predict:predict", "Get predictions from the live version.", USE),
    "feedback": CommandSpec("commands.predict:feedback", "Send the true labels of predictions.", USE),
    "review": CommandSpec("commands.review:app", "Approve or reject versions that the gate did not pass.", USE),
    "rollback": CommandSpec(
        "commands.rollback:rollback", "Move the traffic back to the previous (or a named) version.", USE
    ),
    "replay": CommandSpec("commands.replay:replay", "Publish a stored event again, or start its run anew.", USE),
    "hook": CommandSpec("commands.hook:app", "Install a git hook that pushes the project.", CONNECT),
    "ci": CommandSpec("commands.ci:app", "Print a CI workflow that tests and pushes a project.", CONNECT),
    "schema": CommandSpec("commands.schema:schema", "Print the JSON Schema of an event, or AsyncAPI.", CONNECT),
}


class LazyGroup(TyperGroup):
    """A group that knows the name and summary of every command and imports only the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        spec = COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=spec.help, rich_help_panel=spec.panel) if spec else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = {name: self.get_command(ctx, name) for name in COMMANDS}  # a typo is compared with these names
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(COMMANDS[name]) if name else None, rest

    def invoke(self, ctx: Any) -> Any:
        from belt import output  # imported here, because `belt --help` does not need it

        try:
            return super().invoke(ctx)
        except output.Failed as error:
            output.fail(str(error))


def load(spec: CommandSpec) -> Any:
    """Import a command: a function becomes a command, a `typer.Typer` a group."""
    module, _, attribute = spec.at.partition(":")
    found = getattr(import_module(f"belt.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        command, found = found, typer.Typer(add_completion=False, rich_markup_mode="rich")
        found.command(name=attribute)(command)
    return typer.main.get_command(found)


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
