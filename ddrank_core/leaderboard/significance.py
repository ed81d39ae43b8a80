"""Whether two distilled sets differ: a paired test over repeats, and Holm's correction over a table's pairs.

The test is Student's t on the differences of paired repeats, not a bootstrap of them. A run has five repeats
or so, and resampling five numbers understates their spread. Of 20,000 pairs of equal methods, so many % were
called different at the level of 5 % (`benchmarks/significance.py`; bootstraps with 1,999 resamples):

    differences   n   Student t   percentile    BCa   studentised   sign flips
    normal        3         4.9         24.9   31.2           0.0          0.0
    normal        5         4.8         16.0   15.5           2.1          0.0
    normal       10         5.3          9.6   10.0           4.1          5.1
    normal       20         4.8          6.8    7.0           4.4          4.8
    uniform       5         6.6         15.3   13.3           3.1          0.0
    t, 3 d.f.     5         3.4         16.6   17.8           1.4          0.0
    coarse        5         4.5         13.9   12.0           1.0          0.0
    exponential   5        11.6         21.0   19.0           5.5          0.0

Only t keeps near its level at 3 and 5 repeats and can still find a difference: flipping signs never gives
less than 2 / 2^n, and the studentised bootstrap of three repeats nothing at all. Where the differences are
very skewed (exponential), t is too lenient as well, as the percentile and BCa bootstraps are even more; the
differences of two methods whose repeats spread alike are symmetric. "Coarse" are whole test images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from ddrank_core.engine.score import mean_and_std

LEVEL = 0.05
"""Of the whole table: the chance that it calls any two equal methods different."""
_NO_SPREAD = 1e-12
"""Standard deviations below this are rounding errors."""


@attrs.frozen(kw_only=True)
class Sample:
    """A score by repeat."""

    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    """By repeat; empty where unknown."""

    @property
    def mean(self) -> float:
        return mean_and_std(self.values)[0]


@attrs.frozen
class _Statistic:
    """A t statistic, or the p-value itself where there is no spread to divide by."""

    t: float = 0.0
    freedom: float = 1.0
    p: float | None = None


def p_values(pairs: Iterable[tuple[Sample, Sample]]) -> list[float]:
    """Return the two-sided p-value of each pair: how often equal methods would differ as much.

    It is of the two distilled sets: repeats train other networks on the same images, so that nothing is said
    of what a method would reach with another seed of its own.

    Repeats with the same seed are paired: they start from the same weights and, under equal recipes, compare
    with the same random images. Where the two do not have the same seeds, or seeds are unknown, Welch's t for
    unpaired samples is used, which errs on the side of a tie if they go together nevertheless: the means that
    order a table are of all repeats, so the test must be too. A full-data accuracy that is given, not
    measured, is a constant: no p-value holds its error.

    With a single repeat nothing is known of the spread, and p is 1. Differences without spread leave what
    needs none: the permutation test, at its smallest p, or 1 if they are zero.
    """
    # Student's distribution function; scipy.stats takes half a second to import.
    from scipy.special import stdtr

    statistics = [_statistic(one, other) for one, other in pairs]
    tails = stdtr([s.freedom for s in statistics], [-abs(s.t) for s in statistics])
    return [2 * float(tail) if s.p is None else s.p for s, tail in zip(statistics, tails, strict=True)]


def _statistic(one: Sample, other: Sample) -> _Statistic:
    differences = _paired(one, other)
    return _welch(one.values, other.values) if differences is None else _student(differences)


def _paired(one: Sample, other: Sample) -> list[float] | None:
    """Return the differences of repeats with equal seeds; None where the two do not have the same seeds."""
    if not one.seeds or sorted(one.seeds) != sorted(other.seeds):
        return None
    of_other = dict(zip(other.seeds, other.values, strict=True))
    return [value - of_other[seed] for seed, value in zip(one.seeds, one.values, strict=True)]


def _student(differences: Sequence[float]) -> _Statistic:
    n = len(differences)
    mean, std = mean_and_std(differences)
    if std is None:
        return _Statistic(p=1.0)
    if std < _NO_SPREAD:
        return _Statistic(p=_permuted(mean, 2 / 2**n))
    return _Statistic(mean / (std / math.sqrt(n)), n - 1)


def _welch(one: Sequence[float], other: Sequence[float]) -> _Statistic:
    (mean, std), (other_mean, other_std) = mean_and_std(one), mean_and_std(other)
    if std is None or other_std is None:
        return _Statistic(p=1.0)
    if max(std, other_std) < _NO_SPREAD:
        return _Statistic(p=_permuted(mean - other_mean, 2 / math.comb(len(one) + len(other), len(one))))
    parts = std**2 / len(one), other_std**2 / len(other)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(other) - 1))
    return _Statistic((mean - other_mean) / math.sqrt(sum(parts)), freedom)


def _permuted(difference: float, smallest: float) -> float:
    return 1.0 if abs(difference) < _NO_SPREAD else smallest


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p), 0.0
    for tried, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - tried) * p[index]))
        corrected[index] = largest
    return corrected


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two lists of scores: 1 for the same order, -1 for the reverse.

    None where either has no order: fewer than two methods, or all equal.
    """
    import numpy as np

    upper = np.triu_indices(len(one), 1)
    a, b = (np.sign(np.subtract.outer(values, values))[upper] for values in (one, other))
    untied = np.count_nonzero(a) * np.count_nonzero(b)
    return float((a * b).sum() / math.sqrt(untied)) if untied else None
