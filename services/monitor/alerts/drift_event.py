"""The event `drift.detected` of an incident, with the files that it names: a dataset to retrain on, and a report.

Both files are made in child processes, of the training data and of rows that are read from the bus again.
"""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from contracts.artifact_ref import HTML, PARQUET, ArtifactRef
from contracts.events import DriftDetected
from contracts.profiles import Profile
from services.messaging.worker import log
from services.monitor.domain import Incident
from services.monitor.ingest.consumer import RowSource
from services.monitor.settings import Settings
from services.monitor.state.label_join import RowPositions
from services.sandbox import JobFailed, JobKilled, JobTimedOut, Sandbox
from services.storage import ArtifactCorrupt, ArtifactMissing, ArtifactStore, Candidate, Registry

ReportTask = asyncio.Task[ArtifactRef | None]

DATASET_JOB = "services.monitor.jobs.retraining_dataset:dataset"
REPORT_JOB = "services.monitor.jobs.drift_report:render"


class NoDataset(Exception):
    """No dataset can be made for a retraining; the incident becomes an alert."""


class DriftEvents(Protocol):
    """Builder of reports and events."""

    async def report(
        self, model: str, version: str, suspects: tuple[str, ...], rows: RowPositions, source: RowSource
    ) -> ArtifactRef | None:
        """Compare rows with the training data, columns in `suspects` first; None when there is nothing to compare."""
        ...

    async def event(
        self, incident: Incident, rows: RowPositions, source: RowSource, report: ReportTask
    ) -> DriftDetected:
        """Build the event of an incident; a retraining becomes an alert when there is nothing to retrain on."""
        ...


class DriftEventBuilder:
    """The builder that makes the files in child processes. Without time to wait for reports it makes none."""

    def __init__(self, registry: Registry, artifacts: ArtifactStore, sandbox: Sandbox, settings: Settings) -> None:
        self._registry, self._artifacts, self._sandbox = registry, artifacts, sandbox
        self._scratch, self._job_seconds = settings.home / "monitor", settings.dataset_seconds
        self._report_seconds = {"alert": settings.report_seconds, "retrain": settings.retrain_report_seconds}

    async def report(
        self, model: str, version: str, suspects: tuple[str, ...], rows: RowPositions, source: RowSource
    ) -> ArtifactRef | None:
        if not any(self._report_seconds.values()):
            return None
        candidate = await self._registry.candidate(model, version)
        if candidate is None:
            return None
        try:
            recent, kinds = await source.read_rows(rows), _kinds(suspects, candidate.trained.profile)
            return await self._make(REPORT_JOB, candidate, recent, HTML, **kinds) if recent else None
        except (ArtifactMissing, ArtifactCorrupt, JobFailed, JobKilled, JobTimedOut) as error:
            log.warning("drift report failed", model=model, version=version, error=str(error))
            return None

    async def event(
        self, incident: Incident, rows: RowPositions, source: RowSource, report: ReportTask
    ) -> DriftDetected:
        dataset = None
        if incident.action == "retrain":
            try:
                dataset = await self._dataset(incident, await source.read_rows(rows))
            except NoDataset as error:
                log.warning("alert instead of a retraining", reason=str(error), incident=incident.id)
                incident = incident.model_copy(update={"action": "alert"})
        return event_of(incident, dataset, await _finished(report, self._report_seconds[incident.action]))

    async def _dataset(self, incident: Incident, recent: dict[str, list[Any]]) -> ArtifactRef:
        candidate = await self._registry.candidate(incident.model, incident.version)
        if candidate is None:
            raise NoDataset("the registry has no record of the live version's training")
        if len(recent.get("label", [])) < incident.window.labels / 2:
            raise NoDataset("the bus has dropped most of the labelled rows")
        try:
            return await self._make(DATASET_JOB, candidate, recent, PARQUET, target=candidate.trained.target.name)
        except (ArtifactMissing, ArtifactCorrupt) as error:
            raise NoDataset(f"the training data of the live version cannot be read: {error}") from error
        except (JobFailed, JobTimedOut) as error:
            raise NoDataset(str(error)) from error

    async def _make(
        self, job: str, candidate: Candidate, recent: dict[str, list[Any]], media_type: str, **argument: Any
    ) -> ArtifactRef:
        """Run a job on the training data and recent rows, and store the file that it writes."""
        base = await self._artifacts.fetch(candidate.trained.dataset)
        self._scratch.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._scratch) as folder:
            rows, out = Path(folder) / "recent.json", Path(folder) / "out"
            await asyncio.to_thread(rows.write_text, json.dumps(recent))
            files = {"base": str(base), "recent": str(rows), "out": str(out)}
            python = self._sandbox.environments.base
            made = await self._sandbox.run(python, job, {**files, **argument}, seconds=self._job_seconds)
            log.info("job finished", job=job, **made)
            return await self._artifacts.put(out, media_type)


def _kinds(suspects: tuple[str, ...], profile: Profile) -> dict[str, list[str]]:
    return {
        "numeric": [column.name for column in profile.columns if column.edges is not None],
        "categorical": [column.name for column in profile.columns if column.edges is None],
        "order": list(dict.fromkeys([*suspects, *(column.name for column in profile.columns)])),
    }


async def _finished(report: ReportTask, seconds: float) -> ArtifactRef | None:
    """Return the report if it is ready in time: an event never fails because of its report."""
    done, _ = await asyncio.wait({report}, timeout=seconds)
    return report.result() if done and not report.cancelled() and report.exception() is None else None


def event_of(
    incident: Incident, dataset: ArtifactRef | None = None, report: ArtifactRef | None = None
) -> DriftDetected:
    """Return the event of an incident."""
    fields = ("model", "version", "kind", "action", "window", "evidence", "columns")
    return DriftDetected(**{name: getattr(incident, name) for name in fields}, dataset=dataset, report=report)
