"""`/health` and `/metrics` of a worker, served in its event loop."""

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from faststream.asgi import AsgiFastStream
from faststream.asgi.response import JSONResponse
from faststream.asgi.types import Receive, Scope, Send
from prometheus_client import Counter, Gauge, Histogram, make_asgi_app

OUTCOMES = ("done", "repeated", "retried", "failed", "lost", "unreadable")
EVENTS = Counter("bentobelt_events_total", "Deliveries of messages, by outcome", ["service", "subject", "outcome"])
SECONDS = Histogram(
    "bentobelt_event_seconds",
    "Seconds from the delivery of a message to its outcome",
    ["service", "subject"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60, 300, 1800),
)
PENDING = Gauge("bentobelt_pending", "Messages that wait for any replica, at the last check", ["service", "subject"])


def register_counters(service: str, subject: str) -> None:
    """Show the counters from zero on: Prometheus sees no increase in a counter that appears with one."""
    SECONDS.labels(service, subject)
    for outcome in OUTCOMES:
        EVENTS.labels(service, subject, outcome)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The worker handles signals itself: it returns running messages before anything closes.
        yield


def server(report: Callable[[], dict[str, Any]], host: str, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """Return a server to `serve()` on the returned socket. `report()["healthy"]` decides between 200 and 503.

    Raises:
        SystemExit: the address is in use or not available here.
    """

    async def health(scope: Scope, receive: Receive, send: Send) -> None:
        state = report()
        await JSONResponse(state, 200 if state["healthy"] else 503)(scope, receive, send)

    metrics = make_asgi_app()
    app = AsgiFastStream(asgi_routes=[("/health", health), ("/metrics", metrics), ("/metrics/", metrics)], logger=None)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        sys.exit(f"/health cannot listen on {host}:{port}: {reason}; set HTTP_PORT (0 takes a free one) or HTTP_HOST")
    return _Server(config), listening
