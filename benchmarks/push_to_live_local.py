"""Push to live on the embedded default, against the plain script, both warm, in pairs.

    python -m benchmarks.push_to_live_local [--json] [--rounds 5]

Ours: from starting `belt push` until the new version answers through the gateway. The script's: train.py,
`bentoml build`, `bentoml serve` until its first answer. Same data, same estimator, same machine, taking turns.
Keys: warm_ratio (median of the pairs' ratios), ours_s, script_s, stages_s (medians per stage), raw.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import plain_script, pushes


def measure(rounds: int) -> dict[str, Any]:
    """All figures."""
    row = pushes.first_row()
    with tempfile.TemporaryDirectory(prefix="belt-bench-") as folder, pushes.up(Path(folder) / "home") as belt:
        plain = Path(folder) / "plain"
        plain_script.write(plain, pushes.DATA)
        belt.push(row)  # the first round of each pays for caches
        plain_script.run(plain, row)
        pairs = [(belt.push(row), plain_script.run(plain, row)) for _ in range(rounds)]
        per_run = asyncio.run(belt.stages())
    return _figures(pairs, per_run)


def _figures(
    pairs: list[tuple[tuple[float, str], dict[str, float]]], per_run: dict[str, dict[str, float]]
) -> dict[str, Any]:
    ours = [seconds for (seconds, _), _ in pairs]
    script = [sum(steps.values()) for _, steps in pairs]
    ratios = [our / their for our, their in zip(ours, script, strict=True)]
    own_stages = [per_run[run] for (_, run), _ in pairs]
    return {
        "warm_ratio": round(statistics.median(ratios), 3),
        "ours_s": round(statistics.median(ours), 2),
        "script_s": round(statistics.median(script), 2),
        "stages_s": pushes.medians(own_stages),
        "steps_s": pushes.medians([steps for _, steps in pairs]),
        "raw": {"ours_s": ours, "script_s": script, "ratios": ratios, "stages_s": own_stages},
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"push to live {figures['ours_s']} s, script {figures['script_s']} s: ratio {figures['warm_ratio']}")
    print(f"ours:   {figures['stages_s']}")
    print(f"script: {figures['steps_s']}")


if __name__ == "__main__":
    main()
