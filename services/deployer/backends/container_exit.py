"""How a container ended, in words that a person can act on, and whether another start may do."""

import socket
import time
from collections.abc import Mapping
from typing import Any

from docker import DockerClient
from docker.errors import NotFound

from services.deployer.backends.protocol import ExitReport, Server

OOM_SECONDS = 600
"""How long ago a container may have run out of memory and still be told so."""
TAIL = 3000
"""Characters of a server's log that are worth showing."""


def exit_report(client: DockerClient, server: Server) -> ExitReport:
    """How the container of `server` ended, when it did, and the end of its log."""
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
    """Whether it did lately: what the engine has started again does not know it any more."""
    now = int(time.time())
    filters = {"container": server.id, "event": "oom"}
    return any(True for _ in client.api.events(since=now - OOM_SECONDS, until=now, filters=filters, decode=True))


def _how(state: Mapping[str, Any]) -> tuple[str, bool]:
    """How a container ended, in words, and whether something outside ended it."""
    code = state["ExitCode"]
    if state["Running"]:
        return "", False
    if state["Error"]:
        return f"{state['Error']}\n", False
    return (f"signal {code - 128}\n", True) if code > 128 else (f"exit code {code}\n", False)


def _is_taken(url: str) -> bool:
    """Whether somebody listens on the port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0
