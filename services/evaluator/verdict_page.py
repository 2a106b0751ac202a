"""The top of the page about a model that was not approved: the conditions of the gate, and the results."""

from collections.abc import Collection
from html import escape

from contracts.events import ModelTrained
from contracts.model_spec import condition
from contracts.verdicts import ConditionResult, Verdict

COLORS = {"pass": "#1a7f37", "fail": "#cf222e", "unknown": "#9a6700"}
MEANING = {
    "fail": "At least one condition is not met. A person may still approve it.",
    "unknown": "The held-out rows are too few, or the result too close, to tell. A person decides.",
    "pass": "Every condition is met.",
}
STYLE = """
#verdict{font:15px/1.5 system-ui,sans-serif;color:#1f2328;background:#fff;max-width:1100px;margin:0 auto;padding:24px}
#verdict h1{font-size:24px;margin:0 0 4px} #verdict h2{font-size:17px;margin:28px 0 8px} #verdict p{margin:4px 0 12px}
#verdict table{border-collapse:collapse;width:100%} #verdict code{background:#f0f1f3;padding:2px 6px;border-radius:4px}
#verdict th,#verdict td{text-align:left;padding:8px 10px;border-bottom:1px solid #d8dee4;vertical-align:top}
#verdict th{color:#59636e;font-weight:600} #verdict .why{color:#59636e;font-size:13px}
#verdict .outcome{color:#fff;border-radius:10px;padding:1px 10px;font-weight:600;white-space:nowrap}
"""
MACRO = ("f1", "precision", "recall")
WIDTH, MARGIN = 260, 12


def page(trained: ModelTrained, verdict: Verdict, pictures: str = "", caption: str = "") -> str:
    """Return the HTML page: the verdict, then the body of the page `pictures`, with `caption` above it."""
    top = f'<style>{STYLE}</style><section id="verdict">{_head(trained, verdict)}{_table(verdict)}{_facts(trained)}'
    top += f"<h2>The pictures below</h2><p>{escape(caption)}.</p></section>" if caption else "</section>"
    opened = pictures.find("<body")
    if opened >= 0:
        inside = pictures.index(">", opened) + 1
        return pictures[:inside] + top + pictures[inside:]
    title = escape(f"{trained.model} {trained.version}")
    return f'<!doctype html><html><head><meta charset="utf-8"><title>{title}</title></head><body>{top}</body></html>'


def _head(trained: ModelTrained, verdict: Verdict) -> str:
    name = f"{trained.model} {trained.version}"
    review = f"belt review approve {name} --reason &quot;…&quot;"
    against = f"the live version {verdict.champion}" if verdict.champion else "nothing: no version is live"
    return (
        f"<h1>{escape(name)}: {_badge(verdict.outcome)}</h1><p>{MEANING[verdict.outcome]}</p>"
        f"<p>Compared with {escape(against)}. All intervals hold together with a confidence of "
        f"{verdict.confidence:.0%}.</p><p><code>{review}</code> &nbsp; or &nbsp; "
        f"<code>{review.replace('approve', 'reject', 1)}</code></p>"
    )


def _table(verdict: Verdict) -> str:
    rows = "".join(map(_row, verdict.conditions))
    titles = "".join(f"<th>{title}</th>" for title in ("Condition", "Rows", "Estimate and interval", "Outcome"))
    return f"<h2>Verdict</h2><table><tr>{titles}</tr>{rows}</table>"


def _macro(metrics: Collection[str]) -> str:
    """A note on averages: where there are two classes, the pictures give the same metrics of one class only."""
    listed = [name for name in MACRO if name in metrics]
    if not listed:
        return ""
    verb = "are macro averages" if len(listed) > 1 else "is a macro average"
    return f'<p class="why">{", ".join(listed)} {verb} over the classes: each class counts the same.</p>'


def _row(result: ConditionResult) -> str:
    group = "" if result.group == "all" else f" ({result.group})"
    return (
        f'<tr><td><code>{escape(result.condition)}</code><div class="why">{escape(result.why)}</div></td>'
        f"<td>{result.rows}{group}</td><td>{_measured(result)}</td><td>{_badge(result.outcome)}</td></tr>"
    )


def _measured(result: ConditionResult) -> str:
    if result.estimate is None or result.low is None or result.high is None:
        return "–"
    number = condition(result.condition).number
    chart = _chart(result.low, result.estimate, result.high, number, COLORS[result.outcome])
    return f"{result.estimate:.4g} &nbsp; [{result.low:.4g}, {result.high:.4g}]<br>{chart}"


def _chart(low: float, estimate: float, high: float, number: float, color: str) -> str:
    """The interval as a bar, the estimate as a dot, the number of the condition as a line."""
    first, last = min(low, number), max(high, number)
    scale = (WIDTH - 2 * MARGIN) / ((last - first) or 1.0)

    def x(value: float) -> float:
        return round(MARGIN + (value - first) * scale, 1)

    return (
        f'<svg width="{WIDTH}" height="26" role="img" aria-label="interval against {number:g}">'
        f'<rect x="{x(low)}" y="9" width="{max(x(high) - x(low), 1):.1f}" height="8" rx="3" '
        f'fill="{color}" opacity="0.35"/><circle cx="{x(estimate)}" cy="13" r="4.5" fill="{color}"/>'
        f'<line x1="{x(number)}" x2="{x(number)}" y1="2" y2="24" stroke="#1f2328" stroke-dasharray="3 2"/></svg>'
    )


def _facts(trained: ModelTrained) -> str:
    metrics = ", ".join(f"{escape(name)} {value:.4g}" for name, value in trained.metrics.items())
    commit = f" from commit <code>{escape(trained.commit[:12])}</code>" if trained.commit else ""
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in trained.warnings)
    return (
        f"<h2>The candidate</h2><p>Trained in {trained.seconds:.1f} s{commit} on data "
        f"<code>{trained.dataset.sha256[:12]}</code>. On its held-out rows: {metrics}.</p>"
        + _macro(trained.metrics)
        + (f"<p>Noticed in the data:</p><ul>{warnings}</ul>" if warnings else "")
    )


def _badge(outcome: str) -> str:
    return f'<span class="outcome" style="background:{COLORS[outcome]}">{outcome}</span>'
