"""The model project that a user writes: `model.yaml` beside the code it names.

`parse` turns the text of a model.yaml into a `ModelSpec`, or says what is wrong and on which line.
"""

import re
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_serializer, model_validator

from contracts.events import ModelName, Task
from contracts.serve_spec import Section, Serve, Variables

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "log_loss"),
    "regression": ("r2", "mae", "rmse"),
}
"""Metrics a gate may name. f1, precision and recall are macro averages over the classes."""

_CONDITION = re.compile(
    r"^\s*(?P<metric>[a-z][a-z0-9_]*)\s*(?P<champion>-\s*champion)?\s*(?P<operator><=|>=|<|>)\s*"
    r"(?P<number>[-+]?\d+(\.\d*)?([eE][-+]?\d+)?)\s*(\+/-\s*(?P<tolerance>\d+(\.\d*)?([eE][-+]?\d+)?))?\s*$"
)
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


_SHAPES = {
    "name": "lower-case letters, digits and - between them, at most 40, e.g. my-churn",
    "estimator": "write module:function, e.g. pipeline:build",
    "serve.base_image": "write the name of an image, e.g. python:3.11-slim or ghcr.io/acme/base:1",
    "serve.system_packages": "write names of Debian packages, e.g. libgomp1 or libgomp1=12.2.0-14",
}
"""Help for keys that a regular expression checks: the expression itself would not help a person."""


class BadSpec(Exception):
    """A model.yaml that cannot be used; the text names the key, the line and a correct value."""


class Condition(BaseModel):
    """`metric [- champion] <|<=|>|>= number [+/- tolerance]`; the tolerance only plans the size of the test set."""

    model_config = ConfigDict(frozen=True)

    text: str
    metric: str
    champion: bool = Field(description="compare with the live champion: the left side is candidate minus champion")
    operator: Literal["<", "<=", ">", ">="]
    number: float
    tolerance: float | None = None

    @model_serializer
    def _as_text(self) -> str:
        # Conditions are read from their text, so that is what a spec is written with.
        return self.text


def condition(text: object) -> Condition:
    """Read one condition.

    Raises:
        ValueError: it does not follow the grammar.
    """
    if isinstance(text, Condition):
        return text
    found = _CONDITION.match(text) if isinstance(text, str) else None
    if not found:
        raise ValueError(
            f"{text!r} is not a condition; write e.g. 'accuracy > 0.90 +/- 0.03' or 'accuracy - champion > -0.05'"
        )
    tolerance = found["tolerance"]
    return Condition.model_validate(
        {
            **found.groupdict(),
            "text": str(text).strip(),
            "champion": bool(found["champion"]),
            "tolerance": float(tolerance) if tolerance else None,
        }
    )


def duration(value: object) -> object:
    """Return a duration in seconds: `10m` → 600.0. Plain numbers are seconds.

    Raises:
        ValueError: neither a number nor a number with ms, s, m, h or d.
    """
    if not isinstance(value, str):
        return value
    found = _DURATION.match(value)
    if not found:
        raise ValueError(f"{value!r} is not a duration; write e.g. 30s, 10m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


class Gate(Section):
    """Conditions that a candidate must meet before it may go live."""

    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="probability that all intervals hold; shared over the conditions"
    )
    conditions: tuple[Annotated[Condition, BeforeValidator(condition)], ...] = Field(
        default=(), description="default: accuracy - champion > -0.05 (regression: r2)"
    )


class Monitor(Section):
    """Settings for the monitoring of the live version."""

    window: int = Field(default=500, ge=50, description="labelled rows in a window")
    max_loss: float = Field(
        default=0.05, gt=0, lt=1, description="how far the promised metric may fall before it is an incident"
    )
    cooldown: Annotated[float, BeforeValidator(duration)] = Field(
        default=600.0, ge=0, description="seconds (or 10m) before another incident may open"
    )


class Split(Section):
    """Settings for the choice of the held-out rows."""

    test: float = Field(default=0.2, gt=0, lt=1, description="share of the rows that is held out")
    by: str | None = Field(
        default=None,
        description="a column to order by: the newest rows are held out; default: a hash of the row's content",
    )


class ModelSpec(Section):
    """The whole of `model.yaml`."""

    name: ModelName
    task: Task = "classification"
    target: str = Field(min_length=1, description="the column to predict")
    estimator: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$",
        description="module:function returning an unfitted scikit-learn estimator; left out: a sensible default",
    )
    requirements: tuple[str, ...] = Field(default=(), description="extra packages, for training and for the image")
    dataset: str | None = Field(
        default=None, description="default when an event names none; a relative path is inside the project"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="random seed of the training")
    split: Split = Split()
    gate: Gate = Gate()
    monitor: Monitor = Monitor()
    serve: Serve = Serve()
    env: Variables = Field(
        default_factory=dict, description="environment variables of tests, training, evaluation and server; no secrets"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_gate(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        gate = data.get("gate") or {}
        if isinstance(gate, dict) and not gate.get("conditions"):
            metric = "r2" if data.get("task") == "regression" else "accuracy"
            data = {**data, "gate": {**gate, "conditions": [f"{metric} - champion > -0.05"]}}
        return data

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        for wanted in self.gate.conditions:
            if wanted.metric not in METRICS[self.task]:
                known = ", ".join(METRICS[self.task])
                raise ValueError(
                    f"gate condition {wanted.text!r}: no metric {wanted.metric!r} for {self.task}; there are {known}"
                )
        return self


def parse(text: str) -> ModelSpec:
    """The spec in the text of a model.yaml.

    Raises:
        BadSpec: not YAML, an unknown key, a wrong value; with the line where it stands.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2026-13-45 looks like a date
        raise BadSpec(f"model.yaml is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise BadSpec("model.yaml is empty; it needs at least name and target")
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        raise BadSpec("; ".join(_problem(dict(problem), root) for problem in error.errors())) from None


def _problem(problem: dict[str, Any], root: yaml.Node | None) -> str:
    # pydantic puts "[key]" behind the name of a variable that is wrong itself.
    location = tuple(step for step in problem["loc"] if step != "[key]")
    key = ".".join(map(str, location))
    where = f"model.yaml line {_line(root, location, problem)}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}"
    if problem["type"] == "missing":
        return f"model.yaml: {key!r} is missing"
    shape = _SHAPES.get(".".join(step for step in location if isinstance(step, str)))
    if problem["type"] == "string_pattern_mismatch" and shape:
        return f"{where}: {key}: {problem['input']!r} does not fit: {shape}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {key + ': ' if key else ''}{message}"


def _line(node: yaml.Node | None, location: tuple[int | str, ...], problem: dict[str, Any]) -> int:
    if not location and (named := re.search(r"gate condition '([^']*)'", str(problem["msg"]))):
        return _line_of_text(node, named[1])
    line = node.start_mark.line + 1 if node else 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _line_of_text(node: yaml.Node | None, text: str) -> int:
    if isinstance(node, yaml.ScalarNode):
        return node.start_mark.line + 1 if node.value.strip() == text else 0
    children = []
    if isinstance(node, yaml.MappingNode):
        children = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    return max((_line_of_text(child, text) for child in children), default=1)
