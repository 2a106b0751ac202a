from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from contracts.features import Feature
from contracts.values import Value
from serving.model import Model, WrongPredictionCount, native_labels
from tests.unit.serving.serving_model import manifest

FEATURES = [Feature(name=name, type="number") for name in "ab"]
ROWS: list[dict[str, Value]] = [{"a": float(n), "b": float(-n)} for n in range(20)]
LABELS = np.array([n % 3 for n in range(20)])


@pytest.mark.parametrize(
    "estimator",
    [
        ExtraTreesClassifier(10, random_state=0),
        make_pipeline(StandardScaler(), ExtraTreesClassifier(10, random_state=0)),
        SVC(),
    ],
    ids=["forest", "pipeline", "svc"],
)
def test_answers_are_what_the_estimator_predicts(estimator: Any) -> None:
    model = Model(manifest(FEATURES), estimator)
    frame = model._frames.build(ROWS)
    estimator.fit(frame, LABELS)
    answers = Model(manifest(FEATURES), estimator).predict(ROWS)
    assert answers.prediction == estimator.predict(frame).tolist()
    assert (answers.probabilities is not None) == hasattr(estimator, "predict_proba")
    if answers.probabilities is not None:
        assert answers.probabilities == estimator.predict_proba(frame).tolist()


class Broken:
    def predict(self, frame: Any) -> Any:
        return np.zeros(1)


def test_one_prediction_per_row_or_an_error() -> None:
    with pytest.raises(WrongPredictionCount, match="1 predictions for 20 rows"):
        Model(manifest(FEATURES), Broken()).predict(ROWS)


@pytest.mark.parametrize(
    ("predicted", "type", "expected"),
    [
        (np.array([3.0]), "integer", 3),
        (np.array([1]), "boolean", True),
        (np.array([2]), "number", 2.0),
        (np.array(["a"]), "string", "a"),
        (np.array([np.str_("a")], dtype=object), "string", "a"),
        (np.array([[3]]), "integer", 3),
    ],
)
def test_predictions_have_the_labels_own_type(predicted: Any, type: Any, expected: Any) -> None:
    (value,) = native_labels(predicted, Feature(name="y", type=type), "classification")
    assert value == expected
    assert value.__class__ is expected.__class__


def test_a_regression_on_whole_numbers_may_answer_between_them() -> None:
    assert native_labels(np.array([2.5]), Feature(name="y", type="integer"), "regression") == [2.5]
