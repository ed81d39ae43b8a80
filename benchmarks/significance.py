"""Measure how often tests call equal methods different, and how often rank intervals hold the true rank.

    python benchmarks/significance.py                # one minute of CPU time

The first table is the one in `ddrank_core/leaderboard/significance.py`, the second that of `rank.py`. The
draws have a fixed seed; no figure is a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ddrank_core.leaderboard.significance import LEVEL, Sample, holm, p_values

Array = NDArray[np.float64]
NULLS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, size=shape),
    "t, 3 d.f.": lambda rng, shape: rng.standard_t(3, size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    # Differences of two accuracies in whole test images.
    "coarse": lambda rng, shape: np.round(rng.normal(0, 1.2, shape)) - np.round(rng.normal(0, 1.2, shape)),
}
REPEATS = (3, 5, 10, 20)
CHUNK = 2000
TINY = 1e-12


def ours(differences: Array) -> Array:
    """Return whether each row of differences [S, n] is called significant by the ranking's own test."""
    seeds = tuple(range(differences.shape[1]))
    zero = Sample(values=(0.0,) * len(seeds), seeds=seeds)
    pairs = ((Sample(values=tuple(row), seeds=seeds), zero) for row in differences.tolist())
    return np.array(p_values(pairs)) <= LEVEL


def percentile(differences: Array, means: Array, _: Array) -> Array:
    below, above = (means <= TINY).mean(1), (means >= -TINY).mean(1)
    return 2 * np.minimum(below, above) <= LEVEL


def bca(differences: Array, means: Array, _: Array) -> Array:
    """Efron's bias-corrected and accelerated interval: significant where it leaves out zero."""
    n, count = differences.shape[1], means.shape[1]
    mean = differences.mean(1, keepdims=True)
    share = (means < mean).mean(1) + 0.5 * (means == mean).mean(1)
    bias = stats.norm.ppf(np.clip(share, 1 / count, 1 - 1 / count))
    left_out = mean - (n * mean - differences) / (n - 1)
    spread = (left_out**2).sum(1) ** 1.5
    acceleration = np.divide((left_out**3).sum(1), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
    ordered = np.sort(means, axis=1)

    def end(z: float) -> Array:
        at = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        return ordered[np.arange(len(ordered)), np.clip((at * count).astype(int), 0, count - 1)]

    return (end(stats.norm.ppf(LEVEL / 2)) > TINY) | (end(stats.norm.ppf(1 - LEVEL / 2)) < -TINY)


def studentised(differences: Array, means: Array, variances: Array) -> Array:
    """The symmetric bootstrap-t; a resample without spread counts as infinitely far out."""
    n, mean = differences.shape[1], differences.mean(1, keepdims=True)
    own = differences.std(1, ddof=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(means - mean) / np.sqrt(variances / n)
        observed = np.nan_to_num(np.abs(mean) / (own / np.sqrt(n)))
    far[variances < TINY] = np.inf
    return ((far >= observed).sum(1) + 1) / (means.shape[1] + 1) <= LEVEL


def sign_flips(differences: Array, signs: Array) -> Array:
    flipped = np.abs(differences @ signs.T) / differences.shape[1]
    return (flipped >= np.abs(differences.mean(1, keepdims=True)) - TINY).mean(1) <= LEVEL


def all_signs(rng: np.random.Generator, n: int) -> Array:
    if n > 10:
        return rng.choice([-1.0, 1.0], size=(1999, n))
    return np.array(np.meshgrid(*[[-1.0, 1.0]] * n)).reshape(n, -1).T


def false_differences(simulations: int, resamples: int) -> None:
    """Print the first table: % of equal methods called different, by test."""
    rng = np.random.default_rng(0)
    tests = ("Student t", "percentile", "BCa", "studentised", "sign flips")
    print(f"{'differences':<12} {'n':>3}", *(f"{test:>12}" for test in tests))
    for n in REPEATS:
        for name, draw in NULLS.items():
            differences = draw(rng, (simulations, n))
            weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
            signs, rates = all_signs(rng, n), []
            for part in np.array_split(differences, max(1, simulations // CHUNK)):
                means = part @ weights.T
                variances = np.maximum(part**2 @ weights.T - means**2, 0) * n / (n - 1)
                calls = [test(part, means, variances) for test in (percentile, bca, studentised)]
                rates.append([call.mean() for call in (ours(part), *calls, sign_flips(part, signs))])
            print(f"{name:<12} {n:>3}", *(f"{100 * rate:>12.1f}" for rate in np.mean(rates, axis=0)))


def rank_intervals(simulations: int, resamples: int, methods: int) -> None:
    """Print the second table: % of true ranks in their interval, and % of tables with all of them."""
    rng = np.random.default_rng(1)
    pairs, true = list(combinations(range(methods), 2)), np.arange(1, methods + 1)
    print(f"\n{'apart':>6} {'n':>3} {'bootstrap: each':>16} {'all':>6} {'pairwise: each':>15} {'all':>6}")
    for n in REPEATS:
        for apart in (0.001, 0.5, 2.0):
            held: dict[str, list[NDArray[np.bool_]]] = {"bootstrap": [], "pairwise": []}
            for _ in range(simulations):
                scores = rng.normal(size=(n, methods)) + rng.normal(size=(n, 1)) - apart * np.arange(methods)
                held["pairwise"].append(_pairwise(scores, pairs, true))
                means = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n @ scores
                ranks = methods - np.argsort(np.argsort(means, axis=1), axis=1)
                low, high = np.quantile(ranks, [LEVEL / 2, 1 - LEVEL / 2], axis=0, method="nearest")
                held["bootstrap"].append((low <= true) & (true <= high))
            each = {name: 100 * np.mean(found) for name, found in held.items()}
            whole = {name: 100 * np.mean([found.all() for found in each_]) for name, each_ in held.items()}
            print(
                f"{apart:>6} {n:>3} {each['bootstrap']:>16.1f} {whole['bootstrap']:>6.1f} "
                f"{each['pairwise']:>15.1f} {whole['pairwise']:>6.1f}"
            )


def _pairwise(scores: Array, pairs: list[tuple[int, int]], true: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each method's true rank is in the interval that the ranking would give it."""
    seeds = tuple(range(len(scores)))
    samples = [Sample(values=tuple(column), seeds=seeds) for column in scores.T.tolist()]
    low, high = np.ones(len(samples), dtype=int), np.full(len(samples), len(samples))
    for (i, j), p in zip(pairs, holm(p_values((samples[i], samples[j]) for i, j in pairs)), strict=True):
        if p <= LEVEL:
            better, worse = (i, j) if samples[i].mean > samples[j].mean else (j, i)
            low[worse] += 1
            high[better] -= 1
    return (low <= true) & (true <= high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=20_000, help="pairs of equal methods per line")
    parser.add_argument("--resamples", type=int, default=1999)
    arguments = parser.parse_args()
    false_differences(arguments.simulations, arguments.resamples)
    rank_intervals(arguments.simulations // 20, arguments.resamples // 2, methods=10)


if __name__ == "__main__":
    main()
