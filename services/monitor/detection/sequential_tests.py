"""The sequential statistics behind an alarm: pure numpy, no scipy (it costs the process 30 MB).

Every alarm threshold is an average run length: e-values accumulated by Shiryaev–Roberts raise a false alarm
once in at least A windows (or labels), whatever the dependence between columns (Shin, Ramdas, Rinaldo: e-detectors).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

SMALL_CELL = 5.0
"""Expected rows below which chi² no longer holds: such cells are pooled."""
BETS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7])
"""Sizes of the bets against the promise, as shares of the largest that cannot go bankrupt (1 / m0)."""
_CAP = 1e200
_BLOCK = 32


def noncentral_chi2_sf(statistic: float, df: int, nc: float) -> float:
    """P(noncentral chi² with `df` degrees and noncentrality `nc` exceeds `statistic`): a Poisson mixture of chi²."""
    if statistic <= 0:
        return 1.0
    half, start = statistic / 2, 1 if df % 2 else 2
    reach, first = int(nc / 2 + 10 * math.sqrt(nc / 2) + 30), (df - start) // 2
    shape = start / 2 + np.arange(first + reach)
    # P(chi² with k+2 degrees > x) is that with k degrees plus one term, beginning at 1 or 2 degrees.
    steps = np.exp(shape * math.log(half) - half - _log_gammas(start / 2, first + reach))
    base = math.erfc(math.sqrt(half)) if start == 1 else math.exp(-half)
    tails = base + np.concatenate(([0.0], np.cumsum(steps)))[first : first + reach]
    if nc <= 0:
        return float(min(1.0, tails[0]))
    weights = np.exp(np.arange(reach) * math.log(nc / 2) - nc / 2 - _log_gammas(0.0, reach))
    return float(min(1.0, (weights @ tails).item()))


@lru_cache(maxsize=64)
def _log_gammas(first: float, count: int) -> Floats:
    """Log Γ(a+1) for a = first, first + 1, …: every column of a window asks for the same ones."""
    shape = first + np.arange(1, count)
    start = math.lgamma(first + 1)
    return np.asarray(start + np.concatenate(([0.0], np.cumsum(np.log(shape)))), dtype=np.float64)


def drift_p_values(reference: Counts, window: Counts, tolerance: float) -> Floats:
    """Per column, the p-value of "no more drift than `tolerance`" (Cohen's w).

    Args:
        reference: (columns, bins) rows per bin at training.
        window: (columns, bins) rows per bin in the window.
        tolerance: largest Cohen's w that counts as no drift.
    """
    return np.array([_column_p(ref, now, tolerance) for ref, now in zip(reference, window, strict=True)])


def _column_p(reference: Counts, window: Counts, tolerance: float) -> float:
    n, m = int(reference.sum()), int(window.sum())
    if not n or not m:
        return 1.0
    before, now = _pooled(reference, window, n, m)
    if len(before) < 2:
        return 1.0
    n_eff = n * m / (n + m)
    share = (before + now) / (n + m)
    statistic = n_eff * float(np.sum((before / n - now / m) ** 2 / share))
    return noncentral_chi2_sf(statistic, len(before) - 1, n_eff * tolerance**2)


def _pooled(reference: Counts, window: Counts, n: int, m: int) -> tuple[Floats, Floats]:
    total = reference + window
    small = total * min(n, m) < SMALL_CELL * (n + m)
    before, now = reference[~small].astype(float), window[~small].astype(float)
    rest = int(total[small].sum())
    if not rest:
        return before, now
    rest_before, rest_now = float(reference[small].sum()), float(window[small].sum())
    if rest * min(n, m) >= SMALL_CELL * (n + m) or not len(before):
        return np.append(before, rest_before), np.append(now, rest_now)
    biggest = int(np.argmax(before + now))
    before[biggest] += rest_before
    now[biggest] += rest_now
    return before, now


def e_values(p: Floats) -> Floats:
    """Evidence against the null, with mean ≤ 1 under it: the integral of κp^(κ-1) over κ."""
    p = np.clip(p, 1e-100, 1.0)
    log = np.log(np.minimum(p, 1 - 1e-6))
    clipped = np.exp(log)
    return np.asarray((1 - clipped + clipped * log) / (clipped * log**2), dtype=np.float64)


def shiryaev_roberts(before: float, e: float) -> float:
    """One more window's evidence on top of all that may have begun to drift earlier."""
    return min(_CAP, (1 + before) * e)


def culprits(p: Floats, rate: float = 0.05) -> list[int]:
    """Columns that drifted at false discovery rate `rate` (Benjamini–Hochberg), worst first."""
    order = np.argsort(p, kind="stable")
    passing = np.nonzero(p[order] <= rate * np.arange(1, len(p) + 1) / len(p))[0]
    return [int(column) for column in order[: passing[-1] + 1]] if len(passing) else []


def bets(tolerated: float) -> Floats:
    """The λ grid against an error rate of at most `tolerated`."""
    return np.asarray(BETS / max(tolerated, 1e-3), dtype=np.float64)


def e_detector(before: Floats, errors: Floats, tolerated: float) -> tuple[Floats, float]:
    """Shiryaev–Roberts of the bets that the error rate exceeds `tolerated`, after the 0/1 `errors` in order.

    Returns:
        The new R per λ, and the largest mean over λ that was reached on the way.
    """
    after, peak = before.copy(), 0.0
    for start in range(0, len(errors), _BLOCK):
        block = errors[start : start + _BLOCK, None]
        # R_t = C_t (R_0 + Σ 1 / C_{s-1}) with C the running product: the recursion without a Python loop.
        product = np.cumprod(1 + bets(tolerated) * (block - tolerated), axis=0)
        earlier = np.vstack([np.ones_like(after), product[:-1]])
        path = np.minimum(product * (after + np.cumsum(1 / earlier, axis=0)), _CAP)
        peak = max(peak, float(path.mean(axis=1).max()))
        after = path[-1]
    return after, peak


def change_point(errors: Floats, tolerated: float) -> int:
    """Where a higher error rate most likely began: the start of the most convincing suffix over all bets."""
    if not len(errors):
        return 0
    gains = np.log(1 + bets(tolerated) * (errors[:, None] - tolerated))
    suffixes = np.cumsum(gains[::-1], axis=0)[::-1]
    return int(np.unravel_index(int(np.argmax(suffixes)), suffixes.shape)[0])
