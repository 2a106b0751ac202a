"""The locks are one resolution: what two rooms share has one version, and nothing of a machine is written down."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
INCLUDED = {"bus", "model"}
"""Groups that only other groups use."""

GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
ROOMS = sorted(set(GROUPS) - INCLUDED - {"dev"})
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==(\S+)([^\\]*)\\?$", re.MULTILINE)


def pins(room: str) -> dict[tuple[str, str], str]:
    """(package, markers) → version."""
    found = PIN.findall((REQUIREMENTS / f"{room}.txt").read_text())
    return {(name, markers.strip(" ;")): version for name, version, markers in found}


def names(room: str) -> set[str]:
    return {name for name, _ in pins(room)}


def direct(group: str) -> set[str]:
    """Names of the packages a group asks for, those of included groups among them."""
    asked: set[str] = set()
    for entry in GROUPS[group]:
        if isinstance(entry, dict):
            asked |= direct(entry["include-group"])
        else:
            asked.add(re.split(r"[\[<>=!~; ]", entry)[0].lower())
    return asked


def test_every_group_has_its_lock_and_every_lock_its_group() -> None:
    assert {path.stem for path in REQUIREMENTS.glob("*.txt")} == {*ROOMS, "dev", "uv"}


def test_dev_has_what_every_group_asks_for() -> None:
    assert {group for group in GROUPS if not direct(group) <= direct("dev")} == set()


@pytest.mark.parametrize("room", [*ROOMS, "dev"])
def test_the_lock_is_current_with_pyproject(room: str) -> None:
    assert direct(room) - names(room) == set()


@pytest.mark.parametrize("room", [*ROOMS, "uv"])
def test_a_rooms_pins_are_those_of_dev(room: str) -> None:
    dev: dict[str, set[str]] = {}
    for (name, _), version in pins("dev").items():
        dev.setdefault(name, set()).add(version)
    assert pins(room)
    assert {(n, v) for (n, _), v in pins(room).items() if v not in dev.get(n, set())} == set()


@pytest.mark.parametrize("room", [*ROOMS, "dev", "uv"])
def test_every_pin_has_hashes(room: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", (REQUIREMENTS / f"{room}.txt").read_text())
    pinned = [entry for entry in entries if not entry.startswith("#")]
    assert pinned
    assert [entry.splitlines()[0] for entry in pinned if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("room", [*ROOMS, "dev", "uv"])
def test_nothing_of_the_machine_is_in_the_lock(room: str) -> None:
    text = (REQUIREMENTS / f"{room}.txt").read_text()
    assert not re.search(r"://|index-url|find-links|(^|\s)/\w", text)


@pytest.mark.parametrize("room", ["deployer", "monitor", "notifier", "belt"])
def test_a_room_without_bentoml_does_not_install_aiohttp(room: str) -> None:
    # nats-py imports aiohttp where it finds it, for WebSockets, which no bus here uses: 0.1 s of every start.
    assert "aiohttp" not in names(room)
