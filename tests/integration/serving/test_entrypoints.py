"""BentoML's worker as it is started in a container and on the host, with a Bento that was really built."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import serving
from services.host import free_port
from serving.entrypoints import bentoml_worker
from tests.integration.serving.serving_bento import VERSION
from tests.waiting import until

CODE = Path(serving.__file__).parent


@contextmanager
def started(
    command: Sequence[str | Path], home: Path, environ: dict[str, str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    folders = {"BENTOML_HOME": str(home), "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics")}
    (home / "metrics").mkdir()
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", *command],
            env=inherited | folders | {"BENTOML_DO_NOT_TRACK": "True", "NATS_URL": "nats://127.0.0.1:1"} | environ,
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
            **options,
        )
    try:
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        # uvicorn finishes the requests in flight, then lets the signal end the process.
        assert server.wait(30) == -signal.SIGTERM, (home / "server.log").read_text()[-3000:]


def served_version(port: int) -> str | None:
    try:
        ready = httpx.get(f"http://127.0.0.1:{port}/readyz")
    except httpx.TransportError:
        return None
    return ready.headers.get("X-Model-Version") if ready.status_code == 200 else None


def test_a_container_serves_the_bento_that_its_code_is_in(bento: Path, home: Path) -> None:
    environ = {"HOST": "127.0.0.1", "PORT": str(free_port())}
    code = bento / "src" / "serving" / "entrypoints"
    with started([code / "container.py"], home, environ):
        until(lambda: served_version(int(environ["PORT"])) == VERSION, seconds=60)
        check: list[str | Path] = [sys.executable, "-I", "-S", code / "healthcheck.py"]
        assert subprocess.run(check, env=os.environ | environ, check=False).returncode == 0


def test_a_server_on_standby_serves_the_bento_it_is_given(bento: Path, home: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        started([bentoml_worker.__file__], home, {}, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),)) as server,
    ):
        order = {"bento": str(bento), "socket_fd": listener.fileno(), "grace_seconds": 5.0, "environ": {}}
        assert server.stdin
        server.stdin.write(json.dumps(order).encode() + b"\n")
        server.stdin.close()
        until(lambda: served_version(listener.getsockname()[1]) == VERSION, seconds=60)


def test_our_code_in_a_bento_is_serving_and_its_contracts(bento: Path) -> None:
    code = {str(file.relative_to(bento / "src")) for file in (bento / "src").rglob("*.py")}
    contracts = {f"contracts/{name}.py" for name in ("__init__", *serving.CONTRACTS)}
    assert code == contracts | {str(file.relative_to(CODE.parent)) for file in CODE.rglob("*.py")}
