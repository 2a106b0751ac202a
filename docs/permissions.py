"""Writes README's table of who may do what on the bus: `python docs/permissions.py` (a test holds it current)."""

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


def code(words: Iterable[str]) -> str:
    """Words as code, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)


def records(service: str) -> str:
    """The records that a service writes."""
    written = (keys for keys in permissions.KEYS[service] if keys.access == "rw")
    return code(f"{keys.bucket}/{keys.pattern.replace('{target}', 'TARGET')}" for keys in written)


def rows() -> Iterable[str]:
    """One row per user."""
    yield "| user | listens to | says | writes records | artifacts |"
    yield "|---|---|---|---|---|"
    for service in subjects.WORKERS:
        heard = list(subjects.LISTENS[service])
        heard += ["predictions.*", "feedback.*"] if service == "monitor" else permissions.HINTS.get(service, ())
        name = "deployer-TARGET" if service == permissions.DEPLOYER else service
        artifacts = ACCESS.get(permissions.ARTIFACTS.get(service, ""), "")
        yield f"| {name} | {code(heard)} | {code(subjects.EMITS[service])} | {records(service)} | {artifacts} |"
    yield f"| serving | | {code(subjects.EMITS[permissions.SERVING])} | | |"
    yield "| belt (people) | everything | every event | | reads, writes |"
    yield "| setup | | makes streams, buckets and consumers | | |"


def table() -> str:
    """The whole table."""
    return "".join(f"{row}\n" for row in rows())


def placed(readme: str) -> str:
    """README with the table between its two marks."""
    before, _, rest = readme.partition(START)
    return f"{before}{START}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(placed(README.read_text()))
