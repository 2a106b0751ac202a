"""A worker for the tests of worker.py: what its handler does is written in the event's reason.

Each call appends a line to the file named by CALLS, so that a test can count effects.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

from contracts.cloudevents import Envelope, version_of
from contracts.events import DataPushed, DataRejected, Event, TrainingFailed
from services.messaging.settings import BusSettings
from services.messaging.worker import Permanent, Worker

worker = Worker("trainer", BusSettings(), failed=TrainingFailed)


@worker.on(DataPushed)
async def echo(event: DataPushed, about: Envelope) -> list[Event]:
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{time.monotonic():.3f} {about.run} {version_of(about.generation, about.run)}\n")
    what, _, value = (event.reason or "").partition(":")
    match what:
        case "permanent":
            raise Permanent("this can never work")
        case "mended":
            if not Path(value).exists():
                raise Permanent("nobody has mended it yet")
        case "verbose":
            raise Permanent("x" * 9_000_000 + " the end")
        case "large":  # as a message it fits
            many = ('"',) * int(value)
            return [DataRejected(model=event.model, dataset="-", violations=many)]
        case "boom":
            raise OSError("the disk is on holiday")
        case "sleep":
            await asyncio.sleep(float(value))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill-once":
            if not Path(value).exists():
                Path(value).touch()
                os.kill(os.getpid(), signal.SIGKILL)
    return [DataRejected(model=event.model, dataset=str(event.dataset or "-"), violations=("echo",))]


if __name__ == "__main__":
    worker.run()
