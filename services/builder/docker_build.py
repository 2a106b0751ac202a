"""Builds of images by BuildKit, through the `docker` command with Buildx."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.builder.commands import TAIL, CommandRunner
from services.docker_engine import DockerRefused, DockerTrouble, NoSpace, Operation, StreamError, explain, readable

COMMAND = 120
"""Characters of a step's command that are shown."""
TOOL_SECONDS = 10
_STEP = re.compile(r"#(\d+) \[(?P<name>[^\]]+)\] ?(?P<command>.*)")
_LINE = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")
_MAY_PASS = re.compile(
    r"connection (refused|reset|timed out|broken by|aborted)"
    r"|(read|operation|resolving|handshake|request|download) timed out|network is unreachable|urlopen error"
    r"|temporary failure|could not (resolve|connect to)|unable to resolve host|no such host|dns error|tcp connect error"
    r"|error sending request|failed to fetch:? `?http|remote end closed connection|i/o timeout"
    r"|etimedout|econnreset|eai_again|curl: \((6|7|28|35|52|55|56)\)"
    r"|(http error|too many) (429|5\d\d)|429 +too many requests"
    r"|50[0234] +(internal server error|bad gateway|service unavailable|gateway time-?out)"
    r"|did not complete successfully: exit code: 137",
    re.I,
)
"""Lines of pip, uv, apt, curl and others whose server does not answer, and of a step that was killed (137). A single
word such as "timeout" does not count: the project's own code prints it, too."""
_MISTAKE = re.compile(
    r"^ERROR: .*(dockerfile parse error|unknown instruction"
    r"|failed to (compute cache key|calculate checksum).*\": not found"
    r"|failed to read dockerfile: .*(no such file|is a directory)|resolve : lstat .*no such file"
    r"|target stage .* could not be found|the dockerfile cannot be empty|base name .* should not be blank"
    r"|unsupported mount type)",
    re.I | re.M,
)
"""Mistakes in a Dockerfile, or in its path, that no step reports."""


class BuildStepFailed(DockerRefused):
    """A Dockerfile is wrong, or a step of it fails: every attempt would fail."""


@dataclass(frozen=True)
class ImageBuild:
    """One build of an image.

    Attributes:
        name: name and tag of the image.
        dockerfile: file with the steps.
        context: folder that the steps copy from.
        target: stage to build; default: the last one.
        contexts: further folders that the steps copy from, by name.
        arguments: build arguments by name.
        labels: labels of the image.
        secrets: files and values that a step may read and that no layer keeps: the address of a package index, say.
    """

    name: str
    dockerfile: Path
    context: Path
    target: str = ""
    contexts: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path | str] = field(default_factory=dict)


class DockerBuild:
    """Builds images with `docker buildx build`.

    Args:
        commands: runs the docker command.
        folder: for Buildx's own notes.
        seconds: how long one build may take.
    """

    def __init__(self, commands: CommandRunner, folder: Path, seconds: float) -> None:
        self._commands, self._folder, self._seconds = commands, folder.resolve() / "buildx", seconds

    def run(self, build: ImageBuild, progress: Callable[[str], None] = lambda _: None) -> None:
        """Build an image in the engine that DOCKER_HOST names.

        Args:
            build: what to build.
            progress: called with the name of each step that starts, such as "packages 2/3".

        Raises:
            BuildStepFailed: the Dockerfile is wrong or a step fails; the text has the last lines of that step.
            DockerTrouble, DockerRefused: engine or registry failed.
        """
        notes = {"BUILDX_CONFIG": str(self._folder), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        secrets = {_variable(name): value for name, value in build.secrets.items() if isinstance(value, str)}
        operation = Operation(f"building {build.name}", "", "BUILDER")
        code, lines = self._commands.run(
            command(build), notes | secrets, operation.what,
            seconds=self._seconds, limit="3 times BUILDER_SECONDS", follow=_step_reporter(progress),
        )  # fmt: skip
        if code:
            raise failure(lines, operation)


def _step_reporter(progress: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that takes the lines of an output and calls `progress` once for each step."""
    started: set[str] = set()

    def follow(line: str) -> None:
        # A step is named once more whenever the output comes back to it.
        if (step := _STEP.match(line)) and "/" in step["name"] and step["name"] not in started:
            started.add(step["name"])
            progress(step["name"])

    return follow


def _variable(secret: str) -> str:
    """Return the environment variable that carries a secret to Buildx."""
    return f"BUILD_SECRET_{secret.upper()}"


def command(build: ImageBuild) -> list[str]:
    """Return the command line of a build: always with the engine's own BuildKit, which has the engine's images."""
    options = ["--progress=plain", "--builder=default", "--load", f"--file={build.dockerfile}", f"--tag={build.name}"]
    options += [f"--target={build.target}"] if build.target else []
    options += [f"--build-context={name}={folder}" for name, folder in build.contexts.items()]
    options += [f"--build-arg={name}={value}" for name, value in build.arguments.items()]
    options += [f"--label={name}={value}" for name, value in build.labels.items()]
    for name, value in build.secrets.items():
        source = f"env={_variable(name)}" if isinstance(value, str) else f"src={value}"
        options.append(f"--secret=id={name},{source}")
    return ["docker", "--context=default", "buildx", "build", *options, str(build.context)]


def failure(lines: Sequence[str], operation: Operation) -> DockerTrouble | DockerRefused:
    """Return the error for the plain output of a failed build, with the last lines of the step that failed."""
    step = _failed_step(lines)
    title, printed = step or ("", list(lines))
    operation = replace(operation, what=f"{operation.what}: the step {title}" if step else operation.what)
    text = "\n".join(printed[-TAIL:])
    end = StreamError(text)
    error = explain(end, operation)
    if isinstance(error, NoSpace):
        return error
    if _MISTAKE.search(text):
        return BuildStepFailed(f"{operation.what} failed:\n{readable(end)}")
    if "did not complete successfully" not in text:
        return error
    kind = DockerTrouble if _MAY_PASS.search(text) else BuildStepFailed
    return kind(f"{operation.what} failed:\n{readable(end)}")


def _failed_step(lines: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return title and output of the step that the output marks with ERROR."""
    number = next((line.split()[0] for line in lines if re.match(r"#\d+ ERROR", line)), None)
    if number is None:
        return None
    title, printed = number, []
    for line in lines:
        if step := _STEP.match(line):
            title = f"[{step['name']}] {step['command'][:COMMAND]}" if line.startswith(f"{number} ") else title
        elif line.startswith(f"{number} ") and (found := _LINE.match(line)):
            printed.append(found[2])
    return title, printed


def require_docker_command(setting: str) -> None:
    """Check that builds will find the docker command and Buildx. An engine need not answer yet.

    Raises:
        SystemExit: there is no docker command with Buildx.
    """
    try:
        subprocess.run(["docker", "buildx", "version"], capture_output=True, check=True, timeout=TOOL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        sys.exit(
            f"BUILDER_IMAGES={setting} needs the docker command with Buildx on the PATH of the builder: install both "
            "(on Debian the packages docker-cli and docker-buildx)"
        )
