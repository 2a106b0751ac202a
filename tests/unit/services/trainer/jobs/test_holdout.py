"""Held-out rows are the same ones whenever the same rows come."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.features import RECENT
from services.trainer.jobs.data_schema import Rejected
from services.trainer.jobs.holdout import held_out

CONTENT = ["x", "kind", "y"]


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    kinds = pd.Series(random.choice(["a", "b"], count), dtype="str")
    return pd.DataFrame({"x": random.normal(size=count), "kind": kinds, "y": random.integers(0, 3, count)})


def kept(frame: pd.DataFrame, mask: np.ndarray) -> set[tuple[object, ...]]:
    return set(frame.loc[mask, CONTENT].itertuples(index=False, name=None))


def test_the_share_is_about_what_was_asked() -> None:
    assert 0.17 < held_out(rows(5000), CONTENT, 0.2).mean() < 0.23


@given(st.permutations(range(60)), st.integers(1, 59))
def test_neither_position_nor_company_matters(order: list[int], count: int) -> None:
    frame = rows(60)
    all_out = kept(frame, held_out(frame, CONTENT, 0.5))
    part = frame.iloc[order[:count]]
    try:
        out = kept(part, held_out(part, CONTENT, 0.5))
    except Rejected:  # one side of so few rows may be empty
        return
    assert out == all_out & kept(part, np.ones(count, dtype=bool))


def test_duplicates_stay_on_one_side() -> None:
    frame = pd.concat([rows(200), rows(200)], ignore_index=True)
    mask = held_out(frame, CONTENT, 0.3)
    assert (mask[:200] == mask[200:]).all()


def test_how_numbers_are_stored_and_columns_are_ordered_does_not_matter() -> None:
    frame = rows(300)
    other = frame[["y", "x", "kind"]].astype({"y": "float64", "kind": object})
    assert (held_out(frame, CONTENT, 0.2) == held_out(other, ["y", "kind", "x"], 0.2)).all()


def test_the_mark_of_recent_rows_does_not_matter() -> None:
    frame = rows(300)
    marked = frame.assign(**{RECENT: [False] * 200 + [True] * 100})
    mask = held_out(marked, CONTENT, 0.2)
    assert (mask == held_out(frame, CONTENT, 0.2)).all()
    assert mask[200:].any()


def test_by_time_the_newest_are_held_out_of_base_and_recent_rows_alike() -> None:
    frame = rows(100).assign(when=range(100), **{RECENT: [False] * 80 + [True] * 20})
    mask = held_out(frame, CONTENT, 0.25, by="when")
    assert np.flatnonzero(mask).tolist() == [*range(60, 80), *range(95, 100)]


def test_rows_of_one_moment_stay_together_and_dates_are_understood() -> None:
    days = ["2024-01-09"] * 50 + ["2024-01-10"] * 50
    for test in (0.2, 0.5):
        mask = held_out(rows(100).assign(when=days), CONTENT, test, by="when")
        assert np.flatnonzero(mask).tolist() == list(range(50, 100))


def test_recent_rows_without_a_time_are_split_by_content() -> None:
    frame = rows(200).assign(when=[*range(100)] + [None] * 100, **{RECENT: [False] * 100 + [True] * 100})
    mask = held_out(frame, CONTENT, 0.2, by="when")
    assert 5 < mask[100:].sum() < 40


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (["31.12.2024"] * 30, "split.by needs numbers or ISO 8601 dates, found '31.12.2024' in row 1"),
        ([*range(29), None], "split.by orders by it, but row 30 has no value"),
        ([7] * 30, "of 30 none is a held-out row"),
    ],
)
def test_times_that_order_nothing(when: Sequence[Any], said: str) -> None:
    with pytest.raises(Rejected, match=said):
        held_out(rows(30).assign(when=pd.Series(when)), CONTENT, 0.2, by="when")
