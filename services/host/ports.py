"""Ports of this machine: free ones, and the process that listens on a port."""

import random
import socket
from pathlib import Path

LOWEST = 20_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port on 127.0.0.1 that nobody listens on; see `free_ports`."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different ports on 127.0.0.1 that nobody listens on.

    They lie below the range that the system uses for outgoing connections. Within that range, a client that connects
    while the server restarts could be given the server's own port, connect to itself and block the server.

    Raises:
        OSError: too few ports are free.
    """
    found: list[int] = []
    for port in random.sample(range(LOWEST, _first_outgoing()), k=1000):
        if len(found) < count and is_free(port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"found fewer than {count} free ports on 127.0.0.1")
    return found


def is_free(port: int) -> bool:
    """Return whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def port_holder(port: int) -> str | None:
    """Return the process that listens on `port`, as "pid 4711: its command line"; None when it cannot be seen."""
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
