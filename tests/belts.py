"""One whole belt for tests: `belt up` as a person starts it, on a home of its own, and the commands against it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from belt import ports
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[1]
BELT = [sys.executable, "-m", "belt.main"]


class Belt:
    """A running belt and the commands against it."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, ports.free(1)[0]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self._up: subprocess.Popen[str] | None = None

    def up(self) -> None:
        self._up = subprocess.Popen(
            [*BELT, "up", "--home", str(self.home), "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._up.stdout is not None
        assert self._up.stdout.readline().strip() == "ready"

    def down(self) -> None:
        assert self._up is not None
        self._up.send_signal(signal.SIGTERM)
        assert self._up.wait(60) == 0

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A belt command; it has to exit with `code`."""
        done = subprocess.run(
            [*BELT, *arguments],
            env=os.environ | {"BENTOBELT_HOME": str(self.home)},
            capture_output=True,
            text=True,
            input=stdin,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == code, f"belt {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def push(self, project: Path | str, *options: str) -> dict[str, Any]:
        """Push and wait until the run is over, however it ended."""
        run = self.json("push", str(project), *options)["run"]
        return until(lambda: self._over(run), seconds=90)

    def _over(self, run: str) -> dict[str, Any]:
        told: dict[str, Any] = self.json("run", run) if self._known(run) else {}
        return told if told.get("outcome", "running") != "running" else {}

    def _known(self, run: str) -> bool:
        return any(known["run"] == run for known in self.json("runs"))

    def version(self, model: str) -> str:
        response = self.http.get(f"/{model}/info")
        assert response.status_code == 200, response.text
        return str(response.json()["version"])
