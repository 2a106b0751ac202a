"""Exact confidence intervals for shares and for paired differences of shares.

`tail` is everywhere the probability, at most, with which one end of an interval misses the truth.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import special

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]

NUISANCE_SHARE = 0.02
"""Part of the tail spent on bounding the share of rows on which the two models differ."""
GRID = 48
"""Points at which that share is tried; between them the probability moves by well under `MARGIN`."""
MARGIN = 1.01
PRECISION = 1e-3
"""Of an end of a difference, relative to its distance from the estimate, always on the wide side."""
MASS = 6.5
"""Standard deviations around its mean beyond which a binomial count is not summed over."""


def share(hits: int, rows: int, tail: float) -> Interval:
    """Return the Clopper–Pearson interval of a share.

    Source: Clopper & Pearson (1934); equal to `scipy.stats.binomtest(hits, rows).proportion_ci(1 - 2 * tail)`.
    """
    low = special.betaincinv(hits, rows - hits + 1, tail) if hits else 0.0
    high = special.betaincinv(hits + 1, rows - hits, 1 - tail) if hits < rows else 1.0
    return float(low), float(high)


def difference(gained: int, lost: int, rows: int, tail: float) -> Interval:
    """Return the interval of the difference of two shares measured on the same rows.

    Only rows on which exactly one of the two models is correct distinguish them: `gained` of them for the first model,
    `lost` for the second. The probability of a table at least as extreme is summed exactly over the trinomial
    distribution. The nuisance parameter, the share of such rows, is maximized out over its own confidence interval.

    Sources: Buehler (1957) and Lloyd & Moldovan (2007, Statistics in Medicine 26) for exact limits of a paired
    difference by ordering tables with an approximate limit; that limit is Bonett & Price's (2012); Berger & Boos
    (1994) for the restricted nuisance parameter.

    Args:
        gained: rows on which only the first model is correct.
        lost: rows on which only the second model is correct.
        rows: all rows, at least 1.
        tail: per end.
    """
    return _lower(gained, lost, rows, tail), -_lower(lost, gained, rows, tail)


def _lower(gained: int, lost: int, rows: int, tail: float) -> float:
    """The largest difference at and below which the table is improbable: bisection, as the probability only grows."""
    spent, z = tail * NUISANCE_SHARE, -float(special.ndtri(tail))
    discordant = share(gained + lost, rows, spent / 2)
    favourable = _FavourableTables(gained, lost, rows, z)

    def probable(difference: float) -> bool:
        return favourable.probability(difference, discordant) * MARGIN + spent > tail

    estimate = (gained - lost) / rows
    low, high = _limit(gained, lost, rows, z) / (rows + 2), estimate
    while low > -1 and probable(low):
        low, high = max(-1.0, 2 * low - estimate - 1 / rows), low
    low = max(-1.0, low)
    while high - low > PRECISION * (estimate - low):
        middle = (low + high) / 2
        low, high = (low, middle) if probable(middle) else (middle, high)
    return low


class _FavourableTables:
    """The tables at least as much in favour of the first as the one observed, as a threshold on `gained` per `lost`."""

    def __init__(self, gained: int, lost: int, rows: int, z: float) -> None:
        self._rows = rows
        least = _least_gained(np.arange(rows + 1, dtype=np.float64), _limit(gained, lost, rows, z), rows, z)
        # More gained or less lost is never less in favour: only then is the probability monotone in the difference.
        self._least = np.minimum.accumulate(least[::-1])[::-1]
        self._least[: lost + 1] = np.minimum(self._least[: lost + 1], gained)

    def probability(self, difference: float, discordant: Interval) -> float:
        """Return the probability of such a table when `difference` is true: the largest over discordant shares."""
        smallest, largest = max(discordant[0], abs(difference)), max(discordant[1], abs(difference))
        shares = np.linspace(math.sqrt(smallest), math.sqrt(largest), GRID) ** 2
        losing = np.clip((shares - difference) / 2, 0.0, 1.0)
        first, last = self._range(losing.min(), losing.max())
        lost = np.arange(first, last + 1, dtype=np.float64)
        gaining = np.clip((shares + difference) / 2, 0.0, 1.0)
        rest = np.divide(gaining, 1 - losing, out=np.ones_like(gaining), where=losing < 1).clip(0.0, 1.0)
        most = _at_least(self._least[first : last + 1], self._rows - lost, rest[:, None])
        return float((_binomial(lost, self._rows, losing[:, None]) * most).sum(axis=1).max())

    def _range(self, smallest: float, largest: float) -> tuple[int, int]:
        def reach(share: float) -> float:
            return MASS * math.sqrt(self._rows * share * (1 - share)) + MASS**2

        first = int(self._rows * smallest - reach(smallest))
        last = math.ceil(self._rows * largest + reach(largest))
        return max(0, first), min(self._rows, last)


def _limit(gained: int, lost: int, rows: int, z: float) -> float:
    """Bonett & Price's approximate lower limit times (rows + 2): Wald's with one row more in each discordant cell."""
    d = gained - lost
    return d - z * math.sqrt(gained + lost + 2 - d * d / (rows + 2))


def _least_gained(lost: Floats, limit: float, rows: int, z: float) -> Floats:
    """The smallest `gained` per `lost` whose approximate limit is at least `limit`: a quadratic in their difference."""
    m = rows + 2
    a, b = 1 + z * z / m, 2 * limit + z * z
    c = limit * limit - 2 * z * z * (lost + 1)
    d = (b + np.sqrt(np.maximum(b * b - 4 * a * c, 0.0))) / (2 * a)
    return np.asarray(np.clip(np.ceil(d + lost - 1e-7), 0, rows + 1))


def _binomial(count: Floats, rows: int, share: Floats) -> Floats:
    ways = special.gammaln(rows + 1) - special.gammaln(count + 1) - special.gammaln(rows - count + 1)
    return np.asarray(np.exp(ways + special.xlogy(count, share) + special.xlog1py(rows - count, -share)))


def _at_least(least: Floats, rows: Floats, share: Floats) -> Floats:
    """P(count ≥ least) of a binomial count."""
    possible = np.where((least >= 1) & (least <= rows), least, 1.0)
    tail = special.betainc(possible, np.maximum(rows - possible + 1, 1.0), share)
    return np.asarray(np.where(least <= 0, 1.0, np.where(least > rows, 0.0, tail)))
