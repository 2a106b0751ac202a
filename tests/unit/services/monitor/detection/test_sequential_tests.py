"""The statistics against scipy, and the arrival of traffic in any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, ncx2

from contracts.profiles import ColumnProfile, Profile
from services.monitor.detection.rules import Rules
from services.monitor.detection.sequential_tests import (
    change_point,
    culprits,
    drift_p_values,
    e_detector,
    e_values,
    noncentral_chi2_sf,
    shiryaev_roberts,
)
from services.monitor.domain import ModelState
from services.monitor.ingest.payloads import (
    FeedbackLabel,
    MalformedPayload,
    PredictionBatch,
    parse_feedback,
    parse_predictions,
)
from services.monitor.state.histograms import Bins
from services.monitor.state.label_join import (
    ReceivedLabel,
    RecentPredictions,
    Ring,
    UnmatchedLabels,
    key_of,
    signature,
    signatures,
)
from services.monitor.state.model_traffic import TrafficMessage
from tests.unit.services.monitor.monitored import VERSION, profile, promise


@given(st.floats(0.01, 3000), st.integers(1, 80), st.floats(0.01, 2000))
def test_the_tail_is_scipys(statistic: float, df: int, nc: float) -> None:
    assert noncentral_chi2_sf(statistic, df, nc) == pytest.approx(ncx2.sf(statistic, df, nc), rel=1e-4, abs=1e-9)


@given(st.floats(0.01, 500), st.integers(1, 80))
def test_without_tolerance_it_is_chi2(statistic: float, df: int) -> None:
    assert noncentral_chi2_sf(statistic, df, 0.0) == pytest.approx(chi2.sf(statistic, df), rel=1e-6, abs=1e-12)


def test_p_values_are_large_without_drift_and_small_with_it() -> None:
    rng = np.random.default_rng(0)
    reference = np.stack([np.bincount(rng.integers(0, 10, 5000), minlength=10) for _ in range(20)])
    window = np.stack([np.bincount(rng.integers(0, 10, 500), minlength=10) for _ in range(20)])
    window[7] = np.bincount(rng.integers(0, 5, 500), minlength=10)
    p = drift_p_values(reference, window, 0.2)
    assert culprits(p) == [7]
    assert np.delete(p, 7).min() > 0.5


def test_a_column_with_one_bin_or_no_rows_says_nothing() -> None:
    reference = np.array([[100, 0], [50, 50]])
    assert drift_p_values(reference, np.array([[70, 0], [0, 0]]), 0.2).tolist() == [1.0, 1.0]


def test_e_values_have_mean_one_under_the_null() -> None:
    p = (np.arange(1_000_000) + 0.5) / 1_000_000
    assert e_values(p).mean() <= 1.0
    assert np.isfinite(e_values(np.array([0.0, 1.0, 1e-300]))).all()


def test_false_alarms_of_drift_are_rare() -> None:
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(20):
        reference = np.stack([np.bincount(rng.integers(0, 10, 2000), minlength=10) for _ in range(10)])
        evidence = 0.0
        for _ in range(40):
            window = np.stack([np.bincount(rng.integers(0, 10, 500), minlength=10) for _ in range(10)])
            evidence = shiryaev_roberts(evidence, float(e_values(drift_p_values(reference, window, 0.1)).mean()))
            alarms += evidence >= 1000
    assert alarms == 0


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 199))
def test_the_detector_does_not_care_how_labels_are_cut_into_batches(errors: list[bool], cut: int) -> None:
    values = np.array(errors, dtype=np.float64)
    whole, peak = e_detector(np.zeros(7), values, 0.1)
    first, one = e_detector(np.zeros(7), values[:cut], 0.1)
    both, two = e_detector(first, values[cut:], 0.1)
    np.testing.assert_allclose(whole, both, rtol=1e-6)
    assert peak == pytest.approx(max(one, two), rel=1e-6)


def test_the_change_is_placed_near_where_it_was() -> None:
    rng = np.random.default_rng(2)
    errors = np.concatenate([rng.random(1000) < 0.05, rng.random(300) < 0.4]).astype(float)
    assert 970 <= change_point(errors, 0.1) <= 1040


# -- joins ---------------------------------------------------------------------------------------------------


def traffic(rows: int) -> list[PredictionBatch | list[FeedbackLabel]]:
    """One message per prediction and per label; every third prediction is wrong, two labels belong to nobody."""
    messages: list[PredictionBatch | list[FeedbackLabel]] = []
    for row in range(rows):
        id = f"digits.{VERSION}.{row}"
        messages.append(PredictionBatch(VERSION, float(row), [id], {f"x{i}": [0.1] for i in range(3)}, [row % 3]))
        messages.append([FeedbackLabel(id, 0 if row % 3 else row % 3, float(row), 0)])
    return [*messages, [FeedbackLabel("digits.9-00000000.x", 1, 0.0, 0)], [FeedbackLabel("nonsense", 1, 0.0, 0)]]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_state_is_the_same_whatever_the_order_and_the_repeats(data: st.DataObject) -> None:
    messages = traffic(12)
    order = data.draw(st.permutations(range(len(messages))))
    repeats = data.draw(st.lists(st.sampled_from(order), max_size=10))
    watch = ModelState("digits", Rules())
    watch.deployed(VERSION, "local", profile(), promise(0.5, window=8), now=0.0)
    watch.apply([TrafficMessage(n + 1, messages[place]) for n, place in enumerate([*order, *repeats])], now=1.0)
    one = watch.traffic.versions[VERSION]
    assert (one.windows.rows, one.judged.total, one.judged.errors) == (12, 12, 8)
    assert watch.traffic.early.unmatched == 2
    assert one.pending.coverage() == 1.0


def test_a_label_goes_to_the_version_that_predicted() -> None:
    watch = ModelState("digits", Rules())
    for version in (VERSION, "2-0123abcd"):
        watch.deployed(version, "local", profile(), promise(), now=0.0)
    first = PredictionBatch(VERSION, 1.0, ["a"], {}, [1])
    second = PredictionBatch("2-0123abcd", 2.0, ["b"], {}, [1])
    watch.apply(
        [TrafficMessage(1, first), TrafficMessage(2, second), TrafficMessage(3, [FeedbackLabel("a", 2, 3.0, 0)])],
        now=3.0,
    )
    assert [watch.traffic.versions[v].judged.total for v in (VERSION, "2-0123abcd")] == [1, 0]
    assert watch.traffic.versions[VERSION].judged.errors == 1


def test_a_label_without_a_value_is_invalid() -> None:
    watch = ModelState("digits", Rules())
    watch.apply([TrafficMessage(1, [FeedbackLabel("a", None, 1.0, 0)])], now=1.0)
    assert (watch.traffic.invalid, watch.traffic.early.unmatched) == (1, 0)


@pytest.mark.parametrize("pair", [(3, 3.0), ("3", 3), (True, 1), ("spam", "spam")])
def test_equal_answers_have_equal_signatures(pair: tuple[object, object]) -> None:
    assert signature(pair[0]) == signature(pair[1])
    assert signatures([pair[0]])[0] == signature(pair[1])


def test_different_answers_differ() -> None:
    assert len({signature(value) for value in ("spam", "ham", "nan", "inf", "", 0, 1, 2.5, -1)}) == 9


def test_a_ring_keeps_the_last_rows_and_loads_into_another_size() -> None:
    ring = Ring((("x", "<i8"),), 5)
    for value in range(12):
        ring.append(x=[value])
    assert (ring.column("x").tolist(), ring.column("x", since=10).tolist(), ring.total) == (
        [7, 8, 9, 10, 11],
        [10, 11],
        12,
    )
    for size in (3, 5, 50):
        other = Ring((("x", "<i8"),), size)
        other.load(ring.dump())
        assert (other.column("x", since=12 - min(size, 5)).tolist(), other.total) == (
            list(range(12))[-min(size, 5) :],
            12,
        )


def test_a_ring_takes_room_for_what_is_in_it() -> None:
    ring = Ring((("x", "<i8"),), 50_000)
    for value in range(200):
        ring.append(x=[value])
    assert ring._columns["x"].nbytes <= 2 * 200 * 8
    assert ring.column("x", since=198).tolist() == [198, 199]


def test_pending_forgets_the_oldest_and_finds_the_rest() -> None:
    pending = RecentPredictions(10)
    keys = [key_of(str(n)) for n in range(25)]
    for start in (0, 7, 12):
        part = keys[start : start + 13]
        fresh = pending.unseen(part)
        part = [part[i] for i in fresh]
        zeros = np.zeros(len(part))
        pending.add(part, zeros, zeros.astype("<i8"), zeros.astype("<i4"))
    assert [pending.find(key) is not None for key in keys] == [False] * 15 + [True] * 10


def test_early_labels_are_bounded_and_taken_once() -> None:
    early = UnmatchedLabels(3)
    for n in range(5):
        early.add(n, ReceivedLabel(float(n), n, 0, 0.0))
    assert (early.unmatched, early.dropped) == (5, 2)
    assert [key for key, _ in early.take([4, 4, 0, 3])] == [4, 3]
    other = UnmatchedLabels(3)
    other.load(early.dump())
    assert (other.unmatched, other.take([2])) == (3, [(2, ReceivedLabel(2.0, 2, 0, 0.0))])


# -- bins and messages ---------------------------------------------------------------------------------------


def test_bins_count_what_the_profile_counted() -> None:
    columns = (
        ColumnProfile(name="n", edges=(1.0, 2.0), counts=(1, 1, 1), missing=1),
        ColumnProfile(name="c", categories=("a", "True"), counts=(2, 1), other=1),
    )
    bins = Bins(Profile(rows=4, columns=columns, prediction=ColumnProfile(name="p", categories=("3.0",), counts=(4,))))
    counted = bins.count({"n": [1.0, 2, None, "text"], "c": ["a", True, None, "new"]}, [3, 3.0, "3", 4])
    # Cells: missing, odd, bins or categories, other.
    assert counted.tolist() == [[1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 3, 1, 0]]
    assert bins.reference.tolist() == [[1, 0, 1, 1, 1], [0, 0, 2, 1, 1], [0, 0, 4, 0, 0]]
    assert bins.count({"c": ["a", "new"]}, [3, 3]).tolist()[:2] == [[2, 0, 0, 0, 0], [0, 0, 1, 0, 1]]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"\xff", b"{}", b'{"version":"x","time":1,"id":[],"columns":{},"prediction":[]}',
        b'{"version":"1-0123abcd","time":"1","id":[],"columns":{},"prediction":[]}',
        b'{"version":"1-0123abcd","time":1,"id":[1],"columns":{},"prediction":[1]}',
        b'{"version":"1-0123abcd","time":1,"id":["a"],"columns":{"x":[]},"prediction":[1]}',
        b'{"version":"1-0123abcd","time":1,"id":["a"],"columns":{"x":1},"prediction":[1]}',
    ],
)  # fmt: skip
def test_malformed_predictions_are_named(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_predictions(body)


@pytest.mark.parametrize(
    "body", [b'{"labels":1}', b'{"labels":[1]}', b'{"labels":[{"label":1}]}', b'{"labels":[{"id":"a","label":[]}]}']
)
def test_malformed_feedback_is_named(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_feedback(body)
