"""Wiring of the evaluator: judge a candidate, register and record it, publish the outcome."""

from pathlib import Path

from contracts.cloudevents import Envelope
from contracts.events import EvaluationFailed, ModelApproved, ModelRejected, ModelTrained, ReviewDecided
from services.evaluator import domain
from services.evaluator.jobs.requests import ChampionPredictions
from services.evaluator.scoring import PRELOAD, SandboxedScoring, ScoringBackend
from services.evaluator.settings import Settings
from services.messaging import from_environment
from services.messaging.worker import Emit, Worker, log
from services.sandbox import Environments, Sandbox
from services.storage import Candidate, Registry, open_artifact_store


def create_app(worker: Worker, registry: Registry, scoring: ScoringBackend, champion_target: str) -> None:
    """Subscribe the evaluator's two handlers."""

    @worker.on(ModelTrained)
    async def evaluate(event: ModelTrained, about: Envelope) -> list[ModelApproved | ModelRejected]:
        recorded = await registry.candidate(event.model, event.version)
        if recorded is not None:  # a second judgement could meet another champion, or another training of the run
            return [await outcome_of(recorded)]
        with scoring.scratch() as folder:
            champion = await predict_champion(event, folder)
            judged = await scoring.judge(event, champion, folder)
            candidate = domain.judged_candidate(event, about, judged.verdict)
            log.info("verdict", **domain.summary(judged.verdict))
            if judged.verdict.outcome == "pass":
                approved = domain.approved(event, judged, judged.verdict, candidate.trained_at)
                await scoring.register(approved, about.run, event.metrics)
                candidate = candidate.model_copy(update={"status": "approved", "approved": approved})
            else:
                report = await scoring.report(event, champion, judged.verdict, folder)
                candidate = candidate.model_copy(update={"report": report})
        await registry.put_candidate(candidate, None)
        return [domain.gate_outcome(candidate)]

    async def outcome_of(recorded: Candidate) -> ModelApproved | ModelRejected:
        """The outcome on record. The model store follows the record, whatever an interrupted attempt left in it."""
        outcome = domain.gate_outcome(recorded)
        if isinstance(outcome, ModelApproved):
            await scoring.register(outcome, recorded.run, recorded.trained.metrics)
        return outcome

    async def predict_champion(event: ModelTrained, folder: Path) -> ChampionPredictions | None:
        live = await registry.live(event.model, champion_target)
        if live is None or live.version == event.version:
            return None
        recorded = await registry.candidate(event.model, live.version)
        if recorded is None:
            return ChampionPredictions(
                version=live.version, reason=f"the registry has no record of the live version {live.version}"
            )
        return await scoring.predict_champion(recorded.trained, event, folder)

    @worker.on(ReviewDecided)
    async def review(event: ReviewDecided, about: Envelope) -> list[Emit]:
        candidate = await registry.candidate(event.model, event.version)
        if candidate is None or candidate.order != about.sequence:  # else a killed worker recorded it unpublished
            candidate = await decide(event, about, domain.reviewable(event, candidate))
        return [Emit(domain.review_outcome(event, candidate), run=candidate.run, generation=about.sequence)]

    async def decide(event: ReviewDecided, about: Envelope, candidate: Candidate) -> Candidate:
        update = {"status": "rejected", "by": event.by, "reason": event.reason, "order": about.sequence}
        if event.decision == "approve":
            approved = await approve(event, candidate)
            update |= {"status": "approved", "approved": approved}
        log.info("review", decision=event.decision, by=event.by, reason=event.reason)
        decided = candidate.model_copy(update=update)
        await registry.put_candidate(decided, candidate)
        return decided

    async def approve(event: ReviewDecided, candidate: Candidate) -> ModelApproved:
        """Judge again: only an approval needs the probe and the performance target. The gate's verdict stands."""
        with scoring.scratch() as folder:
            judged = await scoring.judge(candidate.trained, None, folder)
        verdict = candidate.verdict or judged.verdict
        approved = domain.approved(candidate.trained, judged, verdict, candidate.trained_at, event.by, event.reason)
        await scoring.register(approved, candidate.run, candidate.trained.metrics)
        return approved


def main() -> None:
    settings = from_environment(Settings)
    worker = Worker("evaluator", settings, failed=EvaluationFailed)
    artifacts = open_artifact_store(worker.bus, settings)
    environments = Environments(settings.envs or settings.home / "envs", artifacts)
    sandbox = Sandbox(environments, preload=PRELOAD)
    create_app(worker, Registry(worker.bus), SandboxedScoring(sandbox, artifacts, settings), settings.champion_target)

    worker.background(sandbox.stay_warm)
    worker.on_close(sandbox.close)
    worker.run()


if __name__ == "__main__":
    main()
