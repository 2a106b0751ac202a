"""The paths in the pages for readers exist, so that a file that moves takes its mentions along."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATH = re.compile(r"`((?:belt|services|contracts|serving|infra|tests|docs|benchmarks|examples)/[\w./-]*)`")
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)")
LONGEST_WALK = 25
"""Files on the main line of a push."""


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {*PATH.findall(text), *LINK.findall(text)}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_main_line_of_a_push_is_short() -> None:
    walk = (ROOT / "CONTRIBUTING.md").read_text().partition("## Following one push")[2].partition("## How we write")[0]
    files = [name for name in PATH.findall(walk) if name.endswith(".py")]
    assert 0 < len(set(files)) == len(files) <= LONGEST_WALK
