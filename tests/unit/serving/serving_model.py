"""A manifest and estimators for the tests of serving."""

from collections.abc import Sequence
from typing import Any

from contracts.features import Feature
from contracts.packaged_model import Manifest
from contracts.values import Value
from contracts.verdicts import PerformanceTarget

AGE = Feature(name="age", type="number")
VISITS = Feature(name="visits", type="integer")
MEMBER = Feature(name="member", type="boolean")
CITY = Feature(name="city (home)", type="string", nullable=True)
ROW: dict[str, Value] = {"age": 1.5, "visits": 3, "member": True, "city (home)": None}


def manifest(features: Sequence[Feature] = (AGE, VISITS, MEMBER, CITY), **changes: Any) -> Manifest:
    about: dict[str, Any] = {
        "model": "shop", "version": "7-0a1b2c3d", "run": "f" * 16, "task": "classification", "features": features,
        "target": Feature(name="digit", type="integer"), "classes": (0, 1), "max_rows": 5,
        "promise": PerformanceTarget(metric="accuracy", value=0.9), "trained": 0.0, "dataset": "a" * 64,
    }  # fmt: skip
    return Manifest(**about | changes)
