"""An incident becomes `drift.detected`: rows read again, dataset built, page rendered, all in children."""

import asyncio
import contextlib
import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

from contracts.artifact import HTML, PARQUET, ArtifactRef
from contracts.data import Profile
from contracts.events import DriftDetected
from services.artifacts import ArtifactCorrupt, ArtifactMissing, Artifacts
from services.forks import Forks, JobFailed, JobKilled, JobTimedOut
from services.monitor.domain import Incident
from services.monitor.stream import Recent
from services.monitor.watch import Rows
from services.registry import Candidate, Registry
from services.worker import log

JobTrouble = (JobFailed, JobKilled, JobTimedOut)


class NothingToRetrainOn(Exception):
    """No dataset can be made; a person must know instead."""


class Teller(Protocol):
    """Turns incidents into events."""

    async def event(self, incident: Incident, rows: Rows, profile: Profile | None, recent: Recent) -> DriftDetected:
        """The event for an incident; an alert where a retraining was wanted but nothing is there to retrain on."""
        ...


class Telling:
    """The teller that builds the dataset and the page.

    Args:
        registry, artifacts: where the live version's own dataset is.
        forks: children without anything preloaded: they come up a few times a day, memory would be paid all day.
        scratch: folder for files on their way.
        dataset_seconds: how long the dataset may take.
        report_seconds: how long an event waits for its page; 0 makes none.
    """

    def __init__(
        self,
        registry: Registry,
        artifacts: Artifacts,
        forks: Forks,
        scratch: Path,
        dataset_seconds: float = 300.0,
        report_seconds: float = 10.0,
    ) -> None:
        self._registry, self._artifacts, self._forks, self._scratch = registry, artifacts, forks, scratch
        self._dataset_seconds, self._report_seconds = dataset_seconds, report_seconds

    async def event(self, incident: Incident, rows: Rows, profile: Profile | None, recent: Recent) -> DriftDetected:
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix="drift-", dir=self._scratch))
        try:
            return await self._event(incident, await recent.columns(rows), profile, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _event(
        self, incident: Incident, columns: dict[str, list[Any]], profile: Profile | None, folder: Path
    ) -> DriftDetected:
        argument: dict[str, Any] = {"recent": str(folder / "recent.json")}
        await asyncio.to_thread(Path(argument["recent"]).write_text, json.dumps(columns))
        candidate = await self._registry.candidate(incident.model, incident.version)
        page = None
        if candidate and profile and columns and await self._with_base(candidate, argument):
            page = asyncio.create_task(self._page(argument, incident, profile, folder / "report.html"))
        try:
            dataset = None
            if incident.action == "retrain":
                dataset = await self._dataset(incident, candidate, columns, argument, folder / "dataset.parquet")
        except NothingToRetrainOn as error:
            log.warning("no retraining", why=str(error), incident=incident.id)
            incident = incident.model_copy(update={"action": "alert"})
        finally:
            report = await self._in_time(page)
        return _event(incident, dataset, report)

    async def _with_base(self, candidate: Candidate, argument: dict[str, Any]) -> bool:
        try:
            argument["base"] = str(await self._artifacts.fetch(candidate.trained.dataset))
        except (ArtifactMissing, ArtifactCorrupt) as error:
            log.warning("the live version's dataset cannot be read", error=str(error))
            return False
        return True

    async def _dataset(
        self,
        incident: Incident,
        candidate: Candidate | None,
        columns: dict[str, list[Any]],
        argument: dict[str, Any],
        out: Path,
    ) -> ArtifactRef:
        if candidate is None or "base" not in argument:
            raise NothingToRetrainOn("the dataset of the live version is gone")
        if len(columns.get("label", [])) < incident.window.labels / 2:
            raise NothingToRetrainOn("the bus has dropped most of the labelled rows")
        wanted = {**argument, "target": candidate.trained.target.name, "out": str(out)}
        base, seconds = self._forks.environments.base, self._dataset_seconds
        try:
            made = await self._forks.run(base, "services.monitor.job:dataset", wanted, seconds=seconds)
        except (JobFailed, JobTimedOut) as error:
            raise NothingToRetrainOn(str(error)) from error
        log.info("dataset built", incident=incident.id, **made)
        return await self._artifacts.put(out, PARQUET)

    async def _page(
        self, argument: dict[str, Any], incident: Incident, profile: Profile, out: Path
    ) -> ArtifactRef | None:
        if not self._report_seconds:
            return None
        numeric = [column.name for column in profile.columns if column.edges is not None]
        categorical = [column.name for column in profile.columns if column.edges is None]
        order = list(dict.fromkeys([*incident.columns, *(column.name for column in profile.columns)]))
        wanted = {**argument, "numeric": numeric, "categorical": categorical, "order": order, "out": str(out)}
        base, seconds = self._forks.environments.base, self._dataset_seconds
        try:
            await self._forks.run(base, "services.monitor.report:render", wanted, seconds=seconds)
        except JobTrouble as error:
            log.warning("no page for this alarm", error=str(error), incident=incident.id)
            return None
        return await self._artifacts.put(out, HTML)

    async def _in_time(self, page: "asyncio.Task[ArtifactRef | None] | None") -> ArtifactRef | None:
        """The page when it is there soon; an alarm never waits for long, and never fails for a picture."""
        if page is None:
            return None
        done, _ = await asyncio.wait({page}, timeout=self._report_seconds)
        if done and page.exception() is None:
            return page.result()
        page.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({page})
        return None


def _event(incident: Incident, dataset: ArtifactRef | None, report: ArtifactRef | None) -> DriftDetected:
    return DriftDetected(
        model=incident.model,
        version=incident.version,
        kind=incident.kind,
        action=incident.action,
        window=incident.window,
        evidence=incident.evidence,
        columns=incident.columns,
        dataset=dataset,
        report=report,
    )
