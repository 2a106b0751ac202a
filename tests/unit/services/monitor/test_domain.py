"""When the monitor raises an alarm, and when it must not."""

import pytest

from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.domain import Incident, ModelState
from services.monitor.ingest.payloads import PredictionBatch
from services.monitor.state.codec import pack, unpack
from services.monitor.state.model_traffic import TrafficMessage
from tests.unit.services.monitor.monitored import VERSION, Stream, profile, promise, watched

NEXT = "2-0123abcd"


def feed(watch: ModelState, stream: Stream, rows: int, accuracy: float, shift: float = 0.0) -> list[Incident]:
    """Rows in messages of 50, labelled at once; the incidents that opened, each told at once."""
    opened: list[Incident] = []
    for _ in range(rows // 50):
        now = float(stream.rows)
        watch.apply(stream.answers(50, accuracy, shift), now)
        if watch.incident and not watch.incident.told:
            opened.append(watch.incident)
            watch.told(watch.incident.id, now)
    return opened


@pytest.mark.parametrize("value", [0.99, 0.95, 0.8, 0.6])
@pytest.mark.parametrize("seed", range(25))
def test_quiet_traffic_as_promised_raises_nothing(value: float, seed: int) -> None:
    assert feed(watched(value), Stream(seed), 3000, value) == []


@pytest.mark.parametrize("value", [0.95, 0.8, 0.6])
@pytest.mark.parametrize("seed", range(8))
def test_a_loss_of_20_points_is_found_within_1000_labels(value: float, seed: int) -> None:
    watch, stream = watched(value), Stream(seed)
    assert feed(watch, stream, 1000, value) == []
    opened = feed(watch, stream, 1000, value - 0.2)
    assert [(incident.kind, incident.action) for incident in opened] == [("performance", "retrain")]
    [incident] = opened
    rows = watch.rows_of(incident)
    assert len(rows.sequence) >= 500
    # Traffic before the change came in messages 1 to 40: what retraining gets is mostly from after it.
    assert (rows.sequence > 40).mean() > 0.75
    assert incident.evidence["accuracy"] < value - 0.05


def test_a_small_loss_within_the_promise_raises_nothing() -> None:
    watch, stream = watched(0.95), Stream(1)
    assert feed(watch, stream, 3000, 0.92) == []


@pytest.mark.parametrize("seed", range(5))
def test_drift_alone_is_an_alert_with_the_moved_columns_first(seed: int) -> None:
    watch, stream = watched(columns=5), Stream(seed, columns=5)
    assert feed(watch, stream, 1000, 0.95) == []
    opened = feed(watch, stream, 2000, 0.95, shift=1.0)
    assert [(incident.kind, incident.action) for incident in opened] == [("data", "alert")]
    assert set(opened[0].columns) == {"x0", "x1", "x2", "x3", "x4"}


def test_an_alert_closes_with_a_calm_window_and_may_come_again_after_the_cooldown() -> None:
    watch, stream = watched(), Stream(3)
    [first] = feed(watch, stream, 500, 0.95, shift=1.0)
    assert feed(watch, stream, 500, 0.95) == []
    assert watch.incident is None
    assert feed(watch, stream, 500, 0.95, shift=1.0) == []  # cooling down: 600 s are 600 rows here
    [second] = feed(watch, stream, 1000, 0.95, shift=1.0)
    assert first.id != second.id


def test_one_open_incident_until_the_new_version_is_live() -> None:
    watch, stream = watched(), Stream(4)
    assert len(feed(watch, stream, 1500, 0.6)) == 1
    assert feed(watch, stream, 3000, 0.6) == []
    watch.deployed(NEXT, "local", profile(), promise(), now=float(stream.rows))
    assert watch.incident is None
    # Late labels of the version before do not alarm for it any more.
    assert feed(watch, stream, 2000, 0.6) == []


def test_a_run_that_ends_without_a_version_closes_it_and_it_opens_again_after_cooldown_and_fresh_labels() -> None:
    watch, stream = watched(), Stream(5)
    [incident] = feed(watch, stream, 1000, 0.6)
    watch.run_ended("another run", float(stream.rows))
    assert watch.incident is not None
    watch.run_ended(incident.run, float(stream.rows))
    assert watch.incident is None
    assert feed(watch, stream, 450, 0.6) == []
    [again] = feed(watch, stream, 1500, 0.6)
    assert again.id != incident.id
    assert again.action == "retrain"


def test_without_enough_labels_in_time_a_person_is_told() -> None:
    watch, stream = watched(rules=Rules(gather_seconds=1000)), Stream(6)
    assert feed(watch, stream, 200, 0.3) == []
    watch.tick(now=5000.0)
    assert watch.incident is not None
    assert (watch.incident.kind, watch.incident.action) == ("performance", "alert")
    watch.told(watch.incident.id, 5000.0)
    assert watch.incident is None


def test_labels_that_come_hours_after_the_last_prediction_are_gathered_all_the_same() -> None:
    watch, stream = watched(), Stream(18)
    pairs = [stream.answers(10, 0.6) for _ in range(100)]
    watch.apply([answers for answers, _ in pairs], 1000.0)
    hours_later = 1000.0 + 3 * Rules().gather_seconds
    # Ten at a time, as people give them; sequence numbers go on behind the predictions.
    for number, (_, truths) in enumerate(pairs):
        watch.apply([truths._replace(sequence=stream.sequence + number + 1)], hours_later + number)
    assert watch.incident is not None
    assert (watch.incident.kind, watch.incident.action) == ("performance", "retrain")
    assert watch.incident.window.labels >= 400


def test_late_alerts_within_one_window_of_labels_are_several() -> None:
    watch, stream = watched(rules=Rules(gather_seconds=1000), window=5000), Stream(17)
    ids = []
    for now in (5000.0, 10_000.0, 15_000.0):
        assert feed(watch, stream, 150, 0.2) == []
        watch.tick(now)
        assert watch.incident is not None
        assert watch.incident.window.index == 0
        ids.append(watch.incident.id)
        watch.told(watch.incident.id, now)
    assert len(set(ids)) == 3


def test_labels_of_one_class_are_no_verdict() -> None:
    watch, stream = watched(), Stream(7)
    for _ in range(20):
        answers, truths = stream.answers(50, 0.1)
        assert isinstance(truths.content, list)
        watch.apply(
            [answers, truths._replace(content=[t.__class__(t.id, 3, t.time, t.index) for t in truths.content])], 1
        )
    assert watch.incident is None or watch.incident.kind != "performance"


def test_a_transient_loss_that_has_recovered_is_forgotten() -> None:
    watch, stream = watched(), Stream(8)
    assert feed(watch, stream, 60 // 50 * 50, 0.0) == []
    assert watch.traffic.versions[VERSION].judged.alarmed is not None
    opened = feed(watch, stream, 2000, 1.0)
    assert [incident.kind for incident in opened] == []


def test_regression_is_held_to_the_share_within_tolerance() -> None:
    watch = ModelState("diabetes", Rules())
    held = PerformanceTarget(metric="within", value=0.9, tolerance=5.0, window=200)
    watch.deployed(VERSION, "local", profile(), held, now=0.0)
    stream = Stream(9)
    opened = []
    for step in range(40):
        answers, truths = stream.answers(50, 1.0)
        assert isinstance(truths.content, list)
        off = 4.9 if step < 20 else 5.1
        moved = [t.__class__(t.id, t.label + off, t.time, t.index) for t in truths.content]
        watch.apply([answers, truths._replace(content=moved)], float(stream.rows))
        if watch.incident and not watch.incident.told:
            opened.append((step, watch.incident.kind, watch.incident.action))
            watch.told(watch.incident.id, float(stream.rows))
    [(step, kind, action)] = opened
    assert (kind, action) == ("performance", "retrain")
    assert 20 <= step < 30


def test_a_burst_of_missing_values_is_quality() -> None:
    watch, stream = watched(), Stream(10)
    for _ in range(10):
        answers, _ = stream.answers(50, 0.95)
        assert isinstance(answers.content, PredictionBatch)
        answers.content.columns["x1"] = [None] * 50
        watch.apply([answers], float(stream.rows))
    assert watch.incident is not None
    assert (watch.incident.kind, watch.incident.action, watch.incident.columns) == ("quality", "alert", ("x1",))


def test_text_where_numbers_were_is_quality() -> None:
    watch, stream = watched(), Stream(11)
    for _ in range(10):
        answers, _ = stream.answers(50, 0.95)
        assert isinstance(answers.content, PredictionBatch)
        answers.content.columns["x0"] = ["n/a"] * 50
        watch.apply([answers], float(stream.rows))
    assert watch.incident is not None
    assert watch.incident.columns == ("x0",)


def test_thin_windows_carry_over_until_they_are_worth_a_look() -> None:
    watch, stream = watched(), Stream(12)
    watch.apply([stream.answers(20, 0.95)[0]], 20.0)
    watch.tick(now=10_000.0)
    assert watch.traffic.versions[VERSION].windows.index == 0
    watch.apply([stream.answers(80, 0.95)[0]], 10_001.0)
    watch.tick(now=20_000.0)
    assert watch.traffic.versions[VERSION].windows.index == 1


def test_the_day_has_a_budget_of_retrainings() -> None:
    watch, stream = watched(rules=Rules(retrains_per_day=1)), Stream(13)
    [first] = feed(watch, stream, 1000, 0.6)
    watch.run_ended(first.run, float(stream.rows))
    again = feed(watch, stream, 2500, 0.6)
    assert {(incident.kind, incident.action) for incident in again} == {("performance", "alert")}


def test_serving_errors_are_a_quality_alert_once() -> None:
    watch = watched()
    watch.serving_errors(VERSION, 30, start=100.0, end=130.0, now=130.0)
    assert watch.incident is not None
    assert watch.incident.evidence == {"serving_errors": 30.0}
    first = watch.incident
    watch.serving_errors(VERSION, 30, start=130.0, end=160.0, now=160.0)
    assert watch.incident == first


def test_unknown_labels_are_counted_as_unmatched_and_bounded() -> None:
    watch, stream = watched(rules=Rules(pending=100)), Stream(14)
    for _ in range(10):
        _, truths = stream.answers(50, 0.9)
        watch.apply([truths], 1.0)
    assert watch.traffic.early.unmatched == 500
    assert len(watch.traffic.early.dump()["keys"]) == 100


def test_memory_is_bounded_by_the_rules() -> None:
    watch, stream = watched(rules=Rules(pending=200)), Stream(15)
    feed(watch, stream, 5000, 0.95)
    assert len(watch.traffic.versions[VERSION].pending._numbers) == 200
    assert watch.traffic.versions[VERSION].judged.total == 5000
    for generation in range(2, 30):
        watch.introduce(f"{generation}-0123abcd", profile(), promise())
    assert len(watch.traffic.versions) == 4
    assert VERSION in watch.traffic.versions  # it is live


def test_state_goes_on_after_a_restart_as_if_nothing_had_happened() -> None:
    stream = Stream(16)
    messages: list[TrafficMessage] = [m for _ in range(30) for m in stream.answers(50, 0.8)]
    through, restarted = watched(), watched()
    for start in range(0, len(messages), 7):
        through.apply(messages[start : start + 7], 1.0)
        restarted.apply(messages[start : start + 7], 1.0)
        restarted = ModelState.load("digits", unpack(pack(restarted.dump())), Rules())
        restarted.apply(messages[: start + 7], 1.0)  # redelivered: nothing counts twice
    assert pack(through.dump()) == pack(restarted.dump())
    assert through.incident is not None
