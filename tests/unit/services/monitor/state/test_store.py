"""The format in which states are saved: earlier releases have written states that are still on the bus."""

from pathlib import Path

import pytest

from services.monitor.detection.rules import Rules
from services.monitor.domain import ModelState
from services.monitor.state.store import UnreadableState, pack, unpack

SAVED = Path(__file__).with_name("state_of_an_earlier_release.bin")
"""A live version with 150 labelled rows, a published incident, an unmatched label and an invalid one."""


def test_a_state_of_an_earlier_release_is_read_and_written_in_the_same_format() -> None:
    saved = unpack(SAVED.read_bytes())
    model = ModelState.load("digits", saved, Rules())
    version = model.traffic.versions["1-0123abcd"]
    assert (model.live, model.traffic.position) == ({"local": "1-0123abcd"}, 7)
    assert (version.windows.rows, version.performance.label_count, version.performance.errors) == (150, 150, 150)
    assert (model.traffic.unmatched.count, model.traffic.invalid_labels) == (1, 1)
    assert model.incident is not None
    assert (model.incident.kind, model.incident.published) == ("performance", True)
    assert unpack(pack(model.dump())).keys() == saved.keys()
    assert pack(model.dump()) == SAVED.read_bytes()


def test_a_damaged_state_is_an_error() -> None:
    for data in (b"", b"nonsense", pack({"a": 1})[:-3]):
        with pytest.raises(UnreadableState):
            unpack(data)
