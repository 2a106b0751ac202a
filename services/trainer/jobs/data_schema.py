"""The schema that later data must fit. Workers and child processes import it."""

from collections.abc import Iterable

from contracts.features import Feature
from contracts.values import Frozen


class Column(Feature):
    """A feature as the first training saw it."""

    missing: float = 0.0
    """Share of the rows without a value."""
    categories: tuple[str, ...] | None = None
    """All values of a text column, when there are few."""


class Schema(Frozen):
    """Columns of the data at the first training of a project: later data must fit them."""

    columns: tuple[Column, ...]
    """The features, in the order the model is given them."""
    target: Feature

    @classmethod
    def of(cls, features: Iterable[Feature], target: Feature) -> "Schema":
        """Return the schema that a trained version implies; it knows no categories."""
        columns = tuple(
            Column(**feature.model_dump(), missing=1.0 if feature.nullable else 0.0) for feature in features
        )
        return cls(columns=columns, target=target)


class Rejected(Exception):
    """The data cannot be trained on. Each violation names the thing, what was expected and what was found."""

    def __init__(self, *violations: str) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations
