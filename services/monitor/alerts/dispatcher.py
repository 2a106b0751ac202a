"""The alarms of one model: an incident is told beside the traffic, and its page begun as soon as one is foreseen."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import nats.js.errors

from contracts.events import DriftDetected
from services.messaging import RETRY_DELAYS
from services.messaging.worker import log
from services.monitor.alerts.drift_event import DriftEvents, Page, event_of
from services.monitor.domain import Incident, ModelState
from services.monitor.ingest.consumer import Recent
from services.monitor.state.label_join import RowPositions
from services.sandbox import JobKilled
from services.storage import ArtifactCorrupt, ArtifactMissing

Trouble = (nats.errors.Error, nats.js.errors.Error, ArtifactMissing, ArtifactCorrupt, JobKilled, OSError)
Raise = Callable[[DriftDetected, str], Awaitable[None]]


class AlertDispatcher:
    """What is on its way to a person or the trainer.

    Args:
        teller: makes the event of an incident, and its page.
        emit: publishes the event under the incident's id.
        recent: the model's rows.
        clock: unix seconds.
    """

    def __init__(self, teller: DriftEvents, emit: Raise, recent: Recent, clock: Callable[[], float]) -> None:
        self._teller, self._emit, self._recent, self._clock = teller, emit, recent, clock
        self._telling: asyncio.Task[None] | None = None
        self._foreseen: Page | None = None

    def step(self, state: ModelState) -> None:
        """Begin what is due now that `state` is saved; raises what went wrong with what was begun."""
        if self._telling and self._telling.done():
            self._telling = self._telling.result()
        if self._telling is None and state.incident and not state.incident.told:
            self._telling = asyncio.create_task(self._tell(state, state.incident, self._page_of(state, state.incident)))
        self._foresee(state)

    def stop(self) -> None:
        """What is not told yet is left to the next holder of the model."""
        for task in (self._telling, self._foreseen):
            if task:
                task.cancel()
        self._telling = self._foreseen = None

    def _foresee(self, state: ModelState) -> None:
        """A page takes longer to render than a retraining should wait: begin while labels are still gathered."""
        watch = state.suspect(self._clock())
        if watch is None and self._foreseen:
            self._foreseen.cancel()  # it has recovered
            self._foreseen = None
        elif watch and self._foreseen is None:
            self._foreseen = self._page(state, watch.version, watch.windows.moved, watch.rows_since_loss())

    def _page(self, state: ModelState, version: str, moved: tuple[str, ...], rows: RowPositions) -> Page | None:
        profile = state.traffic.versions[version].profile
        if profile is None:
            return None
        return asyncio.create_task(self._teller.page(state.model, version, moved, rows, profile, self._recent))

    def _page_of(self, state: ModelState, incident: Incident) -> Page | None:
        if incident.kind == "performance" and self._foreseen:
            page, self._foreseen = self._foreseen, None
            return page
        return self._page(state, incident.version, incident.columns, state.rows_of(incident))

    async def _tell(self, state: ModelState, incident: Incident, page: Page | None) -> None:
        """Publish the incident; traffic is read on meanwhile."""
        try:
            event = await self._event(incident, state.rows_of(incident), page)
        finally:
            if page:
                page.cancel()
        await self._emit(event, incident.id)
        if event.action == "alert":
            state.only_alert(incident.id)
        state.told(incident.id, self._clock())
        log.info("drift", model=state.model, version=event.version, kind=event.kind, action=event.action)

    async def _event(self, incident: Incident, rows: RowPositions, page: Page | None) -> DriftDetected:
        for delay in RETRY_DELAYS:
            try:
                return await self._teller.event(incident, rows, self._recent, page)
            except Trouble as error:
                log.warning("will be tried again", model=incident.model, incident=incident.id, error=str(error))
                await asyncio.sleep(delay)
        try:
            return await self._teller.event(incident, rows, self._recent, page)
        except Trouble as error:
            log.error("nothing to retrain on", model=incident.model, incident=incident.id, error=str(error))
            return event_of(incident.model_copy(update={"action": "alert"}))
