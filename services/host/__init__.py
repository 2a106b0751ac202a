"""The machine that a process runs on: files that are written in one step, locks, digests and free ports;
and texts without passwords.

Everything imports these names from here. The package needs the standard library only.
"""

from services.host.files import locked, sha256_of, try_lock, write_atomically
from services.host.masking import without_passwords
from services.host.ports import free_port, free_ports, is_free, port_holder

__all__ = [
    "free_port",
    "free_ports",
    "is_free",
    "locked",
    "port_holder",
    "sha256_of",
    "try_lock",
    "without_passwords",
    "write_atomically",
]
