"""Verdicts on predictions, degenerate ones among them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model_spec import Condition, Gate, condition
from contracts.values import Value
from contracts.verdicts import Verdict
from services.evaluator.gate.judge import Champion, decide, judge
from services.evaluator.gate.proportion_intervals import share
from services.evaluator.gate.scored_rows import ModelPredictions

NAN = math.nan


def verdict(
    labels: Sequence[Value], said: Sequence[Value], *conditions: str, task: Any = "classification", **more: Any
) -> Verdict:
    gate = Gate(confidence=0.95, conditions=tuple(map(condition, conditions)))
    return judge(task, gate, labels, ModelPredictions(said), more.get("champion"), more.get("recent"))


def read(text: str) -> Condition:
    return condition(text)


@pytest.mark.parametrize(("text", "interval", "outcome"), [
    ("r2 > 0.5", (0.51, 0.6), "pass"), ("r2 > 0.5", (0.5, 0.6), "unknown"), ("r2 >= 0.5", (0.5, 0.6), "pass"),
    ("r2 > 0.5", (0.4, 0.5), "fail"), ("r2 >= 0.5", (0.4, 0.5), "unknown"), ("r2 >= 0.5", (0.4, 0.49), "fail"),
    ("mae < 3", (1.0, 2.9), "pass"), ("mae < 3", (1.0, 3.0), "unknown"), ("mae <= 3", (1.0, 3.0), "pass"),
    ("mae < 3", (3.0, 4.0), "fail"), ("mae <= 3", (3.0, 4.0), "unknown"), ("mae <= 3", (3.1, 4.0), "fail"),
])  # fmt: skip
def test_a_condition_looks_at_the_whole_interval(text: str, interval: tuple[float, float], outcome: str) -> None:
    assert decide(read(text), *interval) == outcome


@given(st.integers(0, 200), st.floats(0, 1))
def test_more_right_answers_are_never_worse(right: int, number: float) -> None:
    order = ["fail", "unknown", "pass"]
    outcomes = [
        decide(read(f"accuracy > {number:.6f}"), *share(min(count, 200), 200, 0.025)) for count in (right, right + 1)
    ]
    assert order.index(outcomes[0]) <= order.index(outcomes[1])


def test_the_tolerance_never_moves_the_bound() -> None:
    labels, said = [1] * 100, [1] * 95 + [0] * 5
    with_it, without = (verdict(labels, said, f"accuracy > 0.9{more}") for more in (" +/- 0.04", ""))
    assert with_it.outcome == without.outcome
    assert with_it.conditions[0].low == without.conditions[0].low


def test_confidence_is_shared_over_conditions_and_groups() -> None:
    labels, said = [1] * 200, [1] * 180 + [0] * 20
    recent = [row % 2 == 0 for row in range(200)]
    result = verdict(labels, said, "accuracy > 0.5", "accuracy > 0.6", recent=recent)
    assert [(c.group, c.rows) for c in result.conditions] == [("base", 100)] * 2 + [("recent", 100)] * 2
    expected = share(90, 100, 0.05 / 8)
    assert all((c.low, c.high) == pytest.approx(expected) for c in result.conditions)


def test_no_rows_at_all_never_pass() -> None:
    assert verdict([], [], "accuracy > 0.5", recent=[]).outcome == "unknown"


def test_one_failing_group_fails() -> None:
    labels, said = [1] * 200, [1] * 100 + [0] * 100
    result = verdict(labels, said, "accuracy > 0.8", recent=[row >= 100 for row in range(200)])
    assert [c.outcome for c in result.conditions] == ["pass", "fail"]
    assert result.outcome == "fail"


def test_a_group_without_rows_is_left_out() -> None:
    result = verdict([1] * 50, [1] * 50, "accuracy > 0.5", recent=[False] * 50)
    assert [c.group for c in result.conditions] == ["base"]


def test_without_a_live_version_its_conditions_pass() -> None:
    result = verdict([1] * 50, [1] * 50, "accuracy - champion > 0.5")
    assert result.outcome == "pass"
    assert (result.champion, result.conditions[0].estimate) == (None, None)
    assert "no live version" in result.conditions[0].why


def test_a_champion_that_did_not_answer_leaves_only_its_own_conditions_unknown() -> None:
    champion = Champion("1-00000000", None, "it needs column 'x'")
    result = verdict([1] * 50, [1] * 50, "accuracy > 0.5", "accuracy - champion > -0.5", champion=champion)
    assert [c.outcome for c in result.conditions] == ["pass", "unknown"]
    assert result.conditions[1].why == "it needs column 'x'"
    assert result.champion == "1-00000000"


@pytest.mark.parametrize(("gained", "lost", "outcome"), [(30, 2, "pass"), (3, 2, "unknown"), (0, 40, "fail")])
def test_a_candidate_is_held_to_the_champion_row_by_row(gained: int, lost: int, outcome: str) -> None:
    labels = [1] * 300
    champion = Champion("1-00000000", ModelPredictions([0] * gained + [1] * (300 - gained)))
    result = verdict(labels, [1] * (300 - lost) + [0] * lost, "accuracy - champion > 0", champion=champion)
    assert result.outcome == outcome
    assert result.conditions[0].estimate == pytest.approx((gained - lost) / 300)


def test_an_equal_retrain_passes_the_default_gates() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=88).tolist()
    said = [label + 0.5 for label in labels]
    champion = Champion("1-00000000", ModelPredictions(said))
    assert verdict(labels, said, "r2 - champion > -0.05", task="regression", champion=champion).outcome == "pass"
    words = ["yes", "no"] * 44
    champion = Champion("1-00000000", ModelPredictions(words))
    assert verdict(words, words, "accuracy - champion > -0.05", champion=champion).outcome == "pass"


@pytest.mark.parametrize(("labels", "said", "text", "task", "outcome", "why"), [
    ([1], [1], "accuracy > 0.5", "classification", "unknown", "between"),
    ([1, 0], [1, 0], "f1 > 0.5", "classification", "unknown", "too few"),
    ([1] * 40, [1] * 40, "balanced_accuracy > 0.5", "classification", "pass", "between"),
    ([1] * 40, [1] * 40, "log_loss < 0.5", "classification", "unknown", "no probabilities"),
    ([2.0] * 40, [2.0] * 40, "r2 > 0.5", "regression", "unknown", "not defined"),
    ([2.0] * 40, [NAN] + [2.0] * 39, "mae < 9", "regression", "fail", "not finite"),
    ([2.0] * 40, [math.inf] + [2.0] * 39, "mae < 9", "regression", "fail", "not finite"),
    (["a"] * 40, [NAN] * 40, "accuracy > 0.5", "classification", "fail", "accuracy is 0"),
    (["a", "b"] * 20, [None] * 40, "f1 > 0.5", "classification", "fail", "f1 is 0"),
    ([], [], "accuracy > 0.5", "classification", "unknown", "no held-out rows"),
])  # fmt: skip
def test_degenerate_rows_get_a_reason(
    labels: list[Value], said: list[Value], text: str, task: str, outcome: str, why: str
) -> None:
    result = verdict(labels, said, text, task=task)
    assert result.outcome == outcome
    assert all(why in c.why for c in result.conditions)


def test_a_champion_that_says_nan_is_unknown() -> None:
    champion = Champion("1-00000000", ModelPredictions([NAN] * 40))
    labels = [float(row) for row in range(40)]
    result = verdict(labels, labels, "mae - champion < 1", task="regression", champion=champion)
    assert result.outcome == "unknown"
    assert "not finite" in result.conditions[0].why


def test_log_loss_uses_the_models_own_order_of_classes() -> None:
    gate = Gate(conditions=(condition("log_loss < 0.5"),))
    labels = ["a", "b"] * 30
    chances = np.array([[0.1, 0.9], [0.9, 0.1]] * 30) + np.linspace(0, 0.05, 60)[:, None] * [-1, 1]
    answers = ModelPredictions(labels, ("b", "a"), chances)
    assert judge("classification", gate, labels, answers, None).outcome == "pass"
    assert judge("classification", gate, labels, ModelPredictions(labels, ("a", "b"), chances), None).outcome == "fail"
