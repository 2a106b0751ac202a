"""One reader per model: traffic and news into the state, the state into the store, incidents onto the bus."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import nats.errors
import nats.js.errors
from pydantic import ValidationError

from contracts.events import ModelDeployed
from services.messaging import LeaseLost, Leases, LeaseTaken
from services.messaging.worker import log
from services.monitor.alerts.dispatcher import AlertDispatcher, Raise
from services.monitor.alerts.drift_event import DriftEvents
from services.monitor.alerts.gauges import Shown
from services.monitor.detection.rules import Rules
from services.monitor.domain import ModelState
from services.monitor.ingest.consumer import Gap, Recent
from services.monitor.state.codec import Unknown, pack, unpack
from services.monitor.state.model_traffic import TrafficMessage
from services.monitor.state.store import Fenced, Store
from services.storage import Registry

BYTES_PER_SECOND = 1e6
"""A large state is saved less often: what is not saved is read again from the bus after a kill."""


class TrafficSource(Recent, Protocol):
    """A model's traffic in order."""

    async def open(self, position: int) -> int: ...
    async def fetch(self, seconds: float) -> list[TrafficMessage]: ...
    async def ack(self) -> None: ...
    async def close(self) -> None: ...


class ModelReader:
    """Follows one model for as long as this replica holds its lease.

    Args:
        model: its name.
        stream: its traffic.
        store: where its state is kept.
        registry: where promises of versions are looked up.
        teller: makes the event of an incident.
        emit: publishes the event under the incident's id.
        rules: when evidence is enough.
        poll: seconds to wait for traffic; save: least seconds between two saves.
        clock: unix seconds.
    """

    def __init__(
        self,
        model: str,
        stream: TrafficSource,
        store: Store,
        registry: Registry,
        teller: DriftEvents,
        emit: Raise,
        rules: Rules,
        poll: float = 0.5,
        save: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.model, self.state = model, ModelState(model, rules)
        self._stream, self._store, self._registry = stream, store, registry
        self._rules, self._poll, self._pause, self._clock = rules, poll, save, clock
        self._alarms, self._shown = AlertDispatcher(teller, emit, stream, clock), Shown(model)
        self._saved, self._wait, self._dirty = 0.0, save, False
        self._known: str | None = None
        self._news: list[str] = []

    async def run(self, leases: Leases, pause: float = 1.0) -> None:
        """Follow for ever; wait while another replica does."""
        while True:
            try:
                async with leases.hold(f"monitor.{self.model}"):
                    await self.session()
            except LeaseTaken:
                pass
            except (LeaseLost, Fenced, Gap, TimeoutError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("starts over", model=self.model, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(pause)

    async def session(self) -> None:
        """Read on from the saved state until something goes wrong."""
        await self.begin()
        try:
            while True:
                await self.step()
        finally:
            self._alarms.stop()
            self._shown.hide()
            await self._stream.close()

    async def begin(self) -> None:
        """Take up the saved state, or start from the first message that the bus has."""
        saved = await self._store.load(self.model)
        self.state = self._restored(saved)
        self.state.traffic.position = await self._stream.open(self.state.traffic.position)
        self._known, self._news, self._dirty = self._open_incident(), [], False
        if not self.state.live:
            for live in await self._registry.lives():
                if live.model == self.model:
                    await self._went_live(live.version, live.target)
        log.info("follows", model=self.model, position=self.state.traffic.position)

    def _restored(self, saved: bytes | None) -> ModelState:
        if saved is not None:
            try:
                return ModelState.load(self.model, unpack(saved), self._rules)
            except (Unknown, LookupError, TypeError, ValueError, AttributeError) as error:  # of another release
                log.error("the state starts anew", model=self.model, error=f"{type(error).__name__}: {error}")
        return ModelState(self.model, self._rules)

    async def step(self) -> None:
        """One round: what came, what is due, save, acknowledge, tell."""
        traffic = await self._stream.fetch(self._poll)
        for version in self.state.traffic.unknown(traffic):
            await self._introduce(version)
        now = self._clock()
        self.state.apply(traffic, now)
        await self._hear(now)
        self.state.tick(now)
        self._dirty = self._dirty or bool(traffic)
        if self._news or self._open_incident() != self._known or (self._dirty and now - self._saved >= self._wait):
            await self._save(now)
        self._alarms.step(self.state)

    async def _save(self, now: float) -> None:
        state = await asyncio.to_thread(pack, self.state.dump())
        await self._store.save(self.model, state)
        await self._stream.ack()
        await self._store.forget(self.model, self._news)
        self._saved, self._wait = now, max(self._pause, len(state) / BYTES_PER_SECOND)
        self._known, self._news, self._dirty = self._open_incident(), [], False
        self._shown.show(self.state)

    def _open_incident(self) -> str | None:
        incident = self.state.incident
        return f"{incident.id}{incident.told}" if incident else None

    # -- versions and news -----------------------------------------------------------------------------------

    async def _introduce(self, version: str) -> None:
        candidate = await self._registry.candidate(self.model, version)
        if candidate and candidate.approved:
            self.state.introduce(version, candidate.approved.profile, candidate.approved.promise)
        else:
            self.state.introduce(version, None, None)

    async def _went_live(self, version: str, target: str) -> None:
        candidate = await self._registry.candidate(self.model, version)
        if candidate and candidate.approved:
            approved = candidate.approved
            self.state.deployed(version, target, approved.profile, approved.promise, self._clock())

    async def _hear(self, now: float) -> None:
        news = await self._store.news(self.model)
        for name, item in news.items():
            if name in self._news:
                continue
            try:
                self._apply(item, now)
            except (LookupError, TypeError, ValidationError) as error:  # of another release
                log.error("news are passed over", model=self.model, news=name, error=f"{type(error).__name__}: {error}")
        self._news = list(news)

    def _apply(self, item: dict[str, Any], now: float) -> None:
        if "deployed" in item:
            event = ModelDeployed.model_validate(item["deployed"])
            self.state.deployed(event.version, event.target, event.profile, event.promise, now, item["sequence"])
        elif "ended" in item:
            self.state.run_ended(item["ended"], now)
        elif "errors" in item:
            self.state.serving_errors(item["version"], item["errors"], item["start"], item["end"], now)
