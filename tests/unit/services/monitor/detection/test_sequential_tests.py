"""The sequential tests, compared with scipy's distributions and with simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, ncx2

from services.monitor.detection.sequential_tests import (
    change_point,
    culprits,
    drift_p_values,
    e_detector,
    e_values,
    noncentral_chi2_sf,
    shiryaev_roberts,
)


@given(st.floats(0.01, 3000), st.integers(1, 80), st.floats(0.01, 2000))
def test_the_tail_is_that_of_scipy_stats(statistic: float, df: int, nc: float) -> None:
    assert noncentral_chi2_sf(statistic, df, nc) == pytest.approx(ncx2.sf(statistic, df, nc), rel=1e-6, abs=1e-150)


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


def test_a_column_with_one_bin_or_no_rows_is_no_evidence() -> None:
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
def test_the_detector_does_not_depend_on_how_labels_come_in_batches(errors: list[bool], cut: int) -> None:
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
