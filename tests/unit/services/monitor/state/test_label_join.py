"""The join of labels with predictions: encoded values, stored predictions, labels that come first."""

import numpy as np
import pytest

from services.monitor.state.label_join import (
    ReceivedLabel,
    RecentPredictions,
    RingBuffer,
    UnmatchedLabels,
    encode_value,
    encode_values,
    key_of,
)


@pytest.mark.parametrize("pair", [(3, 3.0), ("3", 3), (True, 1), ("spam", "spam")])
def test_equal_values_have_equal_codes(pair: tuple[object, object]) -> None:
    assert encode_value(pair[0]) == encode_value(pair[1])
    assert encode_values([pair[0]])[0] == encode_value(pair[1])


def test_different_values_have_different_codes() -> None:
    assert len({encode_value(value) for value in ("spam", "ham", "nan", "inf", "", 0, 1, 2.5, -1)}) == 9


def test_a_ring_buffer_keeps_the_last_rows_and_loads_into_another_size() -> None:
    ring = RingBuffer((("x", "<i8"),), 5)
    for value in range(12):
        ring.append(x=[value])
    assert (ring.column("x").tolist(), ring.column("x", since=10).tolist(), ring.total) == (
        [7, 8, 9, 10, 11],
        [10, 11],
        12,
    )
    for size in (3, 5, 50):
        other = RingBuffer((("x", "<i8"),), size)
        other.load(ring.dump())
        assert (other.column("x", since=12 - min(size, 5)).tolist(), other.total) == (
            list(range(12))[-min(size, 5) :],
            12,
        )


def test_a_ring_buffer_takes_memory_for_its_rows_only() -> None:
    ring = RingBuffer((("x", "<i8"),), 50_000)
    for value in range(200):
        ring.append(x=[value])
    assert ring._columns["x"].nbytes <= 2 * 200 * 8
    assert ring.column("x", since=198).tolist() == [198, 199]


def test_recent_predictions_drop_the_oldest_and_find_the_rest() -> None:
    predictions = RecentPredictions(10)
    keys = [key_of(str(n)) for n in range(25)]
    for start in (0, 7, 12):
        part = keys[start : start + 13]
        fresh = predictions.unseen(part)
        part = [part[i] for i in fresh]
        zeros = np.zeros(len(part))
        predictions.add(part, zeros, zeros.astype("<i8"), zeros.astype("<i4"))
    assert [predictions.find(key) is not None for key in keys] == [False] * 15 + [True] * 10


def test_unmatched_labels_are_limited_and_returned_once() -> None:
    unmatched = UnmatchedLabels(3)
    for n in range(5):
        unmatched.add(n, ReceivedLabel(float(n), n, 0, 0.0))
    assert (unmatched.count, unmatched.dropped) == (5, 2)
    assert [key for key, _ in unmatched.pop([4, 4, 0, 3])] == [4, 3]
    other = UnmatchedLabels(3)
    other.load(unmatched.dump())
    assert (other.count, other.pop([2])) == (3, [(2, ReceivedLabel(2.0, 2, 0, 0.0))])
