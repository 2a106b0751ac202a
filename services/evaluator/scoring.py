"""Work on models in forked children: fetches what they need, starts them, and reads what they say."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from contracts.artifact_ref import HTML, ArtifactRef
from contracts.events import ModelApproved, ModelTrained
from contracts.verdicts import Verdict
from services.evaluator.domain import ChampionPredictions, JudgementResult, ScoringRequest, incomparable
from services.evaluator.settings import Settings
from services.evaluator.verdict_page import page
from services.messaging import Permanent
from services.messaging.worker import log
from services.sandbox import (
    BadRequirements,
    ChildKilled,
    JobFailed,
    JobKilled,
    JobTimedOut,
    OutOfMemory,
    Sandbox,
    TimedOut,
    explained,
)
from services.storage import ArtifactCorrupt, ArtifactMissing, ArtifactStore, BadArchive

JOB, REPORT = "services.evaluator.jobs.judge", "services.evaluator.jobs.report"
PRELOAD = (
    JOB,
    *("sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline", "sklearn.preprocessing"),
    *("sklearn.impute", "sklearn.compose", "sklearn.svm", "sklearn.neighbors", "sklearn.tree"),
    *("pyarrow.parquet", "pyarrow.dataset", "pyarrow.pandas_compat", "narwhals._pandas_like.dataframe"),
)
"""Modules the template pays for: most models' own, and what pandas and scikit-learn import at first use."""


class ModelFailed(Permanent):
    """The model, or the project's code that it needs, raised."""


UNASKABLE = (
    ModelFailed, ChildKilled, TimedOut, OutOfMemory, ArtifactMissing, ArtifactCorrupt, BadArchive, BadRequirements,
)  # fmt: skip
"""What keeps a champion from answering without being the candidate's fault."""
MEBIBYTE = 1024 * 1024


class ScoringBackend(Protocol):
    """Where candidates are judged. Files of one judgement lie in `folder`."""

    def scratch(self) -> Any:
        """A context manager: a folder for one judgement."""
        ...

    async def ask(self, champion: ModelTrained, candidate: ModelTrained, folder: Path) -> ChampionPredictions:
        """The champion's answers on the candidate's held-out rows, or why there are none."""
        ...

    async def judge(self, candidate: ModelTrained, rival: ChampionPredictions | None, folder: Path) -> JudgementResult:
        """The candidate's judgement."""
        ...

    async def store(self, approved: ModelApproved, run: str, metrics: Mapping[str, float]) -> str:
        """Register an approved version; the folder it is in."""
        ...

    async def report(
        self, candidate: ModelTrained, rival: ChampionPredictions | None, verdict: Verdict, folder: Path
    ) -> ArtifactRef:
        """The page on a version that was not approved."""
        ...


class SandboxedScoring:
    """The bench in children of each model's own environment."""

    def __init__(self, forks: Sandbox, artifacts: ArtifactStore, settings: Settings) -> None:
        self._forks, self._artifacts, self._settings = forks, artifacts, settings

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        parent = self._settings.home / "evaluator"
        parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=parent.resolve()) as folder:
            yield Path(folder)

    async def ask(self, champion: ModelTrained, candidate: ModelTrained, folder: Path) -> ChampionPredictions:
        if why := incomparable(champion, candidate):
            return ChampionPredictions(version=champion.version, why=why)
        try:
            asked = await self._asked(champion, candidate, folder / "champion.parquet")
            said = await self._run("its prediction", champion, "answer", asked.model_dump(mode="json"))
        except UNASKABLE as error:
            log.warning("the live version cannot be asked", champion=champion.version, error=str(error))
            why = f"the live version {champion.version} could not be asked about these rows: {_first_line(error)}"
            return ChampionPredictions(version=champion.version, why=why)
        return ChampionPredictions(version=champion.version, answers=asked.answers, classes=tuple(said["classes"]))

    async def judge(self, candidate: ModelTrained, rival: ChampionPredictions | None, folder: Path) -> JudgementResult:
        asked = await self._asked(candidate, candidate, folder / "candidate.parquet")
        argument = {"candidate": asked.model_dump(mode="json"), "rival": rival and rival.model_dump(mode="json")}
        return JudgementResult.model_validate(
            await self._run("predicting the held-out rows", candidate, "judge", argument)
        )

    async def store(self, approved: ModelApproved, run: str, metrics: Mapping[str, float]) -> str:
        argument = {
            "home": str(self._settings.store.resolve()),
            "approved": approved.model_dump(mode="json"),
            "run": run,
            "metrics": dict(metrics),
            "model": str((await self._artifacts.fetch(approved.artifact)).resolve()),
            "project": str((await self._artifacts.fetch_folder(approved.project)).resolve()),
        }
        return str((await self._run("registering the model", approved, "store", argument))["folder"])

    async def report(
        self, candidate: ModelTrained, rival: ChampionPredictions | None, verdict: Verdict, folder: Path
    ) -> ArtifactRef:
        asked = await self._asked(candidate, candidate, folder / "candidate.parquet")
        written = folder / "report.html"
        argument = {
            "candidate": asked.model_dump(mode="json"),
            "rival": rival and rival.model_dump(mode="json"),
            "verdict": verdict.model_dump(mode="json"),
            "to": str(written),
        }
        try:
            # No model is touched here: the base environment is the one that is sure to have Evidently.
            await self._forks.run(
                self._forks.environments.base, f"{REPORT}:write", argument,
                seconds=self._settings.report_seconds, progress=_tell,
            )  # fmt: skip
        except (JobFailed, JobKilled, JobTimedOut) as error:
            log.warning("the report has no pictures", error=_first_line(error))
            return await self._artifacts.put(page(candidate, verdict).encode(), HTML)
        return await self._artifacts.put(written, HTML)

    async def _asked(self, model: ModelTrained, candidate: ModelTrained, answers: Path) -> ScoringRequest:
        """A model and the candidate's held-out rows."""
        return ScoringRequest(
            trained=model,
            model=(await self._artifacts.fetch(model.artifact)).resolve(),
            project=(await self._artifacts.fetch_folder(model.project)).resolve(),
            test=(await self._artifacts.fetch(candidate.test)).resolve(),
            judged_by=(await self._artifacts.fetch_folder(candidate.project)).resolve(),
            answers=answers,
        )

    async def _run(
        self, step: str, model: ModelTrained | ModelApproved, job: str, argument: Mapping[str, Any]
    ) -> dict[str, Any]:
        allowed = self._settings.job_memory_mb
        limit = f"{allowed} MiB of memory (EVALUATOR_JOB_MEMORY_MB)"
        with explained(step, ModelFailed, seconds="EVALUATOR_JOB_SECONDS", memory=limit):
            return await self._forks.run(
                model.environment, f"{JOB}:{job}", argument, seconds=self._settings.job_seconds,
                memory=allowed * MEBIBYTE, progress=_tell,
            )  # fmt: skip


def _tell(step: Mapping[str, Any]) -> None:
    log.info("progress", **step)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
