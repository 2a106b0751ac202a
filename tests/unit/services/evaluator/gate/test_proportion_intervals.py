"""The exact intervals: known values, order, symmetry, and coverage counted over every table there can be."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from services.evaluator.gate.proportion_intervals import difference, share

TAILS = st.sampled_from([0.025, 0.0125, 0.005])


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (3, 20), (350, 360), (0, 1)])
def test_share_is_scipys_exact_interval(hits: int, rows: int) -> None:
    known = binomtest(hits, rows).proportion_ci(0.95, method="exact")
    assert share(hits, rows, 0.025) == pytest.approx((known.low, known.high), abs=1e-9)


@pytest.mark.parametrize("truth", [0.02, 0.5, 0.93])
def test_share_covers(truth: float) -> None:
    hits = np.arange(41)
    ends = np.array([share(int(count), 40, 0.025) for count in hits])
    chance = binom.pmf(hits, 40, truth)
    assert chance[ends[:, 0] > truth].sum() <= 0.025
    assert chance[ends[:, 1] < truth].sum() <= 0.025


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    rows = draw(st.integers(1, 400))
    gained = draw(st.integers(0, rows))
    return gained, draw(st.integers(0, rows - gained)), rows


@settings(max_examples=60, deadline=None)
@given(tables(), TAILS)
def test_a_difference_holds_its_estimate_and_is_symmetric(table: tuple[int, int, int], tail: float) -> None:
    gained, lost, rows = table
    low, high = difference(gained, lost, rows, tail)
    assert -1 <= low <= (gained - lost) / rows <= high <= 1
    assert difference(lost, gained, rows, tail) == (-high, -low)


@settings(max_examples=40, deadline=None)
@given(tables())
def test_more_gained_is_never_worse(table: tuple[int, int, int]) -> None:
    gained, lost, rows = table
    if gained + lost < rows:
        less, more = difference(gained, lost, rows, 0.025), difference(gained + 1, lost, rows, 0.025)
        slack = 0.002  # the ends are searched to a thousandth of the distance, on the wide side
        assert more[0] >= less[0] - slack
        assert more[1] >= less[1] - slack


@pytest.mark.parametrize("rows", [8, 25])
def test_a_difference_covers_whatever_the_truth(rows: int) -> None:
    tail = 0.025
    cells = [(b, c) for b in range(rows + 1) for c in range(rows + 1 - b)]
    ends = np.array([difference(b, c, rows, tail) for b, c in cells])
    counts = np.array([(b, c, rows - b - c) for b, c in cells])
    for gains in (0.001, 0.01, 0.1, 0.3, 0.5):
        for losses in (0.001, 0.02, 0.2, 0.45):
            chance = multinomial.pmf(counts, rows, [gains, losses, 1 - gains - losses])
            truth = gains - losses
            assert chance[ends[:, 0] > truth].sum() <= tail
            assert chance[ends[:, 1] < truth].sum() <= tail


def test_two_models_that_never_differ_are_as_close_as_the_rows_can_tell() -> None:
    low, high = difference(0, 0, 360, 0.025)
    assert low == pytest.approx(-(1 - 0.025 ** (1 / 360)), rel=0.02)
    assert high == -low


def test_a_difference_is_narrower_than_two_separate_shares_and_wider_than_the_approximation() -> None:
    low, high = difference(9, 14, 1000, 0.025)
    apart = (
        share(9, 1000, 0.0125)[0] - share(14, 1000, 0.0125)[1],
        share(9, 1000, 0.0125)[1] - share(14, 1000, 0.0125)[0],
    )
    wald = 1.96 * math.sqrt(23 - 25 / 1000) / 1000
    assert apart[0] < low < -0.005 - wald
    assert -0.005 + wald < high < apart[1]


def test_many_rows_narrow_a_difference() -> None:
    widths = [np.diff(difference(rows // 50, rows // 50, rows, 0.025))[0] for rows in (100, 1000, 10_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.01
