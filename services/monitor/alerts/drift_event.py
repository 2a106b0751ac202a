"""An incident becomes `drift.detected`: its rows read again, a dataset built of them in a child."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from contracts.artifact_ref import PARQUET, ArtifactRef
from contracts.events import DriftDetected
from contracts.profiles import Profile
from services.messaging.worker import log
from services.monitor.alerts.report_page import ReportPages
from services.monitor.domain import Incident
from services.monitor.ingest.consumer import Recent
from services.monitor.state.label_join import RowPositions
from services.sandbox import JobFailed, JobTimedOut, Sandbox
from services.storage import ArtifactCorrupt, ArtifactMissing, ArtifactStore, Candidate, Registry

Page = asyncio.Task[ArtifactRef | None]


class NothingToRetrainOn(Exception):
    """No dataset can be made; a person must know instead."""


class DriftEvents(Protocol):
    """Turns incidents into events."""

    async def page(
        self, model: str, version: str, moved: tuple[str, ...], rows: RowPositions, profile: Profile, recent: Recent
    ) -> ArtifactRef | None:
        """A page of these rows beside those of the training; it takes its time, so that it may begin early."""
        ...

    async def event(self, incident: Incident, rows: RowPositions, recent: Recent, page: Page | None) -> DriftDetected:
        """The event for an incident; an alert where a retraining was wanted but nothing is there to retrain on."""
        ...


class DriftEventBuilder:
    """The teller that builds the dataset.

    Args:
        registry, artifacts: where the live version's own dataset is.
        forks: children without anything preloaded: they come up a few times a day, memory would be paid all day.
        pages: renders the page.
        scratch: folder for files on their way.
        dataset_seconds: how long the dataset may take.
        alert_seconds, retrain_seconds: how long an event waits for its page when all else is done.
    """

    def __init__(
        self,
        registry: Registry,
        artifacts: ArtifactStore,
        forks: Sandbox,
        pages: ReportPages,
        scratch: Path,
        dataset_seconds: float = 300.0,
        alert_seconds: float = 10.0,
        retrain_seconds: float = 3.0,
    ) -> None:
        self._registry, self._artifacts, self._forks, self._scratch = registry, artifacts, forks, scratch
        self._dataset_seconds, self._waits = dataset_seconds, {"alert": alert_seconds, "retrain": retrain_seconds}
        self.page = pages.page

    async def event(self, incident: Incident, rows: RowPositions, recent: Recent, page: Page | None) -> DriftDetected:
        dataset = None
        if incident.action == "retrain":
            try:
                dataset = await self._dataset(incident, await recent.columns(rows))
            except NothingToRetrainOn as error:
                log.warning("no retraining", why=str(error), incident=incident.id)
                incident = incident.model_copy(update={"action": "alert"})
        report = await _in_time(page, self._waits[incident.action])
        return event_of(incident, dataset, report)

    async def _dataset(self, incident: Incident, columns: dict[str, list[Any]]) -> ArtifactRef:
        candidate = await self._registry.candidate(incident.model, incident.version)
        if candidate is None:
            raise NothingToRetrainOn("nothing is known of the live version's training")
        if len(columns.get("label", [])) < incident.window.labels / 2:
            raise NothingToRetrainOn("the bus has dropped most of the labelled rows")
        try:
            base = await self._artifacts.fetch(candidate.trained.dataset)
        except (ArtifactMissing, ArtifactCorrupt) as error:
            raise NothingToRetrainOn(f"the dataset of the live version cannot be read: {error}") from error
        return await self._built(incident, candidate, base, columns)

    async def _built(
        self, incident: Incident, candidate: Candidate, base: Path, columns: dict[str, list[Any]]
    ) -> ArtifactRef:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="dataset-", dir=self._scratch) as folder:
            recent, out = Path(folder) / "recent.json", Path(folder) / "dataset.parquet"
            await asyncio.to_thread(recent.write_text, json.dumps(columns))
            files = {"base": str(base), "recent": str(recent), "out": str(out)}
            argument = {**files, "target": candidate.trained.target.name}
            python, seconds = self._forks.environments.base, self._dataset_seconds
            try:
                made = await self._forks.run(
                    python, "services.monitor.jobs.retraining_dataset:dataset", argument, seconds=seconds
                )
            except (JobFailed, JobTimedOut) as error:
                raise NothingToRetrainOn(str(error)) from error
            log.info("dataset built", incident=incident.id, **made)
            return await self._artifacts.put(out, PARQUET)


async def _in_time(page: Page | None, seconds: float) -> ArtifactRef | None:
    """The page when it is there soon; an alarm never waits for long, and never fails for a picture."""
    if page is None:
        return None
    done, _ = await asyncio.wait({page}, timeout=seconds)
    return page.result() if done and not page.cancelled() and page.exception() is None else None


def event_of(
    incident: Incident, dataset: ArtifactRef | None = None, report: ArtifactRef | None = None
) -> DriftDetected:
    """What is said of an incident."""
    told = ("model", "version", "kind", "action", "window", "evidence", "columns")
    return DriftDetected(**{name: getattr(incident, name) for name in told}, dataset=dataset, report=report)
