"""A container's health check: exits with 0 when the server of this container is ready. It imports only the standard
library, so that a check costs little.
"""

import os
import socket
import sys

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # address of a listening socket → address to reach it


def main() -> int:
    """Return the exit code."""
    host = os.environ["HOST"]
    with socket.create_connection((LOOPBACK.get(host, host), int(os.environ["PORT"])), timeout=4) as connection:
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        return 0 if connection.recv(64).split(b" ")[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
