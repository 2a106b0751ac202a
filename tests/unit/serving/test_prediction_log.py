import asyncio
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from contracts.events import Predictions
from contracts.features import Feature
from contracts.packaged_model import Manifest
from contracts.values import Value
from serving.bus import BusUnavailable
from serving.error_log import ErrorLog
from serving.metrics import Metrics
from serving.model import ModelOutput
from serving.prediction_log import MAX_EVENT_BYTES, LoggedRequest, PredictionLog, encode
from tests.unit.serving.serving_model import ROW, manifest
from tests.waiting import eventually

NAMES = tuple(ROW)
NATS_CONF = Path(__file__).resolve().parents[3] / "infra" / "nats" / "jetstream.conf"


class FakeBus:
    """Takes messages, or is unavailable."""

    def __init__(self) -> None:
        self.unavailable = False
        self.taken: list[tuple[str, bytes, dict[str, str]]] = []

    @property
    def connected(self) -> bool:
        return not self.unavailable

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        if self.unavailable:
            raise BusUnavailable("the bus is unavailable")
        self.taken.append((subject, body, headers))

    def rows(self) -> list[str]:
        return [id for _, body, _ in self.taken for id in json.loads(body)["id"]]


def answered(count: int, first: int = 0, value: float = 1.0) -> LoggedRequest:
    ids = [f"shop.7-0a1b2c3d.{number}" for number in range(first, first + count)]
    return LoggedRequest(ids, [ROW] * count, ModelOutput([value] * count, [[0.25, 0.75]] * count), 1.5)


def log(limit: int = 10**6, about: Manifest | None = None) -> tuple[PredictionLog, Metrics]:
    metrics = Metrics("shop", "7-0a1b2c3d")
    return PredictionLog(about or manifest(), metrics, max_bytes=limit, early_rows=1000), metrics


def dropped(metrics: Metrics) -> float:
    return (
        metrics.registry.get_sample_value(
            "bentobelt_log_dropped_rows_total", {"model": "shop", "version": "7-0a1b2c3d"}
        )
        or 0.0
    )


def test_the_encoding_is_the_contracts() -> None:
    event = Predictions.model_validate_json(encode(manifest(), NAMES, [answered(2), answered(1, 2)], 5.0))
    assert (event.model, event.version, event.time, len(event.id)) == ("shop", "7-0a1b2c3d", 5.0, 3)
    assert event.columns == {name: (value,) * 3 for name, value in ROW.items()}
    assert [type(event.columns[name][0]) for name in NAMES] == [type(value) for value in ROW.values()]
    assert (event.prediction, event.latency_ms) == ((1.0,) * 3, (1.5,) * 3)
    assert event.probabilities == ((0.25, 0.75),) * 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_valid_json(value: float) -> None:
    strange = LoggedRequest(["a"], [ROW], ModelOutput([value], [[value, 1.0]]), 1.0)
    event = Predictions.model_validate_json(encode(manifest(), NAMES, [strange], 5.0))
    assert (event.prediction, event.probabilities) == ((None,), None)


async def test_rows_arrive_once_in_order_with_ce_headers() -> None:
    bus, (written, _) = FakeBus(), log()
    for first in range(0, 6, 2):
        written.add(answered(2, first))
    await written.encode_waiting()
    await written.send(bus)  # type: ignore[arg-type]
    assert [id.rsplit(".")[-1] for id in bus.rows()] == list("012345")
    subject, _, headers = bus.taken[0]
    assert (subject, headers["ce-type"]) == ("predictions.shop", "dev.bentobelt.predictions.v1")
    assert (headers["ce-correlationid"], headers["ce-generation"]) == ("f" * 16, "7")
    assert written.waiting == 0


async def test_what_waited_for_the_bus_arrives_later() -> None:
    bus, (written, metrics) = FakeBus(), log()
    bus.unavailable = True
    written.add(answered(3))
    await written.encode_waiting()
    with pytest.raises(BusUnavailable):
        await written.send(bus)  # type: ignore[arg-type]
    assert written.waiting == 3
    bus.unavailable = False
    await written.send(bus)  # type: ignore[arg-type]
    assert (len(bus.rows()), dropped(metrics)) == (3, 0)


async def test_beyond_its_bound_the_oldest_go_and_are_counted() -> None:
    bus = FakeBus()
    size = len(encode(manifest(), NAMES, [answered(10)], 1e9))
    written, metrics = log(limit=3 * size)
    for first in range(0, 100, 10):
        written.add(answered(10, first))
        await written.encode_waiting()
    await written.send(bus)  # type: ignore[arg-type]
    assert len(bus.rows()) + dropped(metrics) == 100
    assert dropped(metrics) >= 70
    assert bus.rows()[-1].endswith(".99")


async def test_a_big_request_becomes_events_that_the_bus_takes() -> None:
    wide = manifest([Feature(name=f"x{number}", type="string") for number in range(10)])
    row: dict[str, Value] = {f"x{number}": "y" * 1000 for number in range(10)}
    bus, (written, _) = FakeBus(), log(10**9, wide)
    ids = [str(number) for number in range(3000)]
    written.add(LoggedRequest(ids, [row] * 3000, ModelOutput([1] * 3000), 1.0))
    await written.encode_waiting()
    await written.send(bus)  # type: ignore[arg-type]
    assert bus.rows() == ids
    assert max(len(body) for _, body, _ in bus.taken) < 1024 * 1024


async def test_what_cannot_be_encoded_is_counted_and_the_rest_arrives() -> None:
    bus, (written, metrics) = FakeBus(), log()
    task = asyncio.create_task(written.encode_forever(0.001))
    strange: list[Any] = [object(), 1, "\ud800", 2]
    written.add(LoggedRequest(["a", "b", "c", "d"], [ROW] * 4, ModelOutput(strange), 1.0))
    written.add(LoggedRequest(["e", "f"], [ROW] * 2, ModelOutput([3, 4], [[0.5, 0.5], [object(), 1.0]]), 1.0))  # type: ignore[list-item]
    await eventually(lambda: _all_counted(written, metrics, 3))
    written.add(answered(2, 7))
    await eventually(lambda: _all_encoded(written, 5))
    await written.send(bus)  # type: ignore[arg-type]
    task.cancel()
    assert [id.rsplit(".")[-1] for id in bus.rows()] == ["b", "d", "e", "7", "8"]


async def _all_counted(written: PredictionLog, metrics: Metrics, lost: int) -> bool:
    return dropped(metrics) == lost


async def _all_encoded(written: PredictionLog, rows: int) -> bool:
    return written.waiting == rows and not written._unencoded


def test_the_bus_takes_the_largest_event() -> None:
    found = re.search(r"^max_payload: (\d+)MB$", NATS_CONF.read_text(), re.MULTILINE)
    assert found
    assert MAX_EVENT_BYTES < 1024 * 1024 - 4096  # any NATS server takes it, with its headers
    assert int(found[1]) * 10**6 > MAX_EVENT_BYTES


async def test_equal_errors_become_one_line_with_a_count() -> None:
    bus, error_log = FakeBus(), ErrorLog(manifest())
    for _ in range(50):
        error_log.record("error", "predict.failed", ValueError("bad"))
    await error_log.send(bus)  # type: ignore[arg-type]
    ((subject, body, _),) = bus.taken
    line = json.loads(body)
    assert subject == "logs.serving.shop"
    assert (line["level"], line["event"], line["error"]) == ("error", "predict.failed", "ValueError: bad")
    assert (line["count"], line["version"], line["model"]) == (50, "7-0a1b2c3d", "shop")


async def test_errors_wait_for_the_bus_too() -> None:
    bus, error_log = FakeBus(), ErrorLog(manifest())
    bus.unavailable = True
    error_log.record("error", "predict.failed", ValueError("bad"))
    with pytest.raises(BusUnavailable):
        await error_log.send(bus)  # type: ignore[arg-type]
    bus.unavailable = False
    await error_log.send(bus)  # type: ignore[arg-type]
    assert len(bus.taken) == 1
