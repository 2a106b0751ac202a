"""A serving process that is started before there is a Bento to serve, so that its imports are already done.

The process is `serving/entrypoints/bentoml_worker.py`. It becomes the HTTP worker of BentoML, which `bentoml serve`
starts behind its supervisor, on a socket that is bound here. So no port has to be guessed. The supervisor is left out:
the deployer is one.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "serving" / "entrypoints" / "bentoml_worker.py"
LOG = "server.log"


@dataclass(frozen=True)
class Standby:
    """A started process with its folder and its bound port. It waits for the Bento to serve."""

    child: subprocess.Popen[bytes]
    python: Path
    folder: Path
    port: int
    socket_fd: int

    @property
    def has_ended(self) -> bool:
        return self.child.poll() is not None

    def serve(self, bento: Path, image: str, grace: float) -> None:
        """Send it the folder of the Bento; from now on it outlives this process."""
        assert self.child.stdin is not None
        order = {
            "bento": str(bento),
            "socket_fd": self.socket_fd,
            "grace_seconds": grace,
            "environ": {"BENTOBELT_IMAGE": image},
        }
        with contextlib.suppress(BrokenPipeError):  # it has ended already: its log says why
            self.child.stdin.write(json.dumps(order).encode() + b"\n")
            self.child.stdin.close()

    def end(self) -> None:
        """End it unused and remove its folder."""
        self.child.kill()
        self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(root: Path, python: Path, script: Path, nats_url: str, variables: Mapping[str, str]) -> Standby:
    """Start a process on standby in a new folder of `root`, whose name begins with the pid of this process.

    `variables` are those of the project's `env`; they come before its imports and never replace the server's own.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=f"{os.getpid()}."))
    (folder / "home" / "metrics").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener, (folder / LOG).open("wb") as log:
        child = subprocess.Popen(
            [str(python), "-P", str(script)],
            cwd=folder,
            env=_environ(folder / "home", nats_url, variables),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )
        return Standby(child, python, folder, listener.getsockname()[1], listener.fileno())


def _environ(home: Path, nats_url: str, variables: Mapping[str, str]) -> dict[str, str]:
    # Without PYTHONPATH: the code that serves comes from the Bento, not from this checkout.
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HTTP_PORT")}
    return (
        inherited
        | dict(variables)
        | {
            "BENTOML_HOME": str(home),
            "BENTOML_DO_NOT_TRACK": "True",
            "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics"),
            "NATS_URL": nats_url,
        }
    )
