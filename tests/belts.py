"""One whole belt for tests: `belt up` as a person starts it, on a home of its own, and the commands against it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from services.host import free_port

ROOT = Path(__file__).resolve().parents[1]
BELT = [sys.executable, "-m", "belt.main"]
COMMAND_SECONDS = 120


class Belt:
    """A running belt and the commands against it; settings are environment variables of its workers."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home, self.port, self._settings = home, free_port(), settings
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self._up: subprocess.Popen[str] | None = None
        self._output = home.with_name(f"{home.name}.up.log")

    def up(self) -> None:
        with self._output.open("a") as log:
            self._up = subprocess.Popen(
                [*BELT, "up", "--home", str(self.home), "--port", str(self.port)],
                env=os.environ | self._settings,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._up.stdout is not None
        assert self._up.stdout.readline().strip() == "ready", self._output.read_text()

    def down(self) -> None:
        assert self._up is not None
        self._up.send_signal(signal.SIGTERM)
        assert self._up.wait(60) == 0, self._output.read_text()

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A belt command; it has to exit with `code`."""
        done = self._called(*arguments, stdin=stdin)
        assert done.returncode == code, _told(done)
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def push(self, project: Path | str, *options: str) -> dict[str, Any]:
        """Push and wait until the run is over, however it ended: what `belt run` says of it."""
        done = self._called("push", str(project), "--wait", "--json", *options)
        assert done.stdout, _told(done)
        told: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if told["outcome"] == "deployed" else 1), _told(done)
        return told

    def finished(self, run: str) -> dict[str, Any]:
        """A run that was started without waiting, once it is over."""
        self.run("watch", run)
        told: dict[str, Any] = self.json("run", run)
        return told

    def version(self, model: str) -> str:
        response = self.http.get(f"/{model}/info")
        assert response.status_code == 200, response.text
        return str(response.json()["version"])

    def nats_url(self) -> str:
        return (self.home / "nats.url").read_text().strip()

    @property
    def environ(self) -> dict[str, str]:
        """Of commands against this belt."""
        return os.environ | {"BENTOBELT_HOME": str(self.home)}

    def _called(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BELT, *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            input=stdin,
            check=False,
            cwd=ROOT,
            timeout=COMMAND_SECONDS,
        )


def _told(done: subprocess.CompletedProcess[str]) -> str:
    return f"{' '.join(map(str, done.args[2:]))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
