import pytest

from contracts.cloudevents import Envelope, run_of
from contracts.events import Event, ModelTrained
from contracts.verdicts import ConditionResult
from services.timeline import wording
from services.timeline.runs import Run, apply_event, build_runs, next_command
from tests.unit.services.monitor import drift_events


def only(events: list[tuple[Event, Envelope]]) -> Run:
    (run,) = build_runs(events)
    return run


def states(run: Run) -> list[str]:
    return [stage.state for stage in run.stages]


def test_a_push_that_went_live_is_deployed_with_the_time_each_stage_took() -> None:
    run = only(drift_events.whole_run())
    assert (run.outcome, run.version, run.url) == ("deployed", drift_events.VERSION, "http://127.0.0.1:8080/digits")
    assert states(run) == ["done"] * 4
    assert [stage.seconds for stage in run.stages] == [1.0] * 4
    assert run.seconds == 4.0
    assert run.active_service is None
    assert run.is_over


@pytest.mark.parametrize(("events", "service"), [(1, "trainer"), (2, "evaluator"), (3, "builder"), (4, "deployer")])
def test_a_run_under_way_names_the_service_that_works_on_it(events: int, service: str) -> None:
    run = only(drift_events.whole_run()[:events])
    assert run.active_service == service
    assert not run.is_over
    assert run.seconds is None
    assert next_command(run) == f"belt watch {run.id}"


def test_rejected_data_fails_the_run_with_every_violation() -> None:
    run = only(drift_events.history(drift_events.pushed(), drift_events.rejected_data()))
    assert run.outcome == "failed"
    assert run.reason == "data rejected: column 'y' is missing; 3 rows are too few"
    assert states(run) == ["failed", "waiting", "waiting", "waiting"]


def test_a_failed_training_says_the_last_line_of_the_traceback() -> None:
    run = only(drift_events.history(drift_events.pushed(), drift_events.failed_training()))
    assert run.reason == "training failed: ProjectCodeFailed: ValueError: no rows"
    assert next_command(run) == f"belt logs {run.id}"


def test_what_the_gate_does_not_pass_waits_for_a_person_and_goes_on_when_approved() -> None:
    events = drift_events.history(drift_events.pushed(), drift_events.trained(), drift_events.rejected())
    waiting = only(events)
    assert waiting.outcome == "review"
    assert "accuracy > 0.9: 0.972 (0.951 to 0.986) unknown" in waiting.reason
    assert "belt review approve digits" in (next_command(waiting) or "")
    decided = only([*events, *drift_events.history(drift_events.reviewed(), at=9)])
    assert (decided.outcome, decided.active_service) == ("running", "evaluator")
    live = [drift_events.reviewed(), drift_events.approved("Ada"), drift_events.image(), drift_events.deployed()]
    assert only([*events, *drift_events.history(*live, at=9)]).outcome == "deployed"


def test_a_persons_rejection_ends_the_run() -> None:
    events = drift_events.history(drift_events.pushed(), drift_events.trained())
    run = only([*events, *drift_events.history(drift_events.rejected("Ada"), at=9)])
    assert (run.outcome, states(run)[1]) == ("rejected", "stopped")


def test_an_older_run_that_comes_late_is_superseded() -> None:
    events = [
        drift_events.pushed(),
        drift_events.trained(),
        drift_events.approved(),
        drift_events.image(),
        drift_events.superseded(),
    ]
    run = only(drift_events.history(*events))
    assert (run.outcome, run.reason) == ("superseded", "9-00000000 is newer and live")


def test_live_stays_deployed_whatever_a_rollback_does_later() -> None:
    later = drift_events.history(drift_events.deployed("rollback"), drift_events.failed_deployment(), at=20)
    run = only([*drift_events.whole_run(), *later])
    assert (run.outcome, run.seconds) == ("deployed", 4.0)
    assert len(run.events) == 7


def test_a_repeated_event_changes_nothing() -> None:
    events = drift_events.whole_run()
    assert only([*events, *events]) == only(events)


def test_a_later_success_overrules_a_failure() -> None:
    events = drift_events.history(drift_events.pushed(), drift_events.failed_training(), drift_events.trained())
    assert (only(events).outcome, only(events).reason) == ("running", "")


def test_drift_starts_a_run_only_when_it_retrains() -> None:
    other = run_of("monitor", "d1", "digits")
    assert build_runs(drift_events.history(drift_events.drifted("alert"), run=other)) == []
    assert only(drift_events.history(drift_events.drifted(), run=other)).started_by == "drift.detected"


def test_drift_is_described_in_the_numbers_a_person_knows() -> None:
    evidence = {"accuracy": 0.44, "promised": 0.98, "max_loss": 0.05, "e_value": 9e9, "labels": 502.0, "coverage": 1.0}
    event = drift_events.drifted().model_copy(update={"evidence": evidence, "columns": ("pixel_7_6", "pixel_0_2")})
    assert wording.describe(event) == (
        "performance: accuracy 0.44 instead of 0.98 on 502 labels; a retraining starts; "
        "moved most: pixel_7_6, pixel_0_2"
    )


def test_a_first_version_passes_without_a_champion_and_a_decision_is_past() -> None:
    alone = ConditionResult(condition="accuracy - champion > -0.05", rows=9, outcome="pass")
    assert wording.condition(alone) == "accuracy - champion > -0.05: pass (no champion yet)"
    assert wording.describe(drift_events.reviewed("reject")).startswith("Ada rejected it: ")


def test_a_commit_that_is_not_what_was_pushed_says_so() -> None:
    pushed = drift_events.pushed().model_copy(update={"commit": "0123456789abcdef-dirty"})
    assert wording.describe(pushed).endswith("commit 0123456789-dirty")


def test_runs_are_kept_apart_and_in_the_order_they_started() -> None:
    other = run_of("test", "push-2", "digits")
    mixed = drift_events.whole_run()[:3] + drift_events.history(drift_events.pushed("again"), run=other, at=4)
    first, second = build_runs(mixed + drift_events.whole_run()[3:])
    assert (first.id, first.outcome, second.id, second.outcome) == (drift_events.RUN, "deployed", other, "running")


def test_events_of_no_run_are_left_out() -> None:
    assert build_runs(drift_events.history(drift_events.rollback(), run="0" * 16)) == []


def test_a_run_whose_start_the_stream_forgot_is_still_shown() -> None:
    run = only(drift_events.whole_run()[1:])
    assert (run.started_by, run.outcome) == (ModelTrained.subject, "deployed")


def test_following_gives_the_same_as_reading_it_all() -> None:
    followed: Run | None = None
    for event, about in drift_events.whole_run():
        followed = apply_event(followed, event, about)
    assert followed == only(drift_events.whole_run())


def test_every_event_has_a_line_for_a_person() -> None:
    lines = [event.summary for event in only(drift_events.whole_run()).events]
    assert lines[0] == "data aaaaaaaaaa (2.0 kB), commit 0123456789"
    assert lines[1] == "trained in 1.5 s: accuracy 0.972"
    assert lines[2] == "the gate approved it; accuracy > 0.9: 0.972 (0.951 to 0.986) pass"
    assert lines[3] == "pushed bento+nats://artifacts/cccccccccccc (123.5 kB)"
    assert lines[4] == "live on local at http://127.0.0.1:8080/digits"
