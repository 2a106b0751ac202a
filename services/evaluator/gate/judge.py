"""Judges held-out predictions by the conditions of a gate.

Confidence is shared over conditions × groups by Bonferroni's inequality: with k results each interval misses the
truth with probability at most (1 - confidence) / k, half of it per end, so that all intervals hold at once with the
gate's confidence. A wrong pass and a wrong fail of one condition lie on opposite ends; for a given truth only one of
them can happen, so either kind has at most half the remaining probability.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contracts.events import Task
from contracts.model_spec import Condition, Gate
from contracts.values import Value
from contracts.verdicts import ConditionResult, Verdict
from services.evaluator.gate import bootstrap, proportion_intervals
from services.evaluator.gate.scored_rows import ModelPredictions, Unmeasurable, correct, measured

Group = Literal["all", "base", "recent"]
Outcome = Literal["pass", "fail", "unknown"]
_BEYOND = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Champion:
    """The live version: its predictions, or the reason why there are none."""

    version: str
    predictions: ModelPredictions | None
    reason: str = ""

    def select(self, rows: Sequence[int]) -> "Champion":
        """Return the champion with the predictions of some of the rows."""
        return Champion(self.version, self.predictions and self.predictions.select(rows), self.reason)


def judge(
    task: Task,
    gate: Gate,
    labels: Sequence[Value],
    candidate: ModelPredictions,
    champion: Champion | None,
    recent: Sequence[bool] | None = None,
) -> Verdict:
    """Return the verdict on `candidate`.

    Args:
        task: task of the models.
        gate: conditions and confidence.
        labels: the true labels, one per held-out row.
        candidate: the new model's predictions of these rows.
        champion: the live version; None if there is none: conditions that name it then pass.
        recent: marks the rows of a retraining dataset that come from live traffic.
    """
    parts = groups(len(labels), recent)
    tail = (1 - gate.confidence) / (2 * len(gate.conditions) * len(parts))
    results = []
    for group, rows in parts.items():
        truth, own = [labels[row] for row in rows], candidate.select(rows)
        live = champion and champion.select(rows)
        results += [_judge_one(task, wanted, group, truth, own, live, tail) for wanted in gate.conditions]
    outcomes = {result.outcome for result in results}
    worst: Outcome = "fail" if "fail" in outcomes else "unknown" if "unknown" in outcomes else "pass"
    return Verdict(
        outcome=worst,
        confidence=gate.confidence,
        conditions=tuple(results),
        champion=champion.version if champion else None,
    )


def groups(rows: int, recent: Sequence[bool] | None) -> dict[Group, list[int]]:
    """Return the rows that are judged together; a group without rows is left out."""
    if not recent:
        return {"all": list(range(rows))}
    parts: dict[Group, list[int]] = {
        "base": [row for row in range(rows) if not recent[row]],
        "recent": [row for row in range(rows) if recent[row]],
    }
    return {group: members for group, members in parts.items() if members}


def decide(wanted: Condition, low: float, high: float) -> Outcome:
    """Return pass when the whole interval lies beyond the number, fail when none of it does, else unknown."""
    beyond = _BEYOND[wanted.operator]
    inside = [beyond(end, wanted.number) for end in (low, high)]
    return "pass" if all(inside) else "unknown" if any(inside) else "fail"


def _judge_one(
    task: Task,
    wanted: Condition,
    group: Group,
    labels: Sequence[Value],
    candidate: ModelPredictions,
    champion: Champion | None,
    tail: float,
) -> ConditionResult:
    def result(outcome: Outcome, why: str, estimate: float | None = None, ends: Any = (None, None)) -> ConditionResult:
        return ConditionResult(
            condition=wanted.text, group=group, estimate=estimate, low=ends[0], high=ends[1],
            rows=len(labels), outcome=outcome, why=why,
        )  # fmt: skip

    if wanted.champion and champion is None:
        return result("pass", "there is no live version to compare with")
    if wanted.champion and champion and champion.predictions is None:
        return result("unknown", champion.reason)
    compared = champion.predictions if wanted.champion and champion else None
    if task == "regression" and not all(map(_finite, candidate.predictions)):
        return result("fail", "some of its predictions are not finite numbers")
    try:
        estimate, ends = _interval(task, wanted.metric, labels, candidate, compared, tail)
    except (Unmeasurable, bootstrap.NoInterval) as problem:
        return result("unknown", f"{wanted.metric} cannot be judged: {problem}")
    outcome = decide(wanted, *ends)
    return result(outcome, _sentence(wanted, outcome, estimate, ends), estimate, ends)


def _interval(
    task: Task,
    metric: str,
    labels: Sequence[Value],
    candidate: ModelPredictions,
    champion: ModelPredictions | None,
    tail: float,
) -> tuple[float, proportion_intervals.Interval]:
    if not labels:
        raise Unmeasurable("there are no held-out rows")
    if metric == "accuracy":
        return _accuracy(labels, candidate, champion, tail)
    other = champion.predictions if champion else ()
    classes = list(dict.fromkeys((*labels, *candidate.predictions, *other)))
    compared = measured(task, metric, labels, champion, classes) if champion else None
    return bootstrap.interval(measured(task, metric, labels, candidate, classes), compared, tail)


def _accuracy(
    labels: Sequence[Value], candidate: ModelPredictions, champion: ModelPredictions | None, tail: float
) -> tuple[float, proportion_intervals.Interval]:
    rows, right = len(labels), correct(labels, candidate)
    if champion is None:
        count = int(right.sum())
        return count / rows, proportion_intervals.share(count, rows, tail)
    other = correct(labels, champion)
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    return (gained - lost) / rows, proportion_intervals.difference(gained, lost, rows, tail)


def _finite(prediction: Value) -> bool:
    return isinstance(prediction, int | float) and math.isfinite(prediction)


def _sentence(wanted: Condition, outcome: Outcome, estimate: float, ends: proportion_intervals.Interval) -> str:
    what = f"{wanted.metric}{' minus the champion’s' if wanted.champion else ''} is {estimate:.4g}"
    where = {
        "pass": "all of which is",
        "fail": "none of which is",
        "unknown": "only a part of which is",
    }[outcome]
    return f"{what}, by these rows between {ends[0]:.4g} and {ends[1]:.4g}, {where} {wanted.operator} {wanted.number:g}"
