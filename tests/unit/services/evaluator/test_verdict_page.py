"""Sentences on the verdict page."""

import pytest

from contracts.verdicts import Verdict
from services.evaluator.verdict_page import page
from tests.evaluations import event

VERDICT = Verdict(outcome="unknown", confidence=0.95, conditions=())


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"accuracy": 0.9, "recall": 0.8, "f1": 0.8}, "f1, recall are macro averages over the classes"),
        ({"accuracy": 0.9, "f1": 0.8}, "f1 is a macro average over the classes"),
    ],
)
def test_which_averages_are_meant(metrics: dict[str, float], said: str) -> None:
    assert said in page(event(metrics=metrics), VERDICT)
    assert "macro" not in page(event(), VERDICT)


def test_what_the_pictures_compare_comes_before_them() -> None:
    text = page(event(), VERDICT, "<html><body class='x'><p>pictures</p></body></html>", "current = <this>")
    assert text.index("current = &lt;this&gt;.") < text.index("<p>pictures")
    assert "The pictures below" not in page(event(), VERDICT)
