"""One reader per live model: it counts traffic, applies notices, saves the state and publishes incidents."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import nats.errors
import nats.js.errors
from pydantic import ValidationError

from contracts.events import ModelApproved, ModelDeployed
from services.messaging import LeaseLost, Leases, LeaseTaken
from services.messaging.worker import log, restart_on_error
from services.monitor.alerts.dispatcher import AlertDispatcher, Emit
from services.monitor.alerts.drift_event import DriftEvents
from services.monitor.alerts.gauges import ModelGauges
from services.monitor.domain import ModelState
from services.monitor.ingest.consumer import DeliveryGap, RowSource
from services.monitor.settings import Settings
from services.monitor.state.model_traffic import TrafficMessage
from services.monitor.state.store import StateConflict, StateStore, UnreadableState, pack, unpack
from services.storage import Registry

BYTES_PER_SECOND = 1e6
"""A large state is saved less often. Traffic that is not in the saved state is read again after a restart."""


class TrafficSource(RowSource, Protocol):
    """A model's traffic in order."""

    async def open(self, position: int) -> int: ...
    async def fetch(self, seconds: float) -> list[TrafficMessage]: ...
    async def ack(self) -> None: ...
    async def close(self) -> None: ...


class ModelReader:
    """Reader of one model, active while this replica holds the model's lease.

    `registry` has each version's profile and target. `emit` publishes an event under the id of its incident.
    """

    def __init__(
        self,
        model: str,
        stream: TrafficSource,
        store: StateStore,
        registry: Registry,
        events: DriftEvents,
        emit: Emit,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.model, self.state = model, ModelState(model, settings)
        self._stream, self._store, self._registry = stream, store, registry
        self._settings, self._clock = settings, clock
        self._alerts, self._gauges = AlertDispatcher(events, emit, stream, clock), ModelGauges(model)
        self._saved_at, self._pause, self._changed = 0.0, settings.save_seconds, False
        self._saved_incident: str | None = None
        self._applied_notices: list[str] = []

    async def run(self, leases: Leases, pause: float = 1.0) -> None:
        """Read for ever; wait while another replica holds the lease."""
        while True:
            try:
                async with leases.hold(f"monitor.{self.model}"):
                    await self.session()
            except LeaseTaken:
                pass
            except (LeaseLost, StateConflict, DeliveryGap, TimeoutError, nats.errors.Error, nats.js.errors.Error) as e:
                log.warning("reader restarts from the saved state", model=self.model, error=f"{type(e).__name__}: {e}")
            await asyncio.sleep(pause)

    async def session(self) -> None:
        """Continue from the saved state until an error ends the session."""
        await self.open()
        try:
            while True:
                await self.step()
        finally:
            self._alerts.stop()
            self._gauges.remove()
            await self._stream.close()

    async def open(self) -> None:
        """Load the saved state, or start from the oldest message that the bus still has."""
        self.state = self._restore(await self._store.load(self.model))
        self.state.traffic.position = await self._stream.open(self.state.traffic.position)
        self._saved_incident, self._applied_notices, self._changed = self._open_incident(), [], False
        if not self.state.live:
            for live in await self._registry.lives():
                if live.model == self.model and (approved := await self._approval(live.version)):
                    profile, target = approved.profile, approved.promise
                    self.state.version_deployed(live.version, live.target, profile, target, self._clock())
        log.info("reader started", model=self.model, position=self.state.traffic.position)

    def _restore(self, saved: bytes | None) -> ModelState:
        if saved is not None:
            try:
                return ModelState.load(self.model, unpack(saved), self._settings)
            except (UnreadableState, LookupError, TypeError, ValueError, AttributeError) as error:
                # The state is of another release.
                log.error("saved state is ignored", model=self.model, error=f"{type(error).__name__}: {error}")
        return ModelState(self.model, self._settings)

    async def step(self) -> None:
        """Do one round: count new traffic, apply notices, save and acknowledge, publish an open incident."""
        messages = await self._stream.fetch(self._settings.poll_seconds)
        for version in self.state.traffic.versions_to_look_up(messages):
            approved = await self._approval(version)
            profile, target = (approved.profile, approved.promise) if approved else (None, None)
            self.state.add_version(version, profile, target)
        now = self._clock()
        self.state.apply(messages, now)
        await self._apply_notices(now)
        self.state.tick(now)
        self._changed = self._changed or bool(messages)
        due = self._changed and now - self._saved_at >= self._pause
        if self._applied_notices or self._open_incident() != self._saved_incident or due:
            await self._save(now)
        self._alerts.step(self.state)

    async def _save(self, now: float) -> None:
        state = await asyncio.to_thread(pack, self.state.dump())
        await self._store.save(self.model, state)
        await self._stream.ack()
        await self._store.delete_notices(self.model, self._applied_notices)
        self._saved_at, self._pause = now, max(self._settings.save_seconds, len(state) / BYTES_PER_SECOND)
        self._saved_incident, self._applied_notices, self._changed = self._open_incident(), [], False
        self._gauges.update(self.state)

    def _open_incident(self) -> str | None:
        incident = self.state.incident
        return f"{incident.id}{incident.published}" if incident else None

    async def _approval(self, version: str) -> ModelApproved | None:
        candidate = await self._registry.candidate(self.model, version)
        return candidate.approved if candidate else None

    async def _apply_notices(self, now: float) -> None:
        notices = await self._store.notices(self.model)
        for name, notice in notices.items():
            if name in self._applied_notices:
                continue
            try:
                self._apply_notice(notice, now)
            except (LookupError, TypeError, ValidationError) as error:  # The notice is of another release.
                log.error("notice ignored", model=self.model, notice=name, error=f"{type(error).__name__}: {error}")
        self._applied_notices = list(notices)

    def _apply_notice(self, notice: dict[str, Any], now: float) -> None:
        if "deployed" in notice:
            event, sequence = ModelDeployed.model_validate(notice["deployed"]), notice["sequence"]
            self.state.version_deployed(event.version, event.target, event.profile, event.promise, now, sequence)
        elif "ended" in notice:
            self.state.run_ended(notice["ended"], now)
        elif "errors" in notice:
            self.state.serving_errors(notice["version"], notice["errors"], notice["start"], notice["end"], now)


class ModelReaders:
    """The readers of all live models. A reader that fails is started again and does not affect the others.

    `scan` is the number of seconds between two searches for new live models.
    """

    def __init__(
        self, make: Callable[[str], ModelReader], leases: Leases, registry: Registry, scan: float = 5.0
    ) -> None:
        self._make, self._leases, self._registry, self._scan = make, leases, registry, scan
        self._requested: asyncio.Queue[str] = asyncio.Queue()
        self.failing: dict[str, str] = {}
        """Errors of readers that fail repeatedly, by model."""

    def add(self, model: str) -> None:
        """Start a reader for this model, unless there is one."""
        self._requested.put_nowait(model)

    async def run(self) -> None:
        """Run all readers, and search for models that another replica was notified of."""
        running: set[str] = set()
        async with asyncio.TaskGroup() as group:
            group.create_task(restart_on_error(self._search, self.failing, about="search for live models"))
            while True:
                model = await self._requested.get()
                if model not in running:
                    running.add(model)
                    group.create_task(restart_on_error(partial(self._read, model), self.failing, model=model))

    async def _read(self, model: str) -> None:
        await self._make(model).run(self._leases)

    async def _search(self) -> None:
        while True:
            try:
                for model in {live.model for live in await self._registry.lives()}:
                    self.add(model)
            except (TimeoutError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("the registry does not answer", error=str(error))
            await asyncio.sleep(self._scan)
