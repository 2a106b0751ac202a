"""What the deployer decides: pure, no bus, no process, no clock."""

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Literal

from contracts.events import DeploymentFailed, ModelDeployed, ModelSuperseded
from contracts.features import Probe
from contracts.values import Value
from services.messaging import Permanent
from services.storage import Deployed, Live

REMEMBERED = 20
"""Versions rolled back from that are remembered."""
LONGEST_PAUSE = 30.0
"""Seconds between two starts of a version that crashes again and again."""


class CannotRollBack(Permanent):
    """There is nothing to go back to; the message names the versions there are."""


class PredictionsDiffer(Permanent):
    """A deployed copy answers otherwise than the model that was judged."""


def decide(live: Live | None, version: str, order: int) -> Literal["deploy", "superseded", "already"]:
    """What to do with a version that was decided on at `order` (a stream sequence).

    A newer decision always wins, whichever arrives first; an equal one is the same message again.
    """
    if live is None or order > live.order:
        return "deploy"
    return "already" if live.version == version else "superseded"


def released(live: Live | None, new: Live) -> Live:
    """`new` as the registry keeps it after a release: the version before becomes its previous."""
    if live is None:
        return new
    retired = tuple(version for version in live.retired if version != new.version)
    previous = live.previous if live.version == new.version else live.version
    return new.model_copy(update={"previous": None if previous in retired else previous, "retired": retired})


def rolled_back(live: Live, new: Live) -> Live:
    """`new` after a rollback: the version rolled back from is remembered and never becomes a previous.

    Nor does one between the two: whoever goes back past a version does not want it warm.
    """
    if live.version == new.version:
        return new.model_copy(update={"previous": live.previous, "retired": live.retired})
    gone = (*(version for version in live.retired if version != new.version), live.version)
    return new.model_copy(update={"previous": None, "retired": gone[-REMEMBERED:]})


def rollback_target(live: Live | None, to: str | None, order: int) -> str | None:
    """The version a person wants back, None when there is none; when this very request was carried out already, the
    version it led to.
    """
    if live is None:
        return None
    return live.version if live.order == order else to or live.previous


def cannot_roll_back(model: str, live: Live | None, to: str | None, there_are: Iterable[str]) -> CannotRollBack:
    """Why there is nothing to go back to, and the versions that there are."""
    versions = sorted(there_are, key=_generation)
    choice = f"there are: {', '.join(versions) or 'none'}"
    if live is None:
        return CannotRollBack(f"{model} is not live here, so there is nothing to roll back; {choice}")
    if to is not None:
        return CannotRollBack(f"{model} has no version {to} that ran here; {choice}")
    return CannotRollBack(
        f"{model} {live.version} has no previous version; name one: belt rollback {model} --to VERSION; {choice}"
    )


def leading(model: str, lives: Iterable[Live]) -> Live | None:
    """What is live of a model where it was decided on last; `lives` of any models and targets."""
    return max((live for live in lives if live.model == model), key=lambda live: live.order, default=None)


def superseded_elsewhere(version: str, order: int, elsewhere: Live | None) -> str | None:
    """The version that a target with nothing live is to get instead of this one, if any.

    A new target reads the stream from its beginning, and the stream does not say what was rolled back: what leads
    elsewhere does. Those before it would only be started and ended one after another, those rolled back never should.
    """
    if elsewhere is None or order > elsewhere.order or version == elsewhere.version:
        return None
    return elsewhere.version


def already_applied(elsewhere: Live | None, order: int) -> Live | None:
    """What a bygone rollback led to, when it is the one that decided what leads: then it leads here too.

    Its image may be gone from the stream or have been passed over here, and what is just being started here may be the
    very version that was rolled back. A rollback before that one is overtaken.
    """
    return elsewhere if elsewhere is not None and elsewhere.order == order else None


def predates_target(live: Live | None, elsewhere: Live | None, order: int, asked: float) -> bool:
    """Whether a rollback that cannot be done here is of a time before this target's, or overtaken: no failure then.

    Args:
        live: what is live here.
        elsewhere: what leads on all targets.
        order: of the request.
        asked: when it was made, in unix seconds.
    """
    if live is None:
        return elsewhere is not None
    first = live.previous is None and not live.retired
    return order < live.order or (first and asked < live.since)


def outcome(deployed: Deployed, live: Live, reason: Literal["release", "rollback"]) -> ModelDeployed | ModelSuperseded:
    """What to say of a version after its rollout, given what is live now."""
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


def wanted(live: Live | None) -> frozenset[str]:
    """Versions that should be running: the live one and the one kept warm."""
    return frozenset() if live is None else frozenset(filter(None, (live.version, live.previous)))


@dataclass(frozen=True)
class StoredImage:
    """An image of a model on an engine. `names` are its `repository@digest` in the one that is looked at, if any."""

    id: str
    version: str
    names: tuple[str, ...]
    tagged: bool


def images_to_prune(images: Iterable[StoredImage], used: Set[str], held: Set[str], keep: int) -> list[str]:
    """Names of the images to remove: all but the `keep` newest versions of those that nobody uses.

    Args:
        images: of one model.
        used: ids of the images that any container uses, a stopped one too.
        held: names that a container is just being made of.
        keep: how many go on being there for a way back.

    A tag is somebody else's, the builder's on the same engine for instance: such an image is left alone.
    """
    ours = [one for one in images if one.names and not one.tagged]
    idle = [one for one in ours if one.id not in used and not held & set(one.names)]
    idle.sort(key=lambda one: (_generation(one.version), one.version), reverse=True)
    return [name for one in idle[keep:] for name in one.names]


def check_predictions(probe: Probe, answered: tuple[Value, ...]) -> None:
    """Compare what a deployed copy answers with what the judged model did; floats to 1e-6 of their size.

    Raises:
        PredictionsDiffer: names the first row that differs and both predictions.
    """
    if len(answered) != len(probe.predictions):
        raise PredictionsDiffer(f"{len(probe.predictions)} rows asked, {len(answered)} predictions answered")
    for row, expected, got in zip(probe.rows, probe.predictions, answered, strict=True):
        if not same(expected, got):
            raise PredictionsDiffer(f"for the row {row} the judged model said {expected!r}, the deployed one {got!r}")


def same(expected: Value, got: Value) -> bool:
    """Whether two predictions are equal, floats up to rounding."""
    numbers = (int, float)
    if (
        isinstance(expected, bool)
        or isinstance(got, bool)
        or not (isinstance(expected, numbers) and isinstance(got, numbers))
    ):
        return type(expected) is type(got) and expected == got
    return math.isclose(expected, got, rel_tol=1e-6, abs_tol=1e-9)


def pause(crashes: int) -> float:
    """Seconds to wait before the next start of a version that died `crashes` times in a row."""
    return 0.0 if crashes <= 1 else min(LONGEST_PAUSE, 0.5 * 2.0 ** (crashes - 1))


def crash_loop(live: Live, crashes: int, words: str) -> DeploymentFailed:
    """What to say of a live version that does not stay up; `words` is the end of its log."""
    return DeploymentFailed(
        model=live.model,
        version=live.version,
        error="CrashLoop",
        message=f"{live.model} {live.version} is live on {live.target}, but ended {crashes} times in a row soon after "
        f"its start. It is started again and again, {LONGEST_PAUSE:.0f} s apart at the most. To go back: "
        f"belt rollback {live.model}. Its log ends: {words or '(empty)'}",
        attempts=crashes,
        target=live.target,
    )


def _generation(version: str) -> int:
    number = version.split("-")[0]
    return int(number) if number.isdecimal() else 0
