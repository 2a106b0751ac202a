"""Work on models in child processes: fetch the files of a job, run it in the model's environment, read its result."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

from contracts.artifact_ref import HTML, ArtifactRef
from contracts.events import ModelApproved, ModelTrained
from contracts.runtime import Environment
from contracts.values import Frozen
from contracts.verdicts import Verdict
from services.evaluator.domain import incomparable
from services.evaluator.jobs.requests import (
    ChampionPredictions,
    JudgementRequest,
    JudgementResult,
    PredictionResult,
    RegistrationRequest,
    RegistrationResult,
    ReportRequest,
    ScoringRequest,
)
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

PREDICT = "services.evaluator.jobs.predict:predict"
JUDGE = "services.evaluator.jobs.judge_candidate:judge"
REGISTER = "services.evaluator.jobs.register:register"
REPORT = "services.evaluator.jobs.report:report"
PRELOAD = (
    *(job.split(":")[0] for job in (PREDICT, JUDGE, REGISTER)),
    *("sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline", "sklearn.preprocessing"),
    *("sklearn.impute", "sklearn.compose", "sklearn.svm", "sklearn.neighbors", "sklearn.tree"),
    *("pyarrow.parquet", "pyarrow.dataset", "pyarrow.pandas_compat", "narwhals._pandas_like.dataframe"),
)
"""Modules that each fork server imports once: most models' own, and those that pandas imports at first use."""
MEBIBYTE = 1024 * 1024
Result = TypeVar("Result", bound=Frozen)


class ModelFailed(Permanent):
    """The model, or the project's code that it needs, raised."""


CHAMPION_UNAVAILABLE = (
    ModelFailed, ChildKilled, TimedOut, OutOfMemory, ArtifactMissing, ArtifactCorrupt, BadArchive, BadRequirements,
)  # fmt: skip
"""Errors of the live version, which are no reason to fail the candidate's evaluation."""


class ScoringBackend(Protocol):
    """Predicts, judges, registers and reports. The files of one judgement lie in a scratch folder."""

    def scratch(self) -> Any:
        """Return a context manager that yields a folder for one judgement."""
        ...

    async def predict_champion(
        self, champion: ModelTrained, candidate: ModelTrained, folder: Path
    ) -> ChampionPredictions:
        """Return the champion's predictions of the candidate's held-out rows, or why there are none."""
        ...

    async def judge(
        self, candidate: ModelTrained, champion: ChampionPredictions | None, folder: Path
    ) -> JudgementResult:
        """Return the judgement of a candidate."""
        ...

    async def register(self, approved: ModelApproved, run: str, metrics: Mapping[str, float]) -> Path:
        """Put an approved version into the model store, and return its folder there."""
        ...

    async def report(
        self, candidate: ModelTrained, champion: ChampionPredictions | None, verdict: Verdict, folder: Path
    ) -> ArtifactRef:
        """Return the page about a version that was not approved."""
        ...


class SandboxedScoring:
    """Scoring in child processes of each model's own environment."""

    def __init__(self, sandbox: Sandbox, artifacts: ArtifactStore, settings: Settings) -> None:
        self._sandbox, self._artifacts, self._settings = sandbox, artifacts, settings

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        parent = self._settings.home / "evaluator"
        parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=parent.resolve()) as folder:
            yield Path(folder)

    async def predict_champion(
        self, champion: ModelTrained, candidate: ModelTrained, folder: Path
    ) -> ChampionPredictions:
        if reason := incomparable(champion, candidate):
            return ChampionPredictions(version=champion.version, reason=reason)
        try:
            request = await self._request(champion, candidate, folder / "champion.parquet")
            result = await self._run("its prediction", champion.environment, PREDICT, request, PredictionResult)
        except CHAMPION_UNAVAILABLE as error:
            log.warning("the live version cannot predict", champion=champion.version, error=str(error))
            reason = f"the live version {champion.version} could not predict these rows: {_first_line(error)}"
            return ChampionPredictions(version=champion.version, reason=reason)
        return ChampionPredictions(version=champion.version, predictions=request.predictions, classes=result.classes)

    async def judge(
        self, candidate: ModelTrained, champion: ChampionPredictions | None, folder: Path
    ) -> JudgementResult:
        request = JudgementRequest(candidate=await self._candidate(candidate, folder), champion=champion)
        step = "predicting the held-out rows"
        return await self._run(step, candidate.environment, JUDGE, request, JudgementResult)

    async def register(self, approved: ModelApproved, run: str, metrics: Mapping[str, float]) -> Path:
        request = RegistrationRequest(
            home=self._settings.store.resolve(),
            approved=approved,
            run=run,
            metrics=dict(metrics),
            model=(await self._artifacts.fetch(approved.artifact)).resolve(),
            project=(await self._artifacts.fetch_folder(approved.project)).resolve(),
        )
        step = "registering the model"
        return (await self._run(step, approved.environment, REGISTER, request, RegistrationResult)).folder

    async def report(
        self, candidate: ModelTrained, champion: ChampionPredictions | None, verdict: Verdict, folder: Path
    ) -> ArtifactRef:
        scored, file = await self._candidate(candidate, folder), folder / "report.html"
        request = ReportRequest(candidate=scored, champion=champion, verdict=verdict, page=file)
        try:
            # No model is loaded here, and only the base environment is sure to have Evidently.
            await self._sandbox.run(
                self._sandbox.environments.base, REPORT, request.model_dump(mode="json"),
                seconds=self._settings.report_seconds, progress=_log_progress,
            )  # fmt: skip
        except (JobFailed, JobKilled, JobTimedOut) as error:
            log.warning("the report has no pictures", error=_first_line(error))
            return await self._artifacts.put(page(candidate, verdict).encode(), HTML)
        return await self._artifacts.put(file, HTML)

    async def _candidate(self, candidate: ModelTrained, folder: Path) -> ScoringRequest:
        return await self._request(candidate, candidate, folder / "candidate.parquet")

    async def _request(self, model: ModelTrained, candidate: ModelTrained, predictions: Path) -> ScoringRequest:
        """A model with the candidate's held-out rows and gate, as local files."""
        return ScoringRequest(
            trained=model,
            model=(await self._artifacts.fetch(model.artifact)).resolve(),
            project=(await self._artifacts.fetch_folder(model.project)).resolve(),
            test=(await self._artifacts.fetch(candidate.test)).resolve(),
            gate_project=(await self._artifacts.fetch_folder(candidate.project)).resolve(),
            predictions=predictions,
        )

    async def _run(
        self, step: str, environment: Environment, job: str, request: Frozen, result: type[Result]
    ) -> Result:
        memory = self._settings.job_memory_mb
        limit = f"{memory} MiB of memory (EVALUATOR_JOB_MEMORY_MB)"
        with explained(step, ModelFailed, seconds="EVALUATOR_JOB_SECONDS", memory=limit):
            answer = await self._sandbox.run(
                environment, job, request.model_dump(mode="json"), seconds=self._settings.job_seconds,
                memory=memory * MEBIBYTE, progress=_log_progress,
            )  # fmt: skip
        return result.model_validate(answer)


def _log_progress(step: Mapping[str, Any]) -> None:
    log.info("progress", **step)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
