"""What a worker needs of the bus: a connection, streams, leases, settings and the two families of errors.

Rooms import these names from here. What a worker is, with FastStream, is in `services.messaging.worker`: whoever only
connects (`belt`, child processes) need not load it.
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
