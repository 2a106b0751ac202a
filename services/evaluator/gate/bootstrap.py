"""Bootstrap intervals for metrics that are no means of 0/1, alone or paired with another model on the same rows.

Resampling and the bias-corrected and accelerated interval (BCa; Efron 1987) are `scipy.stats.bootstrap`. What is ours
is the frame around it: metrics as functions of sums, both models on the same rows, and the two cases where resamples
say nothing: no spread at all, and tails beyond their reach.
"""

import math

import numpy as np
from scipy import special, stats

from services.evaluator.gate.metrics import Codes, Floats, Measured
from services.evaluator.gate.proportion_intervals import Interval

SEED = 20_150_204
FEWEST_ROWS = 20
"""With fewer rows, resamples do not show how the metric would vary over other rows."""
RESAMPLES_IN_TAIL = 50
"""Resamples expected beyond each end."""
FARTHEST_TAIL = 0.0025
"""Beyond it 20 000 resamples hold fewer than `RESAMPLES_IN_TAIL` for an end, and their quantiles stop moving outwards.

An interval for a smaller tail is this one, with each end's distance from the estimate extended as the quantiles of a
normal distribution are. Left alone, BCa at a tail of 6e-12 gave half the width of a normal interval.
"""
BLOCKS = 2000
"""With more rows, sums over random blocks are resampled instead of rows: they have the same spread."""
MOST_CLASSES = 50
CHUNK = 2_000_000
"""Numbers held at once."""


class NoInterval(Exception):
    """The rows do not show how uncertain the metric is; the text says why."""


def interval(candidate: Measured, champion: Measured | None, tail: float) -> tuple[float, Interval]:
    """Return the metric (minus the champion's) and its interval; each end misses with about probability `tail`.

    The seed is fixed: the same rows give the same interval. If no row moves the metric, there is no spread to learn
    from: confusion matrices then get the worst that rows unseen so far could do (`_unseen`); real-valued predictions
    with the same error on every row count as certain.

    Raises:
        NoInterval: there are too few rows, or the metric is not defined on them.
    """
    width = candidate.kinds.shape[1]

    def value(sums: Floats) -> Floats:
        own = candidate.value(sums[..., :width])
        return own if champion is None else own - champion.value(sums[..., width:])

    kinds, of = _side_by_side(candidate, champion)
    total = np.bincount(of, minlength=len(kinds)) @ kinds
    estimate = float(value(total))
    if not math.isfinite(estimate):
        raise NoInterval("it is not defined on these rows (all labels are the same?)")
    if len(of) < FEWEST_ROWS:
        raise NoInterval(f"{len(of)} held-out rows are too few, at least {FEWEST_ROWS} are needed")
    if np.ptp(value(total - kinds)) <= 1e-12 * max(1.0, abs(estimate)):
        return estimate, _without_spread(candidate, champion, estimate, tail)
    if len(of) > BLOCKS:
        kinds, of = _blocks(kinds, of)

    def statistic(samples: Codes, axis: int) -> Floats:
        return value(_counts(samples, len(kinds)) @ kinds)

    near = max(tail, FARTHEST_TAIL)
    found = stats.bootstrap(
        (of,), statistic, vectorized=True, method="BCa", confidence_level=1 - 2 * near,
        n_resamples=math.ceil(RESAMPLES_IN_TAIL / near), batch=max(1, CHUNK // max(len(of), kinds.shape[1])),
        rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        raise NoInterval("it is not defined on some resamples of these rows")
    reach = float(special.ndtri(tail) / special.ndtri(near))
    return estimate, (
        estimate - reach * max(estimate - float(found.low), 0.0),
        estimate + reach * max(float(found.high) - estimate, 0.0),
    )


def _side_by_side(candidate: Measured, champion: Measured | None) -> tuple[Floats, Codes]:
    """The different rows as both models see them (kinds × columns), and the kind of each held-out row."""
    if champion is None:
        return candidate.kinds, candidate.of
    pairs, of = np.unique(candidate.of * len(champion.kinds) + champion.of, return_inverse=True)
    own, other = np.divmod(pairs, len(champion.kinds))
    return np.hstack([candidate.kinds[own], champion.kinds[other]]), of


def _blocks(kinds: Floats, of: Codes) -> tuple[Floats, Codes]:
    """Sums over `BLOCKS` random blocks of rows, and the number of each block."""
    rows = np.random.default_rng(SEED).permutation(of)
    block = np.arange(len(rows)) % BLOCKS
    sums = [np.bincount(block, column[rows], minlength=BLOCKS) for column in kinds.T]
    return np.stack(sums, axis=1, dtype=np.float64), np.arange(BLOCKS)


def _counts(samples: Codes, kinds: int) -> Floats:
    """Count each kind in each sample: (…, rows) to (…, kinds)."""
    flat = samples.reshape(-1, samples.shape[-1])
    shifted = flat + kinds * np.arange(len(flat))[:, None]
    counts = np.bincount(shifted.ravel(), minlength=len(flat) * kinds)
    return counts.reshape(*samples.shape[:-1], kinds).astype(np.float64)


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
