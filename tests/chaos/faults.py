"""A belt that is hurt, and what must be true of a run all the same."""

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nats.errors
import nats.js.errors
import psutil
from nats.js.api import ConsumerConfig

from belt.local import orphans
from belt.local.home import Home
from contracts import subjects
from services.deployer.backends.processes import Record
from services.messaging.connection import Bus
from services.timeline import history
from tests.belts import Belt
from tests.chaos.held import MODEL, ROW
from tests.waiting import eventually, until

ACK_WAIT = 6.0
"""Instead of half a minute, so that a test of a kill need not wait that long for the takeover."""
ONCE = {
    "data.pushed": 1,
    "model.trained": 1,
    "model.approved": 1,
    "image.pushed": 1,
    "model.deployed": 1,
}


class Hurt(Belt):
    """A belt whose processes can be found and killed."""

    def pid(self, part: str) -> int:
        running = Home(self.home).running()
        return running.processes[part].pid if running and part in running.processes else 0

    def kill(self, part: str) -> None:
        """kill -9 of a part; returns when its successor runs."""
        killed = psutil.Process(self.pid(part))
        killed.kill()
        until(lambda: self.pid(part) not in (0, killed.pid))

    def kill_itself(self) -> list[psutil.Process]:
        """kill -9 of `belt up`; what it leaves behind."""
        assert self._up is not None
        left = orphans.find(self.home)
        self._up.kill()
        self._up.wait()
        return [process for process in left if process.pid != self._up.pid]

    def end(self) -> None:
        if self._up is not None and self._up.poll() is None:
            self.down()
        orphans.kill(self.home)
        self.http.close()

    def servers(self) -> dict[str, Record]:
        """Version → its living server."""
        records = (self.home / "deployer" / "servers").glob("*/server.json")
        found = [Record.model_validate_json(record.read_bytes()) for record in records]
        return {server.version: server for server in found if server.is_alive}

    def settled(self) -> dict[str, Record]:
        """The same, once the servers of the model are those that stay: a version put aside drains a moment longer."""
        [shown] = [shown for shown in self.json("deployments") if shown["model"] == MODEL]
        stay = {shown["version"], shown["previous"]} - {None}

        def only_those() -> dict[str, Record]:
            found = self.servers()
            return found if set(found) == stay else {}

        return until(only_those)

    def start_push(self, project: Path, *options: str) -> str:
        """Push without waiting; the run."""
        return str(self.json("push", str(project), *options)["run"])

    def nats_url(self) -> str:
        return (self.home / "nats.url").read_text().strip()


@dataclass
class Traffic:
    """One client that asks all the time, and what it got."""

    url: str
    pause: float = 0.02
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Traffic":
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20) as http:
            while not self._stop.wait(self.pause):
                found = answer(http)
                if isinstance(found, str):
                    self.failures.append(f"{time.time():.3f} {found}")
                else:
                    self.answered[found[0]] += 1


def answer(http: httpx.Client) -> tuple[str, Any] | str:
    """The version that answers and its prediction, or what went wrong."""
    try:
        response = http.post(f"/{MODEL}/predict", json={"rows": [ROW]})
    except httpx.HTTPError as error:
        return repr(error)
    if response.status_code != 200:
        return f"{response.status_code} {response.text[:200]}"
    return response.headers["X-Model-Version"], response.json()["predictions"][0]["prediction"]


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def impatient(bus: Bus, seconds: float = ACK_WAIT) -> None:
    """Shorten the time after which a message goes to another worker; workers heed it from their next start on."""
    for info in await bus.js.consumers_info("EVENTS"):
        config: ConsumerConfig = info.config
        config.ack_wait = seconds
        await bus.js.add_consumer("EVENTS", config)


async def said(bus: Bus, run: str) -> Counter[str]:
    """Subject → how many different events of the run there are."""
    ids = {(about.subject, about.id) for _, about in await history.events(bus) if about.run == run}
    return Counter(subject for subject, _ in ids)


async def idle(bus: Bus) -> bool:
    """Return whether no message is being handled or waiting."""
    # The durable ones: a command that has read the stream leaves its reader behind for a minute.
    infos = [info for info in await bus.js.consumers_info("EVENTS") if info.config.durable_name]
    return all(info.num_pending == 0 and info.num_ack_pending == 0 for info in infos)


async def over(bus: Bus, run: str, seconds: float = 90.0) -> Counter[str]:
    """Count the events of a run by subject, once it is live and every message on the bus is handled."""

    async def deployed() -> bool:
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, TimeoutError):  # the bus may be away
            return await is_live()
        return False

    async def is_live() -> bool:
        counted = await said(bus, run)
        failed = [subject for subject in subjects.FAILED if counted[subject]]
        assert not failed, f"run {run}: {failed}"
        return bool(counted["model.deployed"] or counted["model.superseded"])

    await eventually(deployed, seconds)
    await eventually(lambda: idle(bus), seconds)
    return await said(bus, run)
