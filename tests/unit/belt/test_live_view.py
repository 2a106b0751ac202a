from collections.abc import Mapping, Sequence
from io import StringIO

from rich.console import Console

from belt.commands import runs
from belt.live_view import LiveView, Progress, latest_progress, log_line, progress
from services.timeline import runs as timeline
from tests.unit.services.monitor import drift_events


def shown(events: int, logs: Sequence[Mapping[str, object]], *, terminal: bool) -> str:
    """The text of a live view after the first events of a run and some log lines."""
    console = Console(file=StringIO(), force_terminal=terminal, width=160, color_system=None, _environ={})
    run = None
    with LiveView(console) as view:
        for event, about in drift_events.whole_run()[:events]:
            run = timeline.apply_event(run, event, about)
            view.show_event(event, about, run)
        for line in logs:
            view.show_log(line)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def made(done: int, step: str = "fit") -> dict[str, object]:
    return {
        "event": "progress", "level": "info", "service": "trainer", "run": drift_events.RUN,
        "step": step, "done": done, "total": 3,
    }  # fmt: skip


def test_a_warning_is_one_line_whose_traceback_is_left_to_the_logs() -> None:
    line = {"event": "will be tried again", "level": "warning", "service": "builder", "error": "RegistryAway: no"}
    shown_line = shown(0, [line | {"exception": "Traceback\n  File x\nRegistryAway: no"}], terminal=False)
    assert shown_line.count("\n") == 1
    assert shown_line.rstrip().endswith("will be tried again error=RegistryAway: no")


def test_every_event_is_a_line() -> None:
    lines = shown(5, [], terminal=False).splitlines()
    assert [line.split()[3] for line in lines] == [
        "data.pushed", "model.trained", "model.approved", "image.pushed", "model.deployed",
    ]  # fmt: skip
    assert lines[1].endswith("trained in 1.5 s: accuracy 0.972")


def test_without_a_terminal_progress_is_shown_once_per_step_and_without_a_count() -> None:
    written = shown(1, [made(1), made(2), made(1, "score"), made(3)], terminal=False)
    steps = [line.strip() for line in written.splitlines()[1:]]
    assert steps == ["trainer: fit", "trainer: score"]


def test_a_count_never_falls_though_steps_run_side_by_side() -> None:
    now: Progress | None = None
    counts = []
    for line in (made(0, "read"), made(2, "tests"), made(1, "check"), made(3, "save")):
        found = progress(line)
        assert found
        now = latest_progress(now, found)
        counts.append(str(now))
    assert counts == ["read 0/3", "tests 2/3", "check 2/3", "save 3/3"]


def test_lines_of_a_stage_that_has_ended_are_not_shown() -> None:
    assert "trainer: fit" not in shown(2, [made(1)], terminal=False)
    assert "trainer: fit" not in shown(5, [made(1)], terminal=False)


def test_a_failure_shows_the_end_of_its_message_once() -> None:
    console = Console(file=StringIO(), width=160, _environ={})
    (event, about) = drift_events.history(drift_events.failed_tests())[0]
    with LiveView(console) as view:
        view.show_event(event, about, None)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0].endswith("ProjectTestsFailed: the project's tests fail, so nothing was trained")
    assert lines[1:] == [f"          E   line {number}" for number in range(15, 30)]


def test_a_failed_run_shows_the_end_of_the_message_too() -> None:
    (run,) = timeline.build_runs(drift_events.history(drift_events.pushed(), drift_events.failed_tests()))
    console = Console(file=StringIO(), width=160, _environ={})
    console.print(runs.view(run))
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().count("E   line 29") == 1
    assert timeline.outcome_line(run) == "digits was not deployed: the trainer failed"


def test_on_a_terminal_the_stages_under_way_stand_at_the_bottom() -> None:
    written = shown(1, [made(2)], terminal=True)
    assert "trainer" in written
    assert "fit 2/3" in written
    assert "━" in written


def test_warnings_are_shown_and_ordinary_lines_are_not() -> None:
    quiet = {"event": "started", "level": "info", "service": "trainer"}
    loud = {"event": "will be tried again", "level": "warning", "service": "trainer", "seconds": 2.0}
    written = shown(0, [quiet, loud], terminal=False)
    assert "started" not in written
    assert "will be tried again seconds=2.0" in written


def test_a_log_line_keeps_what_it_does_not_know() -> None:
    line = {"event": "x", "level": "error", "service": "s", "timestamp": "not a time", "exception": "Traceback", "k": 1}
    assert log_line(line).plain == "not a time  error   s   x k=1\nTraceback"
    assert log_line({"event": "x", "seconds": 0.0442363, "traceback": "T"}).plain.endswith("x seconds=0.044\nT")


def test_a_run_can_be_drawn_at_every_step() -> None:
    for count in range(1, 6):
        (run,) = timeline.build_runs(drift_events.whole_run()[:count])
        console = Console(file=StringIO(), width=200)
        console.print(runs.view(run))
        assert isinstance(console.file, StringIO)
        assert run.id in console.file.getvalue()
