"""Report about a container that ended: the reason, the end of its log, and whether another start may succeed."""

import socket
import time
from collections.abc import Mapping
from typing import Any

from docker import DockerClient
from docker.errors import NotFound

from services.deployer.backends.protocol import ExitReport, Server

OOM_SECONDS = 600
"""Age up to which an out-of-memory event of a container counts as the reason of its end."""
TAIL = 3000
"""Characters at the end of a server's log that are reported."""


def exit_report(client: DockerClient, server: Server) -> ExitReport:
    """Return how the container of `server` ended, if it did, and the end of its log."""
    try:
        found = client.api.inspect_container(server.id)
        log = client.api.logs(server.id, tail=100).decode(errors="replace")[-TAIL:].strip()
    except NotFound:
        return ExitReport("somebody removed its container", retryable=True)
    state = found["State"]
    if found["HostConfig"]["NetworkMode"] == "host" and state["ExitCode"] and _is_taken(server.url):
        return ExitReport(f"another program took {server.url} first\n{log}", retryable=True)
    if state["OOMKilled"] or _ran_out_of_memory(client, server):
        limit = found["HostConfig"]["Memory"] >> 20
        return ExitReport(f"it was killed for using more than its {limit} MiB: raise serve.memory in model.yaml\n{log}")
    how, retryable = _how(state)
    return ExitReport(how + log, retryable)


def _ran_out_of_memory(client: DockerClient, server: Server) -> bool:
    """Return whether the engine recorded it lately: a container that was restarted has lost its own mark."""
    now = int(time.time())
    filters = {"container": server.id, "event": "oom"}
    return any(True for _ in client.api.events(since=now - OOM_SECONDS, until=now, filters=filters, decode=True))


def _how(state: Mapping[str, Any]) -> tuple[str, bool]:
    """Return how a container ended, as text, and whether another start may succeed."""
    code = state["ExitCode"]
    if state["Running"]:
        return "", False
    if state["Error"]:
        return f"{state['Error']}\n", False
    return (f"signal {code - 128}\n", True) if code > 128 else (f"exit code {code}\n", False)


def _is_taken(url: str) -> bool:
    """Return whether a program listens on this port of the machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0
