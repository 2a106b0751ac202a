import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_current_and_every_setting_is_described() -> None:
    page = runpy.run_path(str(DOCS / "configuration.py"))["page"]()
    assert "| None |" not in page, "a setting has no description"
    assert (DOCS / "configuration.md").read_text() == page, "run `python docs/configuration.py`"
