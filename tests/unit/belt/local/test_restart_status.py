from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from belt.local import restart_status


class Gateway(BaseHTTPRequestHandler):
    """A model that is ready when it is asked for the third time."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += self.path == "/digits/readyz"
        self.send_response(200 if self.asked > 2 else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


async def test_what_was_live_is_named_and_then_that_it_answers(port: int) -> None:
    reported: list[str] = []
    await restart_status.report(["digits"], port, reported.append)
    assert reported[0] == "restarting the models that were live (they answer 503 until then): digits"
    assert reported[1].startswith("digits answers after ")
    assert Gateway.asked == 3


async def test_nothing_is_reported_when_nothing_was_live(port: int) -> None:
    reported: list[str] = []
    await restart_status.report([], port, reported.append)
    assert reported == []
