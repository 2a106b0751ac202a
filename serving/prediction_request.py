"""Request bodies, typed by the model's own features, and what is wrong with one.

Validation is pydantic's, straight from the bytes (17 µs for a row of 64 numbers); its errors are told again in
the caller's words: which row, which field, what it must be.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import core_schema
from typing_extensions import TypedDict

from contracts.features import Feature, FeatureType
from contracts.values import Value
from serving.errors import Refused

Row = dict[str, Value]

TOLD = 20
"""Wrong fields named in one answer."""
_typed_dict: Any = TypedDict  # made at run time, from names that only the model knows
_WORDS: Mapping[FeatureType, str] = {
    "number": "a finite number",
    "integer": "an integer",
    "boolean": "true or false",
    "string": "a string",
}


class _Whole:
    """An int64. 3.0 is one too: many JSON writers know only one kind of number."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        whole = core_schema.int_schema(strict=True, ge=-(2**63), le=2**63 - 1)
        float_of_whole = core_schema.chain_schema(
            [core_schema.float_schema(strict=True, gt=-(2.0**63), lt=2.0**63), core_schema.int_schema()]
        )
        return core_schema.union_schema([whole, float_of_whole], mode="left_to_right")

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: object, _handler: object) -> dict[str, str]:
        return {"type": "integer"}


_TYPES: Mapping[FeatureType, Any] = {
    "number": Annotated[float, Field(strict=True, allow_inf_nan=False)],
    "integer": Annotated[int, _Whole],
    "boolean": Annotated[bool, Field(strict=True)],
    "string": Annotated[str, Field(strict=True)],
}


def type_of(feature: Feature) -> Any:
    """The Python type that `feature` is validated as."""
    exact = _TYPES[feature.type]
    return exact | None if feature.nullable else exact


def words_of(feature: Feature) -> str:
    """What a value must be, for people."""
    return _WORDS[feature.type] + (" or null" if feature.nullable else "")


def body_of(many: str, fields: Mapping[str, Any]) -> TypeAdapter[dict[str, Any]]:
    """Validates `{many: [{field: value, …}, …]}`: at least one object, exactly these fields, no other keys."""
    item = _closed(many.removesuffix("s").title(), fields)  # its name in the OpenAPI document
    # One bad object is enough: naming each of 10 000 would cost more than answering them.
    listed = Annotated[list[item], Field(min_length=1, fail_fast=True)]  # type: ignore[valid-type]
    return TypeAdapter(_closed("Body", {many: listed}))


def _closed(name: str, fields: Mapping[str, Any]) -> Any:
    made = _typed_dict(name, dict(fields))
    made.__pydantic_config__ = ConfigDict(extra="forbid")
    return made


class PredictionRequests:
    """`{"rows": [{feature: value, …}, …]}` of one model.

    Args:
        features: columns of the model.
        max_rows: most rows in one request.
    """

    def __init__(self, features: Sequence[Feature], max_rows: int) -> None:
        self._body = body_of("rows", {feature.name: type_of(feature) for feature in features})
        self._max = max_rows
        self._words = {feature.name: words_of(feature) for feature in features}

    def parse(self, body: bytes) -> list[Row]:
        """The rows in a request's body.

        Raises:
            Refused: 400 not JSON; 413 too many rows; 422 naming row and field.
        """
        rows: list[Row] = read(self._body, body, "rows", self._words)
        if len(rows) > self._max:
            raise Refused(413, f"{len(rows)} rows; this model takes at most {self._max} in one request")
        return rows

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the body."""
        return self._body.json_schema()


def read(body_type: TypeAdapter[Any], body: bytes, many: Literal["rows", "labels"], words: Mapping[str, str]) -> Any:
    """The list under `many` in a body.

    Args:
        body_type: what the body must be.
        body: JSON.
        many: the key of the list.
        words: field name → what it must be.

    Raises:
        Refused: 400 not JSON, 422 anything else that is wrong.
    """
    try:
        return body_type.validate_json(body)[many]
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        if problems[0]["type"] == "json_invalid":
            raise Refused(400, f"the body is not JSON: {problems[0]['msg'].removeprefix('Invalid JSON: ')}") from None
        details = _details(problems, many, words)
        raise Refused(422, "; ".join(detail["message"] for detail in details[:3]), details) from None


def _details(problems: Sequence[Any], many: str, words: Mapping[str, str]) -> list[dict[str, Any]]:
    told = {}
    for problem in problems:
        # A location goes on into the branches of a union; a person needs the first three steps.
        place = tuple(problem["loc"])[:3]
        if place not in told:
            told[place] = _detail(place, problem, many, words)
        if len(told) == TOLD:
            break
    return list(told.values())


def _detail(place: tuple[Any, ...], problem: Any, many: str, words: Mapping[str, str]) -> dict[str, Any]:
    one = many.removesuffix("s")
    if len(place) < 2:
        return {"field": str(place[0]) if place else many, "message": _about_body(place, problem, many)}
    if len(place) == 2:
        return {one: place[1], "field": None, "message": f"{one} {place[1]} must be an object of fields"}
    index, field = place[1], str(place[2])
    return {one: index, "field": field, "message": f"{one} {index}: {_about_field(field, problem, words)}"}


def _about_field(field: str, problem: Any, words: Mapping[str, str]) -> str:
    if problem["type"] == "missing":
        return f"{field!r} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{field!r} is unknown; there are {_some(words)}"
    return f"{field!r} must be {words[field]}, not {_shown(problem['input'])}"


def _about_body(place: tuple[Any, ...], problem: Any, many: str) -> str:
    if not place:
        return f'the body must be an object {{"{many}": […]}}'
    if problem["type"] == "extra_forbidden":
        return f"{str(place[0])!r} is unknown; the body has only {many!r}"
    if problem["type"] == "missing":
        return f"{many!r} is missing"
    return f"{many!r} must be a list with at least one object"


def _some(names: Mapping[str, str]) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
