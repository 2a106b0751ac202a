"""Builds of images by BuildKit, through the `docker` command with Buildx."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.docker_engine import DockerRefused, DockerTrouble, Doing, NoSpace, StreamError, explain, readable

TAIL = 30
"""Lines of a failed step that a person gets to see."""
COMMAND = 120
"""Characters of a step's command that are shown."""
TOOL_SECONDS = 10
_STEP = re.compile(r"#(\d+) \[(?P<name>[^\]]+)\] ?(?P<command>.*)")
_LINE = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_MAY_PASS = re.compile(
    r"connection refused|connection reset|timed? ?out|temporary failure|could not resolve|could not connect"
    r"|no such host|dns error|error sending request|failed to fetch http|network is unreachable|service unavailable"
    r"|bad gateway|too many requests|remote end closed|exit code: 137",
    re.I,
)
"""Failures of a step that come from outside: a package index that does not answer, a process that was killed."""
_MISTAKE = re.compile(
    r"dockerfile parse error|failed to (compute cache key|calculate checksum)|unknown instruction", re.I
)


class BuildStepFailed(DockerRefused):
    """A step of a Dockerfile fails, and will fail at every attempt."""


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
    """Runs builds; `close` ends those that run.

    Args:
        folder: for Buildx's own notes.
        seconds: how long one build may take.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder.resolve() / "buildx", seconds
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def run(self, build: ImageBuild, progress: Callable[[str], None] = lambda _: None) -> None:
        """Build an image in the engine that DOCKER_HOST names.

        Args:
            build: what to build.
            progress: called with the name of each step that starts, such as "packages 2/3".

        Raises:
            BuildStepFailed: a step fails, with its own last lines.
            DockerTrouble, DockerRefused: engine or registry failed.
        """
        process = _start(build, self._folder)
        self._running.add(process)
        if self._closed:
            _kill(process)
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(self._seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            lines = _follow(process, progress)
        finally:
            timer.cancel()
            self._running.discard(process)
        doing = Doing(f"building {build.name}", "", "BUILDER")
        if self._closed:
            raise DockerTrouble(f"{doing.what}: the builder is being stopped")
        if late.is_set():
            end = "\n".join(lines[-TAIL:])
            raise DockerTrouble(f"{doing.what} took longer than {self._seconds:g} s, 3 times BUILDER_SECONDS\n{end}")
        if process.returncode:
            raise failure(lines, doing)

    def close(self) -> None:
        """End what runs, and start nothing more."""
        self._closed = True
        for process in list(self._running):
            _kill(process)


def _start(build: ImageBuild, folder: Path) -> "subprocess.Popen[str]":
    values = {f"BUILD_SECRET_{name.upper()}": value for name, value in build.secrets.items() if isinstance(value, str)}
    notes = {"BUILDX_CONFIG": str(folder), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    try:
        return subprocess.Popen(
            command(build), env=os.environ | notes | values, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise DockerRefused(f"building {build.name}: the docker command does not start: {error}") from error


def _follow(process: "subprocess.Popen[str]", progress: Callable[[str], None]) -> list[str]:
    """Return all lines of the output once the process has ended."""
    lines: list[str] = []
    started: set[str] = set()
    assert process.stdout is not None, "it is a pipe"
    for line in process.stdout:
        lines.append(_COLOUR.sub("", line.rstrip()))
        # A step is named once more whenever the output comes back to it.
        if (step := _STEP.match(lines[-1])) and "/" in step["name"] and step["name"] not in started:
            started.add(step["name"])
            progress(step["name"])
    process.wait()
    return lines


def command(build: ImageBuild) -> list[str]:
    """Return the command line of a build: always with the engine's own BuildKit, which has the engine's images."""
    options = ["--progress=plain", "--builder=default", "--load", f"--file={build.dockerfile}", f"--tag={build.name}"]
    options += [f"--target={build.target}"] if build.target else []
    options += [f"--build-context={name}={folder}" for name, folder in build.contexts.items()]
    options += [f"--build-arg={name}={value}" for name, value in build.arguments.items()]
    options += [f"--label={name}={value}" for name, value in build.labels.items()]
    for name, value in build.secrets.items():
        source = f"env=BUILD_SECRET_{name.upper()}" if isinstance(value, str) else f"src={value}"
        options.append(f"--secret=id={name},{source}")
    return ["docker", "--context=default", "buildx", "build", *options, str(build.context)]


def failure(lines: Sequence[str], doing: Doing) -> DockerTrouble | DockerRefused:
    """Return the error for the plain output of a failed build, with the last lines of the step that failed."""
    step = _failed_step(lines)
    title, printed = step or ("", list(lines))
    text = "\n".join(printed)
    doing = replace(doing, what=f"{doing.what}: the step {title}" if step else doing.what)
    end = StreamError("\n".join(printed[-TAIL:]))
    error = explain(end, doing)
    of_the_step = "did not complete successfully" in text or _MISTAKE.search(text)
    if isinstance(error, NoSpace) or not of_the_step:
        return error
    kind = DockerTrouble if _MAY_PASS.search(text) else BuildStepFailed
    return kind(f"{doing.what} failed:\n{readable(end)}")


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


def _kill(process: "subprocess.Popen[str]") -> None:
    """End the command and the Buildx process that it has started; BuildKit then stops the build."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, signal.SIGKILL)
