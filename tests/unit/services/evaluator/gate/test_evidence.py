"""Parts of an approval: probe rows as JSON, a performance target, predictions in the profile's bins."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from contracts.features import Feature
from contracts.model_spec import Monitor
from contracts.profiles import ColumnProfile
from services.evaluator.gate import evidence
from services.evaluator.gate.scored_rows import ModelPredictions

FEATURES = (
    Feature(name="x", type="number", nullable=True),
    Feature(name="n", type="integer", nullable=True),
    Feature(name="flag", type="boolean"),
    Feature(name="word", type="string", nullable=True),
    Feature(name="whole", type="number"),
)
MONITOR = Monitor(window=100, max_loss=0.1, cooldown=60)


def table(rows: int = 50) -> pd.DataFrame:
    frame = pd.DataFrame({
        "x": np.random.default_rng(0).normal(size=rows) / 3, "n": np.arange(rows, dtype=float),
        "flag": [True, False] * (rows // 2), "word": "é", "whole": np.arange(rows) / 7,
    })  # fmt: skip
    frame.loc[4, ["x", "n"]] = np.nan
    frame.loc[9, "word"] = None
    frame.loc[11, "whole"] = np.nan  # a gap where training saw none: /predict refuses it
    frame.loc[12, "x"] = np.inf
    return frame


def test_probe_rows_are_plain_json_of_full_precision() -> None:
    frame = table()
    probe = evidence.probe(frame, FEATURES, ModelPredictions(list(range(50))))
    assert len(probe.rows) == 5
    assert probe.rows[0]["x"] is None
    assert probe.rows[1]["word"] is None
    sent = json.loads(probe.model_dump_json())
    for row, place in zip(sent["rows"][2:], sent["predictions"][2:], strict=True):
        assert row["x"] == frame["x"][place]
        assert row["whole"] == frame["whole"][place]
        assert type(row["n"]) is int
        assert type(row["flag"]) is bool


def test_probe_leaves_out_what_predict_refuses() -> None:
    rows = evidence.probe_rows(table(), FEATURES)
    assert not {11, 12} & set(rows)
    assert evidence.probe_rows(table().iloc[11:13], FEATURES) == []
    assert evidence.probe_rows(table().iloc[:2], FEATURES) == [0, 1]


def test_the_target_of_a_classifier_is_its_accuracy() -> None:
    target = evidence.performance_target(
        "classification", MONITOR, ["a", "b", "a", "b"], ModelPredictions(["a", "b", "b", "b"])
    )
    assert (target.metric, target.value, target.tolerance) == ("accuracy", 0.75, None)
    assert (target.window, target.max_loss, target.cooldown) == (100, 0.1, 60)


def test_the_target_of_a_regression_is_a_share_within_its_ninth_decile() -> None:
    labels = [float(row) for row in range(1, 11)]
    target = evidence.performance_target("regression", MONITOR, labels, ModelPredictions([0.0] * 10))
    assert (target.metric, target.value) == ("within", 0.9 + 0.1 * (target.tolerance == 10))
    assert target.tolerance in (9, 10)


@pytest.mark.parametrize("predicted", [[math.nan] * 3, []])
def test_the_target_without_rows_is_zero(predicted: list[float]) -> None:
    labels = [1.0] * len(predicted)
    assert evidence.performance_target("regression", MONITOR, labels, ModelPredictions(predicted)).value == 0
    assert evidence.performance_target("classification", MONITOR, labels, ModelPredictions(predicted)).value == 0


def test_predictions_are_counted_into_the_bins_there_are() -> None:
    binned = ColumnProfile(name="y", edges=(0.0, 1.0), counts=(9, 9, 9), missing=4)
    assert evidence.recount(binned, [-1.0, 0.0, 0.5, 2.0, math.nan]).counts == (2, 1, 1)
    assert evidence.recount(binned, [math.nan]).missing == 1
    named = ColumnProfile(name="y", categories=("1", "2"), counts=(9, 9), other=3)
    counted = evidence.recount(named, [1, 2, 2, 7])
    assert (counted.counts, counted.other) == ((1, 2), 1)
