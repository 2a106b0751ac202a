"""Decisions of the deployer: pure functions, without bus, processes or clock."""

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Literal

from contracts.events import DeploymentFailed, ModelDeployed, ModelSuperseded
from contracts.features import Probe
from contracts.values import Value
from services.messaging import Permanent
from services.storage import Deployed, Live

RETIRED_KEPT = 20
"""Number of versions in `Live.retired`, the ones that were rolled back from."""
LONGEST_PAUSE = 30.0
"""Longest pause, in seconds, between two starts of a version that keeps crashing."""


class CannotRollBack(Permanent):
    """The version to go back to does not exist; the message names the versions that do."""


class PredictionsDiffer(Permanent):
    """The deployed version predicts something else than the evaluated model."""


def decide(live: Live | None, version: str, order: int) -> Literal["deploy", "superseded", "already"]:
    """Decide what to do with a version whose decision has the stream sequence `order`.

    The newest decision always wins, whichever arrives first. An equal one is the same message, delivered again.
    """
    if live is None or order > live.order:
        return "deploy"
    return "already" if live.version == version else "superseded"


def released(live: Live | None, new: Live) -> Live:
    """Return the live record after a release of `new`: the version that was live becomes its previous one."""
    if live is None:
        return new
    retired = tuple(version for version in live.retired if version != new.version)
    previous = live.previous if live.version == new.version else live.version
    return new.model_copy(update={"previous": None if previous in retired else previous, "retired": retired})


def rolled_back(live: Live | None, new: Live) -> Live:
    """Return the live record after a rollback to `new`: the version rolled back from is retired.

    A retired version never becomes the previous one. Versions between the two do not either: a person who goes back
    past a version does not want it kept warm.
    """
    if live is None:
        return new
    if live.version == new.version:
        return new.model_copy(update={"previous": live.previous, "retired": live.retired})
    retired = (*(version for version in live.retired if version != new.version), live.version)
    return new.model_copy(update={"previous": None, "retired": retired[-RETIRED_KEPT:]})


def rollback_target(live: Live | None, to: str | None, order: int) -> str | None:
    """Return the version to go back to, or None if there is none.

    A request that was applied already, and is delivered again, leads to the version that it led to.
    """
    if live is None:
        return None
    return live.version if live.order == order else to or live.previous


def cannot_roll_back(model: str, live: Live | None, to: str | None, known: Iterable[str]) -> CannotRollBack:
    """Build the error that says why the rollback is impossible and which versions exist."""
    choice = f"versions that ran here: {', '.join(sorted(known, key=_generation)) or 'none'}"
    if live is None:
        return CannotRollBack(f"{model} is not live here, so there is nothing to roll back; {choice}")
    if to is not None:
        return CannotRollBack(f"{model} has no version {to} that ran here; {choice}")
    return CannotRollBack(
        f"{model} {live.version} has no previous version; name one: belt rollback {model} --to VERSION; {choice}"
    )


def newest_live(model: str, lives: Iterable[Live]) -> Live | None:
    """Return the live record of the model with the newest decision on any target; `lives` may hold other models too."""
    return max((live for live in lives if live.model == model), key=lambda live: live.order, default=None)


def superseded_elsewhere(version: str, order: int, elsewhere: Live | None) -> str | None:
    """Return the version that a target without a live version gets instead of this one; None: it gets this one.

    A new target reads the stream from its beginning. The stream does not show which versions were rolled back, but the
    newest live record of the other targets does. Older versions would be started and ended one after another, and
    versions that were rolled back must not be started at all.
    """
    if elsewhere is None or order > elsewhere.order or version == elsewhere.version:
        return None
    return elsewhere.version


def already_applied(elsewhere: Live | None, order: int) -> Live | None:
    """Return the live record elsewhere if this very rollback decided on it: then it is to be applied here too.

    The image may be gone from the stream, or this target may have skipped it. The version that this target is just
    starting may be the one that was rolled back. An older rollback is superseded.
    """
    return elsewhere if elsewhere is not None and elsewhere.order == order else None


def predates_target(live: Live | None, elsewhere: Live | None, order: int, requested: float) -> bool:
    """Return whether an impossible rollback is older than this target, or superseded: then it is no failure.

    `elsewhere` is the newest live record of all targets. The request has the stream sequence `order` and was made at
    `requested` (unix seconds).
    """
    if live is None:
        return elsewhere is not None
    first = live.previous is None and not live.retired
    return order < live.order or (first and requested < live.since)


def outcome(deployed: Deployed, live: Live, reason: Literal["release", "rollback"]) -> ModelDeployed | ModelSuperseded:
    """Build the event for a version after its rollout, given the live record."""
    image = deployed.image
    if live.version != image.version:
        return ModelSuperseded(model=image.model, version=image.version, by=live.version)
    return ModelDeployed(
        model=image.model,
        version=image.version,
        image=image.image,
        target=live.target,
        url=live.url,
        previous=live.previous,
        profile=image.profile,
        promise=image.promise,
        reason=reason,
    )


def versions_to_run(live: Live | None) -> frozenset[str]:
    """Return the versions that should run: the live one and the previous one, which is kept warm."""
    return frozenset() if live is None else frozenset(filter(None, (live.version, live.previous)))


@dataclass(frozen=True)
class StoredImage:
    """An image of a model on an engine. `names` are its `repository@digest` in the repository of interest, if any."""

    id: str
    version: str
    names: tuple[str, ...]
    tagged: bool


def images_to_prune(images: Iterable[StoredImage], used: Set[str], held: Set[str], keep: int) -> list[str]:
    """Return the names of the images to remove: all unused ones but the `keep` newest versions.

    Args:
        images: images of one model.
        used: ids of the images that a container uses, a stopped one too.
        held: names of the images from which a container is being created.
        keep: number of unused images that stay for a rollback.

    Somebody else gave an image its tag, for instance a builder on the same engine. Images with a tag stay.
    """
    ours = [one for one in images if one.names and not one.tagged]
    idle = [one for one in ours if one.id not in used and not held & set(one.names)]
    idle.sort(key=lambda one: (_generation(one.version), one.version), reverse=True)
    return [name for one in idle[keep:] for name in one.names]


def check_predictions(probe: Probe, predictions: tuple[Value, ...]) -> None:
    """Compare the predictions of a deployed version with those of the evaluated model; floats to 1e-6 of their size.

    Raises:
        PredictionsDiffer: names the first row that differs and both predictions.
    """
    if len(predictions) != len(probe.predictions):
        raise PredictionsDiffer(f"{len(probe.predictions)} rows were sent, {len(predictions)} predictions came back")
    for row, expected, got in zip(probe.rows, probe.predictions, predictions, strict=True):
        if not same(expected, got):
            raise PredictionsDiffer(
                f"for the row {row} the evaluated model predicted {expected!r}, the deployed one {got!r}"
            )


def same(expected: Value, got: Value) -> bool:
    """Return whether two predictions are equal, floats up to rounding."""
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return math.isclose(expected, got, rel_tol=1e-6, abs_tol=1e-9)
    return expected == got


def restart_pause(crashes: int) -> float:
    """Return the seconds to wait before the next start of a version that crashed `crashes` times in a row."""
    return 0.0 if crashes <= 1 else min(LONGEST_PAUSE, 0.5 * 2.0 ** (crashes - 1))


def crash_loop(live: Live, crashes: int, log_tail: str) -> DeploymentFailed:
    """Build the event for a live version that keeps crashing; `log_tail` is the end of its log."""
    return DeploymentFailed(
        model=live.model,
        version=live.version,
        error="CrashLoop",
        message=f"{live.model} {live.version} is live on {live.target}, but its server ended {crashes} times in a row "
        f"soon after its start. It is restarted with pauses of at most {LONGEST_PAUSE:.0f} s. To go back: "
        f"belt rollback {live.model}. Its log ends: {log_tail or '(empty)'}",
        attempts=crashes,
        target=live.target,
    )


def _generation(version: str) -> int:
    number = version.split("-")[0]
    return int(number) if number.isdecimal() else 0
