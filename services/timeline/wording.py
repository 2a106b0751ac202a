"""One sentence for a person about each event. Pure."""

from contracts.artifact_ref import ArtifactRef
from contracts.events import (
    AlertRaised,
    DataPushed,
    DataRejected,
    DriftDetected,
    Event,
    ImagePushed,
    ModelApproved,
    ModelDeployed,
    ModelRejected,
    ModelSuperseded,
    ModelTrained,
    ReviewDecided,
    RollbackRequested,
    StageFailed,
)
from contracts.verdicts import ConditionResult, Verdict

DETAIL_LINES = 15
INTERNAL_EVIDENCE = frozenset({"e_value", "p_value", "max_loss", "coverage", "columns"})
"""Evidence of an alarm that means little without the method behind it; `--json` shows it."""
DECIDED = {"approve": "approved", "reject": "rejected"}


def describe(event: Event) -> str:
    """Return in one line what happened."""
    match event:
        case DataPushed():
            return _joined(dataset(event.dataset), event.commit and f"commit {_commit(event.commit)}", event.reason)
        case DataRejected():
            return "; ".join(event.violations)
        case ModelTrained():
            return _joined(f"trained in {event.seconds:.1f} s: {metrics(event.metrics)}", *event.warnings)
        case ModelApproved():
            who = "the gate" if event.approved_by == "gate" else event.approved_by
            return _decision(f"{who} approved it", event.reason, event.verdict)
        case ModelRejected(by="gate"):
            return _decision("the gate did not pass it", event.reason, event.verdict)
        case ModelRejected():
            return _decision(f"{event.by} rejected it", event.reason, event.verdict)
        case ReviewDecided():
            return f"{event.by} {DECIDED[event.decision]} it: {event.reason}"
        case ImagePushed():
            return f"pushed {short_image(event.image)} ({size(event.size)})"
        case ModelDeployed():
            return _deployment(event)
        case ModelSuperseded():
            return f"{event.by} is newer and live"
        case RollbackRequested():
            return f"{event.by} wants {event.to or 'the previous version'} back: {event.reason}"
        case DriftDetected():
            return _drift(event)
        case StageFailed():
            return f"{event.error}: {last_line(event.message)}"
        case AlertRaised():
            return event.title
        case _:
            return ""


def _decision(decision: str, reason: str | None, judged: Verdict) -> str:
    """`the gate approved it; accuracy > 0.9: 0.972 (0.951 to 0.986) pass`."""
    decided = f"{decision}: {reason}" if reason else decision
    return f"{decided}; {verdict(judged)}" if judged.conditions else decided


def _deployment(event: ModelDeployed) -> str:
    """`live on local at http://127.0.0.1:8080/digits, in place of 7-2b1c9f3a`."""
    rolled_back = "after a rollback, " if event.reason == "rollback" else ""
    replaced = f", in place of {event.previous}" if event.previous else ""
    return f"{rolled_back}live on {event.target} at {event.url}{replaced}"


def _drift(event: DriftDetected) -> str:
    """`performance: accuracy 0.44 instead of 0.98 on 502 labels; a retraining starts; moved most: x, y`."""
    numbers = dict(event.evidence)
    promised, labels = numbers.pop("promised", None), numbers.pop("labels", None)
    seen = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if name not in INTERNAL_EVIDENCE)
    if seen and promised is not None:
        seen += f" instead of {promised:.4g}"
    if seen and labels is not None:
        seen += f" on {labels:.0f} labels"
    alarm = f"{event.kind}: {seen}" if seen else event.kind
    action = "a retraining starts" if event.action == "retrain" else "no retraining, only an alert"
    moved = f"moved most: {', '.join(event.columns[:5])}" if event.columns else ""
    return "; ".join(filter(None, (alarm, action, moved)))


def verdict(judged: Verdict) -> str:
    """Return the conditions with their intervals: `accuracy > 0.9: 0.972 (0.951 to 0.986) pass`."""
    return "; ".join(condition(result) for result in judged.conditions)


def condition(result: ConditionResult) -> str:
    """Return one condition, its estimate with the interval, and the outcome."""
    group = f" on {result.group} rows" if result.group != "all" else ""
    estimate = interval(result)
    text = f"{result.condition}{group}: {f'{estimate} ' if estimate else ''}{result.outcome}"
    no_champion = "champion" in result.condition and result.estimate is None and result.outcome == "pass"
    return f"{text} (no champion yet)" if no_champion else text


def interval(result: ConditionResult) -> str:
    """Return `0.972 (0.951 to 0.986)`; empty when there is no estimate."""
    if result.estimate is None:
        return ""
    if result.low is None or result.high is None:
        return f"{result.estimate:.4g}"
    return f"{result.estimate:.4g} ({result.low:.4g} to {result.high:.4g})"


def metrics(measured: dict[str, float]) -> str:
    """Return `accuracy 0.972, f1 0.97`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


def dataset(named: str | ArtifactRef | None) -> str:
    """Return a short name for the dataset of an event."""
    if isinstance(named, ArtifactRef):
        return f"data {named.sha256[:10]} ({size(named.size)})"
    return f"data {named}" if named else "the project's dataset"


def short_image(image: str) -> str:
    """Return an image reference with its digest cut to 12 digits."""
    head, _, digest = image.rpartition("sha256:")
    if not head:
        head, _, digest = image.rpartition("/")
        return f"{head}/{digest[:12]}" if len(digest) == 64 else image
    return f"{head}sha256:{digest[:12]}"


def size(count: float) -> str:
    """Return a number of bytes with its unit, e.g. `2.0 kB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float | None) -> str:
    """Return `0.42 s`, `12 s` or `3 min 5 s`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def last_line(message: str) -> str:
    """Return the line of a message that names the error: the last one of a traceback, else the first one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return line.removesuffix(":")


def detail(event: Event) -> str:
    """Return the last lines of a failure's message; empty when the message has one line only."""
    if not isinstance(event, StageFailed):
        return ""
    lines = [line.rstrip() for line in event.message.strip().splitlines()]
    return "\n".join(lines[-DETAIL_LINES:]) if len(lines) > 1 else ""


def _commit(full: str) -> str:
    return full[:10] + ("-dirty" if full.endswith("-dirty") else "")


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)
