"""Predictions that one core of the monitor processes per second: `python -m benchmarks.monitor [--json]`.

The whole path of a row is measured: JSON of the bus decoded and checked, put into bins, remembered for its label;
every tenth row is labelled. `rows_per_s` is per second of CPU time, so that a busy machine does not matter.
"""

import argparse
import json
import resource
import time

import numpy as np

from contracts.profiles import ColumnProfile, Profile
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.domain import ModelState
from services.monitor.ingest.payloads import parse_feedback, parse_predictions
from services.monitor.state.model_traffic import TrafficMessage

VERSION = "1-0123abcd"
FEATURES, ROWS, MESSAGES, ROUNDS = 20, 500, 20, 25


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable, with the raw samples")
    result = measure()
    if parser.parse_args().json:
        print(json.dumps(result))
        return
    print(f"{result['rows_per_s']:,.0f} rows/s per core at {FEATURES} features (budget 100 000)")
    print(f"memory {result['memory_start_mb']:.1f} MB after 1 round, {result['memory_end_mb']:.1f} MB after {ROUNDS}")


def measure() -> dict[str, object]:
    """Rounds of traffic through one state; median of the rounds."""
    rng, model, sequence = np.random.default_rng(0), _live_model(), 0
    samples, memory = [], []
    for number in range(ROUNDS):
        bodies = [_bodies(rng, number * MESSAGES + m) for m in range(MESSAGES)]
        started = time.process_time()
        for predictions, labels in bodies:
            traffic = [
                TrafficMessage(sequence + 1, parse_predictions(predictions)),
                TrafficMessage(sequence + 2, parse_feedback(labels)),
            ]
            model.apply(traffic, now=float(sequence))
            sequence += 2
        samples.append(ROWS * MESSAGES / (time.process_time() - started))
        memory.append(_memory())
    return {
        "rows_per_s": float(np.median(samples)),
        "memory_start_mb": memory[len(memory) // 2],
        "memory_end_mb": memory[-1],
        "memory_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": ROWS * MESSAGES * ROUNDS,
        "raw": {"rows_per_s": samples, "memory_mb": memory},
    }


def _live_model() -> ModelState:
    edges, counts = tuple(np.linspace(-1.2, 1.2, 9).tolist()), (200,) * 10
    columns = tuple(ColumnProfile(name=f"x{i}", edges=edges, counts=counts) for i in range(FEATURES))
    classes = ColumnProfile(name="label", categories=tuple("0123456789"), counts=counts)
    model = ModelState("bench", Rules(run_windows=1e300, run_labels=1e300))
    profile = Profile(rows=2000, columns=columns, prediction=classes)
    model.version_deployed(VERSION, "local", profile, PerformanceTarget(metric="accuracy", value=0.95), now=0.0)
    return model


def _bodies(rng: np.random.Generator, number: int) -> tuple[bytes, bytes]:
    ids = [f"bench.{VERSION}.a1b2c3d4e5f6.{number * ROWS + row}" for row in range(ROWS)]
    truth = rng.integers(0, 10, ROWS).tolist()
    predictions = {
        "model": "bench",
        "version": VERSION,
        "time": float(number),
        "id": ids,
        "columns": {f"x{i}": rng.normal(size=ROWS).tolist() for i in range(FEATURES)},
        "prediction": truth,
        "latency_ms": [1.25] * ROWS,
    }
    labels = [
        {"id": id, "label": label, "time": float(number)} for id, label in zip(ids[::10], truth[::10], strict=True)
    ]
    return json.dumps(predictions).encode(), json.dumps({"model": "bench", "labels": labels}).encode()


def _memory() -> float:
    with open("/proc/self/smaps_rollup") as rollup:
        return next(int(line.split()[1]) / 1024 for line in rollup if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
