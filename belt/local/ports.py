"""Ports of this machine: which are free, and who holds one."""

import random
import socket
from pathlib import Path

LOWEST = 20_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on.

    They lie below those that the system gives to outgoing connections. There, while a server is being started again,
    a client that knocks at its port could be given that very port, connect to itself and keep the server out.
    """
    found: list[int] = []
    for port in random.sample(range(LOWEST, _first_outgoing()), k=1000):
        if len(found) < count and is_free(port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"there are no {count} free ports on 127.0.0.1")
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def holder(port: int) -> str | None:
    """The process that listens on `port`, as "pid 4711: its command line"; None when it cannot be seen."""
    import psutil

    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pid = next((c.pid for c in listening if c.laddr.port == port and c.pid), None)
        return f"pid {pid}: {' '.join(psutil.Process(pid).cmdline())[:200]}" if pid else None
    except psutil.Error:
        return None


def _first_outgoing() -> int:
    try:
        return max(int(RANGE.read_text().split()[0]), LOWEST + 2000)
    except (OSError, ValueError):
        return 32_768
