"""A container's health check: exits 0 when this container's server says that it is ready. Nothing but sockets, so that
asking costs little.
"""

import os
import socket
import sys

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what is listened on, and where that is reached


def main() -> int:
    """The exit code."""
    host = os.environ["HOST"]
    with socket.create_connection((ANYWHERE.get(host, host), int(os.environ["PORT"])), timeout=4) as asked:
        asked.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        return 0 if asked.recv(64).split(b" ")[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
