"""The dispatcher of one model's incidents: they are published while traffic is read on, with a report if possible."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import nats.js.errors

from contracts.events import DriftDetected
from services.messaging import RETRY_DELAYS
from services.messaging.worker import log
from services.monitor.alerts.drift_event import DriftEvents, ReportTask, event_of
from services.monitor.domain import Incident, ModelState
from services.monitor.ingest.consumer import RowSource
from services.monitor.state.label_join import RowPositions
from services.sandbox import JobKilled
from services.storage import ArtifactCorrupt, ArtifactMissing

RETRYABLE = (nats.errors.Error, nats.js.errors.Error, ArtifactMissing, ArtifactCorrupt, JobKilled, OSError)
Emit = Callable[[DriftDetected, str], Awaitable[None]]


class AlertDispatcher:
    """Publisher of one model's incidents; `source` has the model's rows."""

    def __init__(self, events: DriftEvents, emit: Emit, source: RowSource, clock: Callable[[], float]) -> None:
        self._events, self._emit, self._source, self._clock = events, emit, source, clock
        self._publishing: asyncio.Task[None] | None = None
        self._early_report: ReportTask | None = None

    def step(self, state: ModelState) -> None:
        """Start what is due now that `state` is saved; raise the error of a publication that has failed."""
        if self._publishing and self._publishing.done():
            self._publishing = self._publishing.result()
        incident = state.incident
        if self._publishing is None and incident and not incident.published:
            self._publishing = asyncio.create_task(self._publish(state, incident, self._report_of(state, incident)))
        self._update_early_report(state)

    def stop(self) -> None:
        """Cancel all tasks. The next reader of the model publishes what is not published yet."""
        for task in (self._publishing, self._early_report):
            if task:
                task.cancel()
        self._publishing = self._early_report = None

    def _update_early_report(self, state: ModelState) -> None:
        """Start the report while labels are still collected: rendering takes longer than a retraining should wait."""
        suspect = state.version_below_target(self._clock())
        if suspect is None and self._early_report:
            self._early_report.cancel()  # The version has recovered.
            self._early_report = None
        elif suspect and self._early_report is None:
            columns, rows = suspect.windows.suspicious_columns, suspect.rows_since_loss()
            self._early_report = self._start_report(state.model, suspect.version, columns, rows)

    def _start_report(self, model: str, version: str, columns: tuple[str, ...], rows: RowPositions) -> ReportTask:
        return asyncio.create_task(self._events.report(model, version, columns, rows, self._source))

    def _report_of(self, state: ModelState, incident: Incident) -> ReportTask:
        if incident.kind == "performance" and self._early_report:
            report, self._early_report = self._early_report, None
            return report
        return self._start_report(state.model, incident.version, incident.columns, state.rows_of(incident))

    async def _publish(self, state: ModelState, incident: Incident, report: ReportTask) -> None:
        try:
            event = await self._build(incident, state.rows_of(incident), report)
        finally:
            report.cancel()
        await self._emit(event, incident.id)
        if event.action == "alert":
            state.reduce_to_alert(incident.id)
        state.mark_published(incident.id, self._clock())
        log.info("drift detected", model=state.model, version=event.version, kind=event.kind, action=event.action)

    async def _build(self, incident: Incident, rows: RowPositions, report: ReportTask) -> DriftDetected:
        """Build the event, with retries; when all of them fail, build an alert without files."""
        about = {"model": incident.model, "incident": incident.id}
        for delay in (*RETRY_DELAYS, None):
            try:
                return await self._events.event(incident, rows, self._source, report)
            except RETRYABLE as error:
                if delay is None:
                    log.error("event is published without its dataset", error=str(error), **about)
                else:
                    log.warning("event cannot be built yet, will be retried", error=str(error), seconds=delay, **about)
                    await asyncio.sleep(delay)
        return event_of(incident.model_copy(update={"action": "alert"}))
