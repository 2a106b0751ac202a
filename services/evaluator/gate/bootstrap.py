"""Bootstrap intervals for metrics that are no means of 0/1, alone or paired with another model on the same rows."""

import numpy as np
from scipy import special

from services.evaluator.gate.metrics import Codes, Floats, Measured
from services.evaluator.gate.proportion_intervals import Interval

SEED = 20_150_204
FEWEST_ROWS = 20
"""With fewer rows a resample says little of what other rows would."""
RESAMPLES_IN_TAIL = 50
FEWEST_RESAMPLES, MOST_RESAMPLES = 2000, 20_000
BLOCKS = 2000
"""More distinct rows than this are resampled in random blocks: sums of blocks spread as sums of rows do."""
MOST_CLASSES = 50
CHUNK = 2_000_000
"""Numbers held at once."""


class NoInterval(Exception):
    """The rows do not tell how uncertain the metric is; the text says why."""


def interval(candidate: Measured, champion: Measured | None, tail: float) -> tuple[float, Interval]:
    """The metric (minus the champion's) and its interval, each end of which misses with about probability `tail`.

    Bias-corrected and accelerated (BCa; Efron 1987) over resampled rows with a fixed seed. Where every resample
    says the same there is no spread to learn from: confusion matrices then get the worst that rows unseen so far
    could do (`_unseen`), real-valued predictions that are the same on every row are taken as the same.

    Raises:
        NoInterval: too few rows, or the metric is not defined on them.
    """
    rows, width = len(candidate.of), candidate.kinds.shape[1]

    def value(sums: Floats) -> Floats:
        own = candidate.value(sums[..., :width])
        return own if champion is None else own - champion.value(sums[..., width:])

    distinct, counts = _distinct(candidate, champion)
    total = counts @ distinct
    estimate = float(value(total))
    if not np.isfinite(estimate):
        raise NoInterval("it is not defined on these rows (all labels are the same?)")
    if rows < FEWEST_ROWS:
        raise NoInterval(f"{rows} held-out rows are too few, at least {FEWEST_ROWS} are needed")
    rng = np.random.default_rng(SEED)
    if len(distinct) > BLOCKS:
        distinct, counts = _blocks(distinct, counts, rng)
    resampled = np.concatenate([value(sums) for sums in _resamples(distinct, counts, tail, rng)])
    resampled = resampled[np.isfinite(resampled)]
    if np.ptp(resampled) <= 1e-12 * max(1.0, abs(estimate)):
        return estimate, _without_spread(candidate, champion, estimate, tail)
    return estimate, _bca(resampled, estimate, value(total - distinct), counts, tail)


def _distinct(candidate: Measured, champion: Measured | None) -> tuple[Floats, Codes]:
    """The different rows as both models see them, side by side, and how often each is there."""
    if champion is None:
        return candidate.kinds, np.asarray(np.bincount(candidate.of, minlength=len(candidate.kinds)), dtype=np.int64)
    pairs, counts = np.unique(candidate.of * len(champion.kinds) + champion.of, return_counts=True)
    own, other = np.divmod(pairs, len(champion.kinds))
    return np.hstack([candidate.kinds[own], champion.kinds[other]]), counts.astype(np.int64)


def _blocks(distinct: Floats, counts: Codes, rng: np.random.Generator) -> tuple[Floats, Codes]:
    """Sums over `BLOCKS` random blocks of rows."""
    rows = rng.permutation(np.repeat(np.arange(len(distinct)), counts))
    block = np.arange(len(rows)) % BLOCKS
    sums = [np.bincount(block, column[rows], minlength=BLOCKS) for column in distinct.T]
    return np.stack(sums, axis=1, dtype=np.float64), np.ones(BLOCKS, dtype=np.int64)


def _resamples(distinct: Floats, counts: Codes, tail: float, rng: np.random.Generator) -> list[Floats]:
    """Sums over rows drawn with replacement, in chunks of shape (resamples, columns)."""
    total, kinds = int(counts.sum()), len(counts)
    wanted = int(np.clip(RESAMPLES_IN_TAIL / tail, FEWEST_RESAMPLES, MOST_RESAMPLES))
    size = max(1, CHUNK // max(kinds, distinct.shape[1]))
    sums = []
    for start in range(0, wanted, size):
        number = min(size, wanted - start)
        if kinds == total:  # all rows differ: drawing them is faster than drawing how often each comes
            drawn = rng.integers(kinds, size=(number, kinds)) + kinds * np.arange(number)[:, None]
            times = np.bincount(drawn.ravel(), minlength=number * kinds).reshape(number, kinds)
        else:
            times = rng.multinomial(total, counts / total, size=number)
        sums.append(times.astype(np.float64) @ distinct)
    return sums


def _bca(resampled: Floats, estimate: float, left_out: Floats, counts: Codes, tail: float) -> Interval:
    """Quantiles of the resamples, moved for bias and for a spread that changes with the value (jackknife)."""
    below = (resampled < estimate).mean() + (resampled == estimate).mean() / 2
    bias = special.ndtri(np.clip(below, 1 / len(resampled), 1 - 1 / len(resampled)))
    influence = np.where(np.isfinite(left_out), np.average(left_out, weights=counts) - left_out, 0.0)
    spread = (counts * influence**2).sum()
    acceleration = (counts * influence**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + special.ndtri(np.array([tail, 1 - tail]))
    levels = special.ndtr(bias + z / np.maximum(1 - acceleration * z, 0.1))
    low, high = np.quantile(resampled, np.clip(levels, 0, 1))
    return float(min(low, estimate)), float(max(high, estimate))


def _without_spread(candidate: Measured, champion: Measured | None, estimate: float, tail: float) -> Interval:
    if candidate.classes is None:
        return estimate, estimate
    worst, best = _unseen(candidate, candidate.classes, tail)
    if champion is None or champion.classes is None:
        return float(worst.min()), float(best.max())
    other_worst, other_best = _unseen(champion, champion.classes, tail)
    return float((worst - other_best).min()), float((best - other_worst).max())


def _unseen(measured: Measured, classes: int, tail: float) -> tuple[Floats, Floats]:
    """Worst and best value per label if a share of the rows were like none seen, all with that label.

    The share is 1 - tail^(1/rows): were there more such rows, one would have been seen (Clopper–Pearson for none).

    Raises:
        NoInterval: too many classes to try all mistakes.
    """
    if classes > MOST_CLASSES:
        raise NoInterval(f"all resamples agree, and with {classes} classes nothing bounds what was not seen")
    rows = len(measured.of)
    share = 1 - tail ** (1 / rows)
    matrix = np.bincount(measured.of) @ measured.kinds / rows * (1 - share)
    values = measured.value(matrix + share * np.eye(classes**2)).reshape(classes, classes)
    return values.min(axis=1), values.max(axis=1)
