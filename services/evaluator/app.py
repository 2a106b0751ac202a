"""Wiring of the evaluator: judge, record, say."""

from pathlib import Path

from contracts.cloudevents import Envelope
from contracts.events import EvaluationFailed, ModelApproved, ModelRejected, ModelTrained, ReviewDecided
from services.evaluator import domain
from services.evaluator.domain import ChampionPredictions
from services.evaluator.scoring import PRELOAD, SandboxedScoring, ScoringBackend
from services.evaluator.settings import Settings
from services.messaging import from_environment
from services.messaging.worker import Emit, Worker, log
from services.sandbox import Environments, Sandbox
from services.storage import Candidate, Registry, open_artifact_store


def create_app(worker: Worker, registry: Registry, bench: ScoringBackend, champion_target: str) -> None:
    """Subscribe the evaluator's two handlers."""

    @worker.on(ModelTrained)
    async def evaluate(event: ModelTrained, about: Envelope) -> list[ModelApproved | ModelRejected]:
        known = await registry.candidate(event.model, event.version)
        if known is not None:  # judged before: a second judgement could meet another champion
            return [domain.said_by_gate(known)]
        with bench.scratch() as folder:
            rival = await champion(event, folder)
            judged = await bench.judge(event, rival, folder)
            candidate = domain.judged_candidate(event, about, judged.verdict)
            log.info("verdict", **domain.summary(judged.verdict))
            if judged.verdict.outcome == "pass":
                approved = domain.approved(event, judged, judged.verdict, candidate.trained_at)
                await bench.store(approved, about.run, event.metrics)
                candidate = candidate.model_copy(update={"status": "approved", "approved": approved})
            else:
                report = await bench.report(event, rival, judged.verdict, folder)
                candidate = candidate.model_copy(update={"report": report})
        await registry.put_candidate(candidate, None)
        return [domain.said_by_gate(candidate)]

    async def champion(event: ModelTrained, folder: Path) -> ChampionPredictions | None:
        live = await registry.live(event.model, champion_target)
        if live is None or live.version == event.version:
            return None
        known = await registry.candidate(event.model, live.version)
        if known is None:
            return ChampionPredictions(
                version=live.version, why=f"the registry has no record of the live version {live.version}"
            )
        return await bench.ask(known.trained, event, folder)

    @worker.on(ReviewDecided)
    async def review(event: ReviewDecided, about: Envelope) -> list[Emit]:
        candidate = await registry.candidate(event.model, event.version)
        if candidate is None or candidate.order != about.sequence:  # else: recorded, but not said before a kill
            candidate = await decide(event, about, domain.reviewable(event, candidate))
        return [Emit(domain.decided(event, candidate), run=candidate.run, generation=about.sequence)]

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
        """Asked again, because only an approval needs the probe and the promise; the gate's verdict stands."""
        with bench.scratch() as folder:
            judged = await bench.judge(candidate.trained, None, folder)
        verdict = candidate.verdict or judged.verdict
        approved = domain.approved(candidate.trained, judged, verdict, candidate.trained_at, event.by, event.reason)
        await bench.store(approved, candidate.run, candidate.trained.metrics)
        return approved


def main() -> None:
    settings = from_environment(Settings)
    worker = Worker("evaluator", settings, failed=EvaluationFailed)
    artifacts = open_artifact_store(worker.bus, settings)
    environments = Environments(settings.envs or settings.home / "envs", artifacts)
    forks = Sandbox(environments, preload=PRELOAD)
    create_app(worker, Registry(worker.bus), SandboxedScoring(forks, artifacts, settings), settings.champion_target)

    worker.background(forks.stay_warm)
    worker.on_close(forks.close)
    worker.run()


if __name__ == "__main__":
    main()
