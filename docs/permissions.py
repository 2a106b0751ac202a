"""Writes the table of permissions on the bus into README: `python docs/permissions.py` (a test keeps it current)."""

import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from contracts import subjects  # noqa: E402
from services.messaging import permissions  # noqa: E402

README = ROOT / "README.md"
START, END = "<!-- permissions: python docs/permissions.py -->\n", "<!-- /permissions -->\n"
ACCESS = {"r": "reads", "rw": "reads, writes"}


def code(names: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def records(service: str) -> str:
    """Return the records that a service may write."""
    written = (keys for keys in permissions.KEYS[service] if keys.access == "rw")
    return code(f"{keys.bucket}/{keys.pattern.replace('{target}', 'TARGET')}" for keys in written)


def rows() -> Iterable[str]:
    """Yield one row per user."""
    yield "| user | subscribes to | publishes | writes records | artifacts |"
    yield "|---|---|---|---|---|"
    for service in subjects.WORKERS:
        subscribed = list(subjects.LISTENS[service])
        subscribed += ["predictions.*", "feedback.*"] if service == "monitor" else permissions.HINTS.get(service, ())
        name = "deployer-TARGET" if service == permissions.DEPLOYER else service
        artifacts = ACCESS.get(permissions.ARTIFACTS.get(service, ""), "")
        yield f"| {name} | {code(subscribed)} | {code(subjects.EMITS[service])} | {records(service)} | {artifacts} |"
    yield f"| serving | | {code(subjects.EMITS[permissions.SERVING])} | | |"
    yield "| belt (people) | everything | every event | | reads, writes |"
    yield "| setup | | creates streams, buckets and consumers | | |"


def table() -> str:
    """Return the whole table."""
    return "".join(f"{row}\n" for row in rows())


def placed(readme: str) -> str:
    """Return README with the table between its two marks."""
    before, _, rest = readme.partition(START)
    return f"{before}{START}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(placed(README.read_text()))
