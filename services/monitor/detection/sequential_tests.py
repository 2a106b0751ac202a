"""Sequential tests: the evidence behind an alarm, as pure functions of arrays.

Every alarm threshold is an average run length. E-values that are accumulated by the Shiryaev–Roberts recursion raise at
most one false alarm in A windows (or labels) on average, for any dependence between columns (Shin, Ramdas and Rinaldo:
e-detectors).
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc, gammaln, xlogy

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

SMALL_CELL = 5.0
"""Expected rows below which the chi² approximation does not hold; such cells are pooled."""
BETS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7])
"""Sizes of the bets against the tolerated error rate, as shares of the largest bet that cannot go bankrupt."""
_CAP = 1e200
_BLOCK = 32


def noncentral_chi2_sf(statistic: float, df: int, nc: float) -> float:
    """Return the upper tail of the noncentral chi² distribution: P(X > `statistic`), with full relative accuracy.

    It is a mixture of central chi² tails with Poisson weights (Johnson, Kotz and Balakrishnan, chapter 29).
    `scipy.stats.ncx2.sf` gives the same values, but importing scipy.stats takes four times the memory of scipy.special.

    Args:
        statistic: the observed value.
        df: degrees of freedom.
        nc: noncentrality; 0 is the central chi² distribution.
    """
    largest_term = max(nc, math.sqrt(nc * max(statistic, 0.0))) / 2
    k = np.arange(int(largest_term + 10 * math.sqrt(largest_term) + 30) if nc > 0 else 1)
    weights = np.exp(xlogy(k, nc / 2) - nc / 2 - gammaln(k + 1))
    return min(1.0, float(weights @ gammaincc(df / 2 + k, max(statistic, 0.0) / 2)))


def drift_p_values(reference: Counts, window: Counts, tolerance: float) -> Floats:
    """Return, per column, the p-value of the hypothesis that its drift is at most `tolerance`.

    Args:
        reference: (columns, bins) rows per bin in the training data.
        window: (columns, bins) rows per bin in the window.
        tolerance: the largest tolerated drift as Cohen's w.
    """
    return np.array([_column_p(ref, now, tolerance) for ref, now in zip(reference, window, strict=True)])


def _column_p(reference: Counts, window: Counts, tolerance: float) -> float:
    n, m = int(reference.sum()), int(window.sum())
    if not n or not m:
        return 1.0
    before, now = _pool_small_cells(reference, window, n, m)
    if len(before) < 2:
        return 1.0
    n_eff = n * m / (n + m)
    share = (before + now) / (n + m)
    statistic = n_eff * float(np.sum((before / n - now / m) ** 2 / share))
    return noncentral_chi2_sf(statistic, len(before) - 1, n_eff * tolerance**2)


def _pool_small_cells(reference: Counts, window: Counts, n: int, m: int) -> tuple[Floats, Floats]:
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
    """Turn p-values into e-values, whose mean is at most 1 under the null: the integral of κp^(κ-1) over κ."""
    p = np.clip(p, 1e-100, 1.0)
    log = np.log(np.minimum(p, 1 - 1e-6))
    clipped = np.exp(log)
    return np.asarray((1 - clipped + clipped * log) / (clipped * log**2), dtype=np.float64)


def shiryaev_roberts(before: float, e: float) -> float:
    """Add the e-value of one more window to the evidence of the windows before it."""
    return min(_CAP, (1 + before) * e)


def culprits(p: Floats, rate: float = 0.05) -> list[int]:
    """Return the columns that drifted at false discovery rate `rate` (Benjamini–Hochberg), smallest p-value first."""
    order = np.argsort(p, kind="stable")
    passing = np.nonzero(p[order] <= rate * np.arange(1, len(p) + 1) / len(p))[0]
    return [int(column) for column in order[: passing[-1] + 1]] if len(passing) else []


def bets(tolerated: float) -> Floats:
    """Return the λ grid against an error rate of at most `tolerated`."""
    return np.asarray(BETS / max(tolerated, 1e-3), dtype=np.float64)


def e_detector(before: Floats, errors: Floats, tolerated: float) -> tuple[Floats, float]:
    """Update the evidence that the error rate exceeds `tolerated` (Shiryaev–Roberts, one statistic R per bet λ).

    Args:
        before: R per λ before these errors.
        errors: 0 or 1 per label, in the order in which the labels arrived.
        tolerated: the largest tolerated error rate.

    Returns:
        The new R per λ, and the largest mean over λ after any of the labels.
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
    """Return the index at which a higher error rate most likely began: the start of the suffix with most evidence."""
    if not len(errors):
        return 0
    gains = np.log(1 + bets(tolerated) * (errors[:, None] - tolerated))
    suffixes = np.cumsum(gains[::-1], axis=0)[::-1]
    return int(np.unravel_index(int(np.argmax(suffixes)), suffixes.shape)[0])
