"""Python environments that models are loaded in, each named by the digest of its locked requirements.

The base environment is this interpreter, locked by requirements/serving.txt. A project with extra requirements gets an
environment of its own, made once: uv locks it on top of the base, so that no version of a base package changes.
"""

import asyncio
import hashlib
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import structlog

from contracts.artifact_ref import TEXT, ArtifactRef
from contracts.runtime import Environment
from services.host import locked, sha256_of, without_passwords
from services.messaging import Permanent
from services.storage import ArtifactStore

BASE_LOCK = Path(__file__).resolve().parents[2] / "requirements" / "serving.txt"
MAKE_SECONDS = 600.0
OUTPUT_CHARACTERS = 2000
_TEMPORARY = re.compile(
    "error sending request|HTTP status server error|408 Request Timeout|429 Too Many Requests|timed out|"
    "connection (reset|closed)|decoding response body|No space left on device",
    re.IGNORECASE,
)
"""Errors of uv that come from the network, the index or this machine, and may pass; all others are final."""
log = structlog.get_logger()


class BadRequirements(Permanent):
    """uv could not lock or install the project's extra requirements; the text is uv's own."""


class IndexTrouble(Exception):
    """uv could not reach the package index, or the index did not answer; the next attempt may succeed."""


class InstallTimedOut(Exception):
    """uv took too long; its downloads are kept, so the next attempt has less to do."""

    attempts = 2


class Environments:
    """Locks and makes environments under a folder that workers of one machine may share.

    Args:
        folder: folder of the environments.
        artifacts: store of the locks.
        seconds: time limit of uv for one environment.
    """

    def __init__(self, folder: Path, artifacts: ArtifactStore, seconds: float = MAKE_SECONDS) -> None:
        self._folder, self._artifacts, self._seconds = folder.resolve(), artifacts, seconds
        self.base = Environment(python=platform.python_version(), lock=sha256_of(BASE_LOCK))

    async def resolve(self, requirements: Sequence[str]) -> Environment:
        """Return the environment for a project's extra requirements; without any, the base environment.

        Raises:
            BadRequirements: no set of versions fits.
            IndexTrouble, InstallTimedOut: the next attempt may succeed.
        """
        # The base lock is kept too: after an upgrade its models still have an environment to be loaded in.
        lock = await self._lock(tuple(sorted(requirements))) if requirements else BASE_LOCK
        ref = await self._artifacts.put(lock, TEXT)
        return Environment(python=self.base.python, lock=ref.sha256, requirements=tuple(requirements), locked=ref.uri)

    async def python(self, environment: Environment) -> Path:
        """Return the interpreter of an environment, which is made now if it is missing.

        Raises:
            BadRequirements: uv cannot install what is locked.
            IndexTrouble, InstallTimedOut: the next attempt may succeed.
        """
        if environment.lock == self.base.lock:
            return Path(sys.executable)
        if not environment.locked:
            raise BadRequirements(
                f"environment {environment.lock[:12]} is neither this installation's nor has it a lock to be made from"
            )
        folder = self._folder / environment.lock
        if not (folder / "complete").exists():
            ref = ArtifactRef(uri=environment.locked, sha256=environment.lock, size=0, media_type=TEXT)
            await self._make(folder, await self._artifacts.fetch(ref), environment)
        return folder / "bin" / "python"

    async def _lock(self, requirements: tuple[str, ...]) -> Path:
        """Lock each set of requirements once: a later release of a package does not change a known lock."""
        wanted = "\n".join(requirements) + "\n"
        key = hashlib.sha256(f"{self.base.lock}\n{platform.python_version()}\n{wanted}".encode()).hexdigest()
        known = self._folder / f"{key}.lock"
        if not known.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            _log_install(requirements)
            with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
                extra, compiled = Path(scratch) / "extra.in", Path(scratch) / "locked.txt"
                extra.write_text(wanted)
                await _uv(
                    f"lock {', '.join(requirements)}", self._seconds,
                    "pip", "compile", str(BASE_LOCK), str(extra), "-o", str(compiled), "--generate-hashes",
                    "--no-header", "--no-annotate", "--python", sys.executable,
                )  # fmt: skip
                compiled.replace(known)
        return known

    async def _make(self, folder: Path, lock: Path, environment: Environment) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as lock_held:
            await asyncio.to_thread(lock_held.enter_context, locked(folder.with_suffix(".making")))
            if (folder / "complete").exists():
                return
            _log_install(environment.requirements)
            what = f"install {', '.join(environment.requirements) or f'what {lock.name[:12]} locks'}"
            if environment.python != self.base.python:
                what += f", locked for Python {environment.python}, with {self.base.python}"
            shutil.rmtree(folder, ignore_errors=True)
            await _uv(what, self._seconds, "venv", "--quiet", "--python", sys.executable, str(folder))
            await _uv(
                what, self._seconds,
                "pip", "install", "--quiet", "--require-hashes", "--compile-bytecode", "--no-deps",
                "--python", str(folder / "bin" / "python"), "-r", str(lock),
            )  # fmt: skip
            (folder / "complete").touch()


def _log_install(requirements: Sequence[str]) -> None:
    """Log that packages are installed, which can take minutes; `belt watch` shows it."""
    log.info(
        "progress",
        step="install",
        packages=without_passwords(", ".join(requirements)) or "those it was trained with",
        note="first time only",
    )


async def _uv(what: str, seconds: float, *arguments: str) -> None:
    """Run uv; `what` describes the purpose, for messages.

    Raises:
        BadRequirements: uv failed, and would fail again; with the end of its output.
        IndexTrouble: uv failed, and the next attempt may succeed.
        InstallTimedOut: uv took longer than `seconds`.
    """
    from uv import find_uv_bin

    what = without_passwords(what)  # a requirement may be an address
    process = await asyncio.create_subprocess_exec(
        find_uv_bin(), *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        raise InstallTimedOut(f"uv took longer than {seconds:g} s to {what}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        output = without_passwords(errors.decode(errors="replace").strip())
        failure = IndexTrouble if _TEMPORARY.search(output) else BadRequirements
        raise failure(f"uv could not {what}: {output[-OUTPUT_CHARACTERS:]}")
