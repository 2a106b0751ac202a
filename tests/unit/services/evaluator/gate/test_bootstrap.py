"""Metrics against scikit-learn, and bootstrap intervals against the truth."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as reference

from services.evaluator.gate import bootstrap, metrics
from services.evaluator.gate.metrics import Measured

RATES = {
    "f1": lambda y, p: reference.f1_score(y, p, average="macro", zero_division=0),
    "precision": lambda y, p: reference.precision_score(y, p, average="macro", zero_division=0),
    "recall": lambda y, p: reference.recall_score(y, p, average="macro", zero_division=0),
    "balanced_accuracy": reference.balanced_accuracy_score,
}


def value(measured: Measured) -> float:
    return float(measured.value(np.bincount(measured.of) @ measured.kinds))


def guesses(rows: int, classes: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    return labels, np.where(rng.random(rows) < right, labels, rng.integers(classes, size=rows))


@pytest.mark.parametrize("metric", RATES)
def test_rates_are_scikit_learns(metric: str) -> None:
    labels, said = guesses(200, 4, 0.7)
    labels = np.where(labels == 3, 0, labels)  # a class that is only predicted
    if metric == "balanced_accuracy":
        with pytest.warns(UserWarning, match="y_pred contains classes"):
            expected = RATES[metric](labels, said)
    else:
        expected = RATES[metric](labels, said)
    assert value(metrics.confusion(labels, said, 5, metric)) == pytest.approx(expected)


def test_regression_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(50, 2, 100)
    said = labels + rng.normal(size=100)
    assert value(metrics.regression(labels, said, "r2")) == pytest.approx(reference.r2_score(labels, said))
    assert value(metrics.regression(labels, said, "mae")) == pytest.approx(reference.mean_absolute_error(labels, said))
    assert value(metrics.regression(labels, said, "rmse")) == pytest.approx(
        reference.root_mean_squared_error(labels, said)
    )


def test_log_loss_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels, chance = rng.integers(2, size=50), rng.uniform(0.05, 0.95, 50)
    likelihood = np.where(labels == 1, chance, 1 - chance)
    assert value(metrics.log_loss(likelihood)) == pytest.approx(reference.log_loss(labels, chance))


def test_the_interval_covers_about_as_often_as_it_says() -> None:
    truth, missed, runs = np.sqrt(2 / np.pi), 0, 150
    for seed in range(runs):
        error = np.random.default_rng(seed).normal(size=80)
        _, (low, high) = bootstrap.interval(
            metrics.regression(np.arange(80.0), np.arange(80.0) + error, "mae"), None, 0.025
        )
        missed += not low <= truth <= high
    assert missed / runs <= 0.1


def test_the_same_rows_give_the_same_interval() -> None:
    labels, said = guesses(150, 3, 0.8)
    measured = metrics.confusion(labels, said, 3, "f1")
    assert bootstrap.interval(measured, None, 0.01) == bootstrap.interval(measured, None, 0.01)


def test_a_smaller_tail_is_wider() -> None:
    measured = metrics.confusion(*guesses(150, 3, 0.8), 3, "f1")
    _, wide = bootstrap.interval(measured, None, 0.001)
    _, narrow = bootstrap.interval(measured, None, 0.05)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_far_tail_is_about_as_wide_as_a_normal_interval() -> None:
    tail = 5.8e-12  # scipy's BCa alone gives half this width: its resamples do not reach that far
    error = np.random.default_rng(0).normal(size=500)
    measured = metrics.regression(np.arange(500.0), np.arange(500.0) + error, "mae")
    _, (low, high) = bootstrap.interval(measured, None, tail)
    normal = 2 * special.ndtri(1 - tail) * np.abs(error).std() / np.sqrt(500)
    assert (high - low) == pytest.approx(normal, rel=0.15)


def test_no_step_where_resamples_stop_reaching() -> None:
    measured = metrics.confusion(*guesses(150, 3, 0.8), 3, "f1")
    _, near = bootstrap.interval(measured, None, bootstrap.FARTHEST_TAIL)
    _, beyond = bootstrap.interval(measured, None, bootstrap.FARTHEST_TAIL * 0.999)
    assert beyond == pytest.approx(near, abs=1e-3)
    assert beyond[0] < near[0] < near[1] < beyond[1]


def test_pairing_makes_a_difference_narrower() -> None:
    rng = np.random.default_rng(0)
    labels, error = rng.normal(size=200), rng.normal(size=200)
    one = metrics.regression(labels, labels + error, "mae")
    other = metrics.regression(labels, labels + error * 1.02, "mae")
    _, alone = bootstrap.interval(one, None, 0.025)
    _, paired = bootstrap.interval(one, other, 0.025)
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 5


def test_a_perfect_score_on_few_rows_is_no_certainty() -> None:
    labels = np.arange(30) % 3
    measured = metrics.confusion(labels, labels, 3, "f1")
    estimate, (low, high) = bootstrap.interval(measured, None, 0.025)
    assert estimate == 1.0
    assert high == pytest.approx(1.0)
    assert low < 0.95


def test_equal_predictions_differ_by_little() -> None:
    labels, said = guesses(2000, 3, 0.9)
    measured = metrics.confusion(labels, said, 3, "f1")
    estimate, (low, high) = bootstrap.interval(measured, measured, 0.025)
    assert estimate == 0
    assert -0.01 < low < 0 < high < 0.01
    straight = metrics.regression(labels.astype(float), labels + 0.5 * said, "r2")
    assert bootstrap.interval(straight, straight, 0.025) == (0.0, (0.0, 0.0))


def test_blocks_spread_as_rows_do() -> None:
    labels = np.random.default_rng(0).normal(size=20_000)
    measured = metrics.regression(labels, labels + np.random.default_rng(1).normal(size=20_000), "mae")
    _, (low, high) = bootstrap.interval(measured, None, 0.025)
    spread = np.abs(measured.kinds[:, 0]).std() / np.sqrt(20_000)
    assert (high - low) == pytest.approx(2 * 1.96 * spread, rel=0.1)


@pytest.mark.parametrize(("labels", "why"), [(np.zeros(50), "not defined"), (np.arange(5.0), "too few")])
def test_rows_that_tell_nothing(labels: np.ndarray, why: str) -> None:
    with pytest.raises(bootstrap.NoInterval, match=why):
        bootstrap.interval(metrics.regression(labels, labels + 1, "r2"), None, 0.025)
