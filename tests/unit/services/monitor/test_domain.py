"""Conditions under which the monitor raises an alarm, and under which it must not."""

import pytest

from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.domain import Incident, ModelState
from services.monitor.ingest.payloads import PredictionBatch
from services.monitor.state.model_traffic import TrafficMessage
from services.monitor.state.store import pack, unpack
from tests.unit.services.monitor.monitored import VERSION, Stream, live_model, profile, target

NEXT = "2-0123abcd"


def feed(model: ModelState, stream: Stream, rows: int, accuracy: float, shift: float = 0.0) -> list[Incident]:
    """Rows in messages of 50, labelled at once; the incidents that opened, each published at once."""
    opened: list[Incident] = []
    for _ in range(rows // 50):
        now = float(stream.rows)
        model.apply(stream.batch(50, accuracy, shift), now)
        if model.incident and not model.incident.published:
            opened.append(model.incident)
            model.mark_published(model.incident.id, now)
    return opened


@pytest.mark.parametrize("value", [0.99, 0.95, 0.8, 0.6])
@pytest.mark.parametrize("seed", range(25))
def test_traffic_on_target_opens_no_incident(value: float, seed: int) -> None:
    assert feed(live_model(value), Stream(seed), 3000, value) == []


@pytest.mark.parametrize("value", [0.95, 0.8, 0.6])
@pytest.mark.parametrize("seed", range(8))
def test_a_loss_of_20_points_is_found_within_1000_labels(value: float, seed: int) -> None:
    model, stream = live_model(value), Stream(seed)
    assert feed(model, stream, 1000, value) == []
    opened = feed(model, stream, 1000, value - 0.2)
    assert [(incident.kind, incident.action) for incident in opened] == [("performance", "retrain")]
    [incident] = opened
    rows = model.rows_of(incident)
    assert len(rows.sequence) >= 500
    # Traffic before the change came in messages 1 to 40: what retraining gets is mostly from after it.
    assert (rows.sequence > 40).mean() > 0.75
    assert incident.evidence["accuracy"] < value - 0.05


def test_a_small_loss_within_max_loss_opens_no_incident() -> None:
    model, stream = live_model(0.95), Stream(1)
    assert feed(model, stream, 3000, 0.92) == []


@pytest.mark.parametrize("seed", range(5))
def test_drift_alone_is_an_alert_with_the_drifted_columns(seed: int) -> None:
    model, stream = live_model(columns=5), Stream(seed, columns=5)
    assert feed(model, stream, 1000, 0.95) == []
    opened = feed(model, stream, 2000, 0.95, shift=1.0)
    assert [(incident.kind, incident.action) for incident in opened] == [("data", "alert")]
    assert set(opened[0].columns) == {"x0", "x1", "x2", "x3", "x4"}


def test_an_alert_closes_with_a_calm_window_and_may_come_again_after_the_cooldown() -> None:
    model, stream = live_model(), Stream(3)
    [first] = feed(model, stream, 500, 0.95, shift=1.0)
    assert feed(model, stream, 500, 0.95) == []
    assert model.incident is None
    assert feed(model, stream, 500, 0.95, shift=1.0) == []  # cooling down: 600 s are 600 rows here
    [second] = feed(model, stream, 1000, 0.95, shift=1.0)
    assert first.id != second.id


def test_one_open_incident_until_the_new_version_is_live() -> None:
    model, stream = live_model(), Stream(4)
    assert len(feed(model, stream, 1500, 0.6)) == 1
    assert feed(model, stream, 3000, 0.6) == []
    model.version_deployed(NEXT, "local", profile(), target(), now=float(stream.rows))
    assert model.incident is None
    # Late labels of the version before do not alarm for it any more.
    assert feed(model, stream, 2000, 0.6) == []


def test_a_run_that_ends_without_a_version_closes_it_and_it_opens_again_after_cooldown_and_fresh_labels() -> None:
    model, stream = live_model(), Stream(5)
    [incident] = feed(model, stream, 1000, 0.6)
    model.run_ended("another run", float(stream.rows))
    assert model.incident is not None
    model.run_ended(incident.run, float(stream.rows))
    assert model.incident is None
    assert feed(model, stream, 450, 0.6) == []
    [again] = feed(model, stream, 1500, 0.6)
    assert again.id != incident.id
    assert again.action == "retrain"


def test_without_enough_labels_in_time_there_is_an_alert() -> None:
    model, stream = live_model(rules=Rules(gather_seconds=1000)), Stream(6)
    assert feed(model, stream, 200, 0.3) == []
    model.tick(now=5000.0)
    assert model.incident is not None
    assert (model.incident.kind, model.incident.action) == ("performance", "alert")
    model.mark_published(model.incident.id, 5000.0)
    assert model.incident is None


def test_labels_that_come_hours_after_the_last_prediction_are_collected() -> None:
    model, stream = live_model(), Stream(18)
    pairs = [stream.batch(10, 0.6) for _ in range(100)]
    model.apply([predictions for predictions, _ in pairs], 1000.0)
    hours_later = 1000.0 + 3 * Rules().gather_seconds
    # Ten at a time, as people give them; sequence numbers go on behind the predictions.
    for number, (_, labels) in enumerate(pairs):
        model.apply([labels._replace(sequence=stream.sequence + number + 1)], hours_later + number)
    assert model.incident is not None
    assert (model.incident.kind, model.incident.action) == ("performance", "retrain")
    assert model.incident.window.labels >= 400


def test_late_alerts_within_one_window_of_labels_are_several() -> None:
    model, stream = live_model(rules=Rules(gather_seconds=1000), window=5000), Stream(17)
    ids = []
    for now in (5000.0, 10_000.0, 15_000.0):
        assert feed(model, stream, 150, 0.2) == []
        model.tick(now)
        assert model.incident is not None
        assert model.incident.window.index == 0
        ids.append(model.incident.id)
        model.mark_published(model.incident.id, now)
    assert len(set(ids)) == 3


def test_labels_of_one_class_are_not_enough() -> None:
    model, stream = live_model(), Stream(7)
    for _ in range(20):
        predictions, labels = stream.batch(50, 0.1)
        assert isinstance(labels.content, list)
        model.apply(
            [predictions, labels._replace(content=[t.__class__(t.id, 3, t.time, t.index) for t in labels.content])], 1
        )
    assert model.incident is None or model.incident.kind != "performance"


def test_a_loss_that_has_recovered_opens_no_incident() -> None:
    model, stream = live_model(), Stream(8)
    assert feed(model, stream, 60 // 50 * 50, 0.0) == []
    assert model.traffic.versions[VERSION].performance.alarmed is not None
    opened = feed(model, stream, 2000, 1.0)
    assert [incident.kind for incident in opened] == []


def test_regression_is_held_to_the_share_within_tolerance() -> None:
    model = ModelState("diabetes", Rules())
    held = PerformanceTarget(metric="within", value=0.9, tolerance=5.0, window=200)
    model.version_deployed(VERSION, "local", profile(), held, now=0.0)
    stream = Stream(9)
    opened = []
    for step in range(40):
        predictions, labels = stream.batch(50, 1.0)
        assert isinstance(labels.content, list)
        off = 4.9 if step < 20 else 5.1
        moved = [t.__class__(t.id, t.label + off, t.time, t.index) for t in labels.content]
        model.apply([predictions, labels._replace(content=moved)], float(stream.rows))
        if model.incident and not model.incident.published:
            opened.append((step, model.incident.kind, model.incident.action))
            model.mark_published(model.incident.id, float(stream.rows))
    [(step, kind, action)] = opened
    assert (kind, action) == ("performance", "retrain")
    assert 20 <= step < 30


def test_a_burst_of_missing_values_is_quality() -> None:
    model, stream = live_model(), Stream(10)
    for _ in range(10):
        predictions, _ = stream.batch(50, 0.95)
        assert isinstance(predictions.content, PredictionBatch)
        predictions.content.columns["x1"] = [None] * 50
        model.apply([predictions], float(stream.rows))
    assert model.incident is not None
    assert (model.incident.kind, model.incident.action, model.incident.columns) == ("quality", "alert", ("x1",))


def test_text_where_numbers_were_is_quality() -> None:
    model, stream = live_model(), Stream(11)
    for _ in range(10):
        predictions, _ = stream.batch(50, 0.95)
        assert isinstance(predictions.content, PredictionBatch)
        predictions.content.columns["x0"] = ["n/a"] * 50
        model.apply([predictions], float(stream.rows))
    assert model.incident is not None
    assert model.incident.columns == ("x0",)


def test_small_windows_stay_open_until_they_have_enough_rows() -> None:
    model, stream = live_model(), Stream(12)
    model.apply([stream.batch(20, 0.95)[0]], 20.0)
    model.tick(now=10_000.0)
    assert model.traffic.versions[VERSION].windows.index == 0
    model.apply([stream.batch(80, 0.95)[0]], 10_001.0)
    model.tick(now=20_000.0)
    assert model.traffic.versions[VERSION].windows.index == 1


def test_the_day_has_a_budget_of_retrainings() -> None:
    model, stream = live_model(rules=Rules(retrains_per_day=1)), Stream(13)
    [first] = feed(model, stream, 1000, 0.6)
    model.run_ended(first.run, float(stream.rows))
    again = feed(model, stream, 2500, 0.6)
    assert {(incident.kind, incident.action) for incident in again} == {("performance", "alert")}


def test_serving_errors_are_a_quality_alert_once() -> None:
    model = live_model()
    model.serving_errors(VERSION, 30, start=100.0, end=130.0, now=130.0)
    assert model.incident is not None
    assert model.incident.evidence == {"serving_errors": 30.0}
    first = model.incident
    model.serving_errors(VERSION, 30, start=130.0, end=160.0, now=160.0)
    assert model.incident == first


def test_unknown_labels_are_counted_as_unmatched_and_bounded() -> None:
    model, stream = live_model(rules=Rules(pending=100)), Stream(14)
    for _ in range(10):
        _, labels = stream.batch(50, 0.9)
        model.apply([labels], 1.0)
    assert model.traffic.unmatched.count == 500
    assert len(model.traffic.unmatched.dump()["keys"]) == 100


def test_memory_is_bounded_by_the_rules() -> None:
    model, stream = live_model(rules=Rules(pending=200)), Stream(15)
    feed(model, stream, 5000, 0.95)
    assert len(model.traffic.versions[VERSION].predictions._numbers) == 200
    assert model.traffic.versions[VERSION].performance.label_count == 5000
    for generation in range(2, 30):
        model.add_version(f"{generation}-0123abcd", profile(), target())
    assert len(model.traffic.versions) == 4
    assert VERSION in model.traffic.versions  # it is live


def test_state_goes_on_after_a_restart_as_if_nothing_had_happened() -> None:
    stream = Stream(16)
    messages: list[TrafficMessage] = [m for _ in range(30) for m in stream.batch(50, 0.8)]
    through, restarted = live_model(), live_model()
    for start in range(0, len(messages), 7):
        through.apply(messages[start : start + 7], 1.0)
        restarted.apply(messages[start : start + 7], 1.0)
        restarted = ModelState.load("digits", unpack(pack(restarted.dump())), Rules())
        restarted.apply(messages[: start + 7], 1.0)  # redelivered: nothing counts twice
    assert pack(through.dump()) == pack(restarted.dump())
    assert through.incident is not None
