"""The counts that drift is measured against."""

import numpy as np
import pandas as pd

from contracts.features import Feature
from services.trainer.jobs.metrics import score
from services.trainer.jobs.profiling import profile


def test_numbers_fall_into_at_most_ten_bins_of_about_equal_size() -> None:
    found = profile(Feature(name="x", type="number"), pd.Series([*np.random.default_rng(0).normal(size=1000), None]))
    assert len(found.counts) == 10
    assert found.edges is not None
    assert len(found.edges) == 9
    assert set(found.counts) == {100}
    assert found.missing == 1


def test_bins_follow_the_contract_with_ties() -> None:
    values = [0.0] * 90 + [1.0] * 5 + [2.0] * 5
    found = profile(Feature(name="x", type="integer"), pd.Series(values))
    expected = np.bincount(np.searchsorted(found.edges or (), values, side="left"), minlength=len(found.counts))
    assert list(found.counts) == expected.tolist()
    assert sum(found.counts) == 100


def test_text_keeps_the_fifty_most_frequent() -> None:
    values = [str(i) for i in range(60)] + ["often"] * 9
    found = profile(Feature(name="x", type="string"), pd.Series([*values, None]))
    assert found.categories is not None
    assert (found.categories[0], found.counts[0], len(found.categories)) == ("often", 9, 50)
    assert (found.other, found.missing) == (11, 1)


def test_true_and_false_are_categories() -> None:
    assert profile(Feature(name="x", type="boolean"), pd.Series([True, False, True])).categories == ("True", "False")


def test_a_label_that_training_never_saw_counts_as_improbable() -> None:
    truth, predicted = np.array(["a", "z"], dtype=object), np.array(["a", "a"], dtype=object)
    found = score("classification", truth, predicted, [[0.9, 0.1], [0.5, 0.5]], ["a", "b"])
    assert found["accuracy"] == 0.5
    assert found["log_loss"] > 10


def test_the_metrics_are_those_a_gate_may_name() -> None:
    from contracts.model_spec import METRICS

    labels = np.array([0, 1, 1])
    assert tuple(score("classification", labels, labels, np.eye(2)[labels], [0, 1])) == METRICS["classification"]
    assert tuple(score("regression", labels, labels)) == METRICS["regression"]
