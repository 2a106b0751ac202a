"""The server in the tiny image: the routes of serving/, from the standard library. MODE chooses its fault:

good, dies (ends at its start), eats (more memory than it may have), never (is ready), slow (ready after SLOW_SECONDS),
wrong (predicts otherwise).
POST /die lets it end, POST /eat lets it be killed for its memory. GET /sandbox tells what it may do.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SLOW_SECONDS = 4.0
STARTED = time.monotonic()
MODE, VERSION = os.environ["MODE"], os.environ["VERSION"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.removeprefix("/tiny")
        if path == "/readyz":
            self.answer({}, 200 if is_ready() else 503)
        elif path == "/info":
            self.answer({"version": VERSION, "image": os.environ["BENTOBELT_IMAGE"], "nats": os.environ["NATS_URL"]})
        elif path == "/predict":
            self.answer({"predictions": [{"prediction": predict(row)} for row in json.loads(body)["rows"]]})
        elif path == "/sandbox":
            self.answer(sandbox())
        elif path == "/die":
            print("told to die", flush=True)
            os._exit(3)
        elif path == "/eat":
            eat()
        else:
            self.answer({}, 404)

    do_POST = do_GET

    def answer(self, body: object, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Model-Version", VERSION)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def is_ready() -> bool:
    return MODE != "never" and (MODE != "slow" or time.monotonic() - STARTED > SLOW_SECONDS)


def predict(row: dict[str, float]) -> int:
    return 7 if MODE == "wrong" else int(row["a"] > 0.5)


def eat() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1024) * 10240))


def sandbox() -> dict[str, object]:
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {
        "uid": os.getuid(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privileges": status["NoNewPrivs"] == "1",
        "root": writes("/here"),
        "home": writes("/var/tmp/here"),
        "tmp": writes("/tmp/here"),
        "runs_from_tmp": runs("/tmp/here"),
    }


def writes(path: str) -> bool:
    try:
        with open(path, "w") as file:
            file.write("#!/bin/sh\n")
        os.chmod(path, 0o755)
    except OSError:
        return False
    return True


def runs(path: str) -> bool:
    try:
        return subprocess.run([path]).returncode == 0
    except OSError:
        return False


def main() -> None:
    if MODE == "dies":
        sys.exit("no model in here")
    if MODE == "eats":
        eat()
    server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)


main()
