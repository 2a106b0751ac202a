"""One line for a person about an event. Pure."""

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
FOR_MACHINES = frozenset({"e_value", "p_value", "max_loss", "coverage", "columns"})
"""Numbers behind an alarm that tell a person nothing by themselves; `--json` has them."""
DECIDED = {"approve": "approved", "reject": "rejected"}


def says(event: Event) -> str:
    """What happened, in one line."""
    match event:
        case DataPushed():
            return _joined(dataset(event.dataset), event.commit and f"commit {_commit(event.commit)}", event.reason)
        case DataRejected():
            return "; ".join(event.violations)
        case ModelTrained():
            return _joined(metrics(event.metrics), f"{event.seconds:.1f} s", *event.warnings)
        case ModelApproved():
            return _joined(f"by {event.approved_by}", event.reason, verdict(event.verdict))
        case ModelRejected():
            return _joined(f"by {event.by}", event.reason, verdict(event.verdict))
        case ReviewDecided():
            return f"{DECIDED[event.decision]} by {event.by}: {event.reason}"
        case ImagePushed():
            return _joined(short_image(event.image), size(event.size))
        case ModelDeployed():
            after = f"after {event.previous}" if event.previous else None
            return _joined(event.url, f"on {event.target}", event.reason, after)
        case _:
            return _says_of_trouble(event)


def _says_of_trouble(event: Event) -> str:
    match event:
        case ModelSuperseded():
            return f"{event.by} is newer and live"
        case RollbackRequested():
            return f"to {event.to or 'the previous version'} by {event.by}: {event.reason}"
        case DriftDetected():
            return _drift(event)
        case StageFailed():
            return f"{event.error}: {last_line(event.message)}"
        case AlertRaised():
            return event.title
        case _:
            return ""


def _drift(event: DriftDetected) -> str:
    """`performance → retrain, accuracy 0.44 instead of 0.98 on 502 labels; most moved: x, y`."""
    numbers = dict(event.evidence)
    promised, labels = numbers.pop("promised", None), numbers.pop("labels", None)
    named = [(name, value) for name, value in numbers.items() if name not in FOR_MACHINES]
    seen = ", ".join(f"{name} {value:.4g}" for name, value in named)
    if seen and promised is not None:
        seen += f" instead of {promised:.4g}"
    if seen and labels is not None:
        seen += f" on {labels:.0f} labels"
    moved = f"; most moved: {', '.join(event.columns[:5])}" if event.columns else ""
    return _joined(f"{event.kind} → {event.action}", seen) + moved


def verdict(judged: Verdict) -> str:
    """The conditions with their intervals: `accuracy > 0.9: 0.972 (0.951 to 0.986) pass`."""
    return "; ".join(condition(result) for result in judged.conditions)


def condition(result: ConditionResult) -> str:
    """One condition, its estimate with the interval, and the outcome."""
    group = f" on {result.group} rows" if result.group != "all" else ""
    said = f"{result.condition}{group}: {interval(result)} {result.outcome}".replace(":  ", ": ")
    alone = "champion" in result.condition and result.estimate is None and result.outcome == "pass"
    return f"{said} (no champion yet)" if alone else said


def interval(result: ConditionResult) -> str:
    """`0.972 (0.951 to 0.986)`; empty when there was nothing to compare with."""
    if result.estimate is None:
        return ""
    if result.low is None or result.high is None:
        return f"{result.estimate:.4g}"
    return f"{result.estimate:.4g} ({result.low:.4g} to {result.high:.4g})"


def metrics(measured: dict[str, float]) -> str:
    """`accuracy 0.972, f1 0.97`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


def dataset(named: str | ArtifactRef | None) -> str:
    """A dataset as an event names it, short."""
    if isinstance(named, ArtifactRef):
        return f"data {named.sha256[:10]} ({size(named.size)})"
    return named or "the project's dataset"


def short_image(image: str) -> str:
    """An image reference with its digest cut to 12 digits."""
    head, _, digest = image.rpartition("sha256:")
    if not head:
        head, _, digest = image.rpartition("/")
        return f"{head}/{digest[:12]}" if len(digest) == 64 else image
    return f"{head}sha256:{digest[:12]}"


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float | None) -> str:
    """`0.42 s`, `12 s`, `3 min 5 s`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def last_line(message: str) -> str:
    """Where a traceback says what it is; a plain message is one line anyway."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return line.removesuffix(":")


def detail(event: Event) -> str:
    """What a failure says beyond its one line: the last lines of its message; empty when that was all."""
    if not isinstance(event, StageFailed):
        return ""
    lines = [line.rstrip() for line in event.message.strip().splitlines()]
    return "\n".join(lines[-DETAIL_LINES:]) if len(lines) > 1 else ""


def _commit(full: str) -> str:
    return full[:10] + ("-dirty" if full.endswith("-dirty") else "")


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)
