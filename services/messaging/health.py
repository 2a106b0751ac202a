"""`/health` and `/metrics` of a worker, in its own event loop."""

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from prometheus_client import Counter, Gauge, Histogram, make_asgi_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

OUTCOMES = ("done", "repeated", "retried", "failed", "lost", "unreadable")
EVENTS = Counter("bentobelt_events_total", "Messages dealt with, by how it ended", ["service", "subject", "outcome"])
SECONDS = Histogram(
    "bentobelt_event_seconds",
    "Time a message took from delivery to outcome",
    ["service", "subject"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60, 300, 1800),
)
PENDING = Gauge("bentobelt_pending", "Messages that wait for any replica, at the last look", ["service", "subject"])


def register_counters(service: str, subject: str) -> None:
    """Show counters from zero on: what first appears as one is no increase for Prometheus."""
    SECONDS.labels(service, subject)
    for outcome in OUTCOMES:
        EVENTS.labels(service, subject, outcome)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The worker handles signals itself: running work is handed over before anything closes.
        yield


def server(report: Callable[[], dict[str, Any]], host: str, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """A server to `serve()` on the returned socket. `report()["healthy"]` decides between 200 and 503.

    Raises:
        SystemExit: the port is taken, or not to be had here.
    """

    async def health(_: Request) -> JSONResponse:
        state = report()
        return JSONResponse(state, status_code=200 if state["healthy"] else 503)

    app = Starlette(routes=[Route("/health", health), Mount("/metrics", make_asgi_app())])
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        why = error.strerror or error
        sys.exit(f"/health cannot listen on {host}:{port}: {why}; set HTTP_PORT (0 takes a free one) or HTTP_HOST")
    return _Server(config), listening
