"""The Evidently page of an alarm, rendered in a child. Nothing is decided by it, so nothing waits for it for long."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts.artifact_ref import HTML, ArtifactRef
from contracts.profiles import Profile
from services.messaging.worker import log
from services.monitor.ingest.consumer import Recent
from services.monitor.state.label_join import RowPositions
from services.sandbox import JobFailed, JobKilled, JobTimedOut, Sandbox
from services.storage import ArtifactCorrupt, ArtifactMissing, ArtifactStore, Registry


class ReportPages:
    """Renders pages.

    Args:
        registry, artifacts: where the rows are that a version was trained on.
        forks: children to render in.
        scratch: folder for files on their way.
        seconds: how long one may take; 0 makes none.
    """

    def __init__(
        self, registry: Registry, artifacts: ArtifactStore, forks: Sandbox, scratch: Path, seconds: float = 300.0
    ) -> None:
        self._registry, self._artifacts, self._forks = registry, artifacts, forks
        self._scratch, self._seconds = scratch, seconds

    async def page(
        self, model: str, version: str, moved: tuple[str, ...], rows: RowPositions, profile: Profile, recent: Recent
    ) -> ArtifactRef | None:
        """Recent rows beside those of the training, moved columns first; None when there is nothing to show."""
        candidate = await self._registry.candidate(model, version) if self._seconds else None
        if candidate is None:
            return None
        try:
            base = await self._artifacts.fetch(candidate.trained.dataset)
            columns = await recent.columns(rows)
            return await self._rendered(base, columns, _kinds(moved, profile)) if columns else None
        except (ArtifactMissing, ArtifactCorrupt, JobFailed, JobKilled, JobTimedOut) as error:
            log.warning("no page for this alarm", model=model, version=version, error=str(error))
            return None

    async def _rendered(self, base: Path, columns: dict[str, list[Any]], kinds: dict[str, list[str]]) -> ArtifactRef:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="page-", dir=self._scratch) as folder:
            recent, out = Path(folder) / "recent.json", Path(folder) / "report.html"
            await asyncio.to_thread(recent.write_text, json.dumps(columns))
            argument = {"base": str(base), "recent": str(recent), "out": str(out), **kinds}
            python = self._forks.environments.base
            await self._forks.run(python, "services.monitor.jobs.drift_report:render", argument, seconds=self._seconds)
            return await self._artifacts.put(out, HTML)


def _kinds(moved: tuple[str, ...], profile: Profile) -> dict[str, list[str]]:
    return {
        "numeric": [column.name for column in profile.columns if column.edges is not None],
        "categorical": [column.name for column in profile.columns if column.edges is None],
        "order": list(dict.fromkeys([*moved, *(column.name for column in profile.columns)])),
    }
