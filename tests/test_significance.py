"""Whether two methods differ: tests by pairs of repeats, their correction, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ddrank_core.leaderboard.significance import LEVEL, Sample, holm, kendall_tau, p_values

SEEDS = (11, 12, 13, 14, 15)


def one_p(one: Sample, other: Sample) -> float:
    (p,) = p_values([(one, other)])
    return p


def of(*values: float, seeds: tuple[int, ...] | None = None) -> Sample:
    return Sample(values=values, seeds=SEEDS[: len(values)] if seeds is None else seeds)


# -- two methods -------------------------------------------------------------------------------


def test_repeats_with_equal_seeds_are_paired():
    one, other = (0.31, 0.33, 0.30, 0.36, 0.34), (0.30, 0.31, 0.30, 0.33, 0.32)
    assert one_p(of(*one), of(*other)) == pytest.approx(stats.ttest_rel(one, other).pvalue, rel=1e-9)


def test_pairs_are_found_by_seed_and_not_by_place():
    one, other = of(0.31, 0.33, 0.30), of(0.30, 0.30, 0.31, seeds=(13, 11, 12))
    expected = stats.ttest_rel([0.31, 0.33, 0.30], [0.30, 0.31, 0.30]).pvalue
    assert one_p(one, other) == pytest.approx(expected, rel=1e-9)


def test_what_orders_two_sets_is_what_is_tested():
    # Three repeats are shared, and lower in the one that has the higher mean over all of its five.
    more, fewer = (0.500, 0.501, 0.502, 0.70, 0.70), (0.530, 0.5305, 0.5315)
    expected = stats.ttest_ind(more, fewer, equal_var=False).pvalue
    assert expected > 0.2
    assert one_p(of(*more), of(*fewer)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "seeds", [(), (21, 22, 23, 24), (11, 22, 23, 24)], ids=["unknown", "other", "one shared"]
)
def test_repeats_without_partners_are_compared_by_welchs_test(seeds: tuple[int, ...]):
    one, other = (0.31, 0.33, 0.30), (0.30, 0.34, 0.35, 0.39)
    expected = stats.ttest_ind(one, other, equal_var=False).pvalue
    assert one_p(of(*one), of(*other, seeds=seeds)) == pytest.approx(expected, rel=1e-9)


def test_a_single_repeat_never_makes_a_difference_significant():
    assert 1.0 == one_p(of(0.1), of(0.9)) == one_p(of(0.1), of(0.8, 0.9, seeds=(1, 2)))


def test_differences_without_spread_get_the_smallest_p_of_a_permutation_test():
    higher = of(0.4, 0.5, 0.6)
    assert one_p(higher, of(0.3, 0.4, 0.5)) == 2 / 2**3
    assert one_p(higher, higher) == 1.0
    # Of the 20 ways to split six values into threes, two are as extreme as these.
    assert one_p(of(0.4, 0.4, 0.4, seeds=()), of(0.3, 0.3, 0.3)) == 2 / 20


def test_holm_by_hand():
    # Sorted: 0.005 x 4 = 0.02; 0.011 x 3 = 0.033; 0.02 x 2 = 0.04; 0.04 x 1 = 0.04.
    assert holm([0.04, 0.005, 0.02, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    # 0.03 x 3 = 0.09 and then 0.04 x 2 = 0.08, which may not be less; 0.9 stays.
    assert holm([0.04, 0.9, 0.03]) == pytest.approx([0.09, 0.9, 0.09])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_kendalls_tau_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.integers(0, 6, 9).tolist(), rng.integers(0, 6, 9).tolist()
        assert kendall_tau(one, other) == pytest.approx(stats.kendalltau(one, other).statistic)
    assert kendall_tau([1.0], [2.0]) is None
    assert kendall_tau([1.0, 1.0], [1.0, 2.0]) is None


# -- calibration -------------------------------------------------------------------------------


def rejected(draws: np.ndarray, methods: int = 2) -> float:
    """Return how often equal methods, [simulations, repeats, methods], were called different."""
    tables_ = (of_columns(values) for values in draws)
    return sum(min(holm(p_values(pairs(table)))) <= LEVEL for table in tables_) / len(draws)


def of_columns(values: np.ndarray) -> list[Sample]:
    return [Sample(values=tuple(column), seeds=tuple(range(len(column)))) for column in values.T.tolist()]


def pairs(samples: list[Sample]) -> list[tuple[Sample, Sample]]:
    return [(a, b) for i, a in enumerate(samples) for b in samples[i + 1 :]]


def equal_methods(kind: str, simulations: int, n: int, methods: int) -> np.ndarray:
    """Return scores whose means are equal, with what the repeats of all methods share."""
    rng, shape = np.random.default_rng(n), (simulations, n, methods)
    shared = rng.normal(size=(simulations, n, 1))
    own = {
        "normal": lambda: rng.normal(size=shape),
        "heavy": lambda: rng.standard_t(3, size=shape),
        "skewed": lambda: rng.exponential(size=shape),
        "coarse": lambda: np.round(rng.normal(0, 1.5, size=shape)),
    }[kind]()
    return 0.3 + 0.01 * ((np.round(shared) if kind == "coarse" else shared) + own)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_equal_methods_are_called_different_in_at_most_5_of_100_tables(n: int):
    # 400 tables: a true rate of 5 % exceeds 8.5 % in fewer than 1 of 500 such tests.
    assert rejected(equal_methods("normal", 400, n, 4)) < 0.085


def test_the_percentile_bootstrap_would_call_them_different_three_times_as_often():
    rng = np.random.default_rng(1)
    scores = equal_methods("normal", 2000, 5, 2)
    differences = scores[..., 0] - scores[..., 1]
    means = differences @ rng.multinomial(5, [0.2] * 5, size=999).T / 5
    share_below = (means < 0).mean(axis=1)
    assert (2 * np.minimum(share_below, 1 - share_below) <= LEVEL).mean() > 0.12


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10, 20])
@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed", "coarse"])
@pytest.mark.parametrize("methods", [2, 8])
def test_no_kind_of_noise_makes_false_differences_frequent(kind: str, n: int, methods: int):
    # 4,000 tables: four standard errors of a rate of 5 % are 1.4 points.
    assert rejected(equal_methods(kind, 4000, n, methods)) < 0.05 + 0.014
