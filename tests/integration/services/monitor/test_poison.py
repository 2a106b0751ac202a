"""Messages made to stop the monitor, on a real bus: they are put aside, and what comes after them counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.events import Feedback, Predictions
from services.messaging.connection import Bus
from services.monitor.ingest.consumer import TrafficStream
from tests.integration.services.monitor.test_app import counted, go_live, publish, started
from tests.unit.services.monitor.monitored import VERSION, Stream, messages

__all__ = ["started"]

HUGE = "1" * 400


def poison() -> list[tuple[str, str]]:
    head = f'"version":"{VERSION}","id":["a"],"time":1'
    return [
        ("feedback", f'{{"labels":[{{"id":"a","label":{HUGE}}}]}}'),
        ("feedback", f'{{"labels":[{{"id":"a","label":1,"time":{HUGE}}}]}}'),
        ("feedback", '{"labels":[{"id":"a","label":1,"time":NaN}]}'),
        ("predictions", f'{{{head},"columns":{{"x0":[[1,2]]}},"prediction":[1]}}'),
        ("predictions", f'{{{head},"columns":{{"x0":[{HUGE}]}},"prediction":[1]}}'),
        ("predictions", f'{{{head},"columns":{{}},"prediction":[1e999]}}'),
        ("predictions", f'{{"version":"{VERSION}\\n","id":["a"],"time":1,"columns":{{}},"prediction":[1]}}'),
    ]


async def test_a_poisoned_message_is_put_aside_and_the_next_label_counts(
    bus: Bus,
    home: Path,
    started: Any,
) -> None:
    await go_live(bus, home)
    monitor = started()
    answers, labels = messages(Stream(4), 50, 0.95)
    assert isinstance(answers, Predictions)
    assert isinstance(labels, Feedback)
    await publish(bus, answers)
    for subject, body in poison():
        await bus.js.publish(f"{subject}.digits", body.encode())
    state = await counted(bus, await publish(bus, labels))
    assert state.traffic.versions[VERSION].performance.label_count == 50
    assert (await bus.js.stream_info("DLQ")).state.messages == len(poison())
    assert monitor.poll() is None


async def test_a_dead_letter_is_sent_whatever_the_message_says_and_however_large_it_is(bus: Bus) -> None:
    largest = bus.nc.max_payload
    await bus.js.publish("predictions.digits", b"x" * largest)
    await bus.js.publish("predictions.digits", b"y", headers={"Big": "z" * 65_000})
    await bus.js.publish("feedback.digits", b"{", headers={"Nats-Expected-Stream": "PREDICTIONS", "ce-id": "1"})
    await publish(bus, *messages(Stream(5), 3, 0.95))
    reader = TrafficStream(bus, "digits")
    await reader.open(0)
    found: list[int] = []
    while len(found) < 5:
        found += [message.sequence for message in await reader.fetch(5)]
    assert found == [1, 2, 3, 4, 5]
    letters = [await bus.js.get_msg("DLQ", seq=number) for number in (1, 2, 3)]
    assert [(letter.headers or {})["Dead-Sequence"] for letter in letters] == ["1", "2", "3"]
    assert (letters[0].headers or {})["Dead-Bytes"] == str(largest)
    assert (letters[2].headers or {})["ce-id"] == "1"


@pytest.mark.parametrize("odd", ['{"label":[1]}', '{"labels":[{"id":"a","label":1,"time":null}]}'])
async def test_rows_that_are_no_longer_readable_are_left_out(bus: Bus, odd: str) -> None:
    import numpy as np

    from services.monitor.state.label_join import RowPositions

    await publish(bus, *messages(Stream(7), 3, 0.95))
    await bus.js.publish("feedback.digits", json.dumps(odd).encode())
    wanted = RowPositions(np.array([1, 1]), np.array([0, 1]), np.array([2, 3]), np.array([0, 0]))
    columns = await TrafficStream(bus, "digits").read_rows(wanted)
    assert len(columns["label"]) == 1
