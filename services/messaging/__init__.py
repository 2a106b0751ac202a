"""The bus as other packages use it: a connection, streams, leases, settings and the two families of errors.

Services import these names from here. The worker itself is in `services.messaging.worker`, so that `belt` and child
processes, which only connect, need not load FastStream.
"""

from services.messaging.connection import Bus, connect
from services.messaging.errors import RETRY_DELAYS, Permanent
from services.messaging.leases import LeaseLost, Leases, LeaseTaken
from services.messaging.settings import BusSettings, from_environment
from services.messaging.streams import ACK_WAIT, ensure_topology

__all__ = [
    "ACK_WAIT",
    "RETRY_DELAYS",
    "Bus",
    "BusSettings",
    "LeaseLost",
    "LeaseTaken",
    "Leases",
    "Permanent",
    "connect",
    "ensure_topology",
    "from_environment",
    "permissions",
]
