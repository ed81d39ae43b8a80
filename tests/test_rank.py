"""Ranking submissions: ties, rank intervals, and stability."""

from __future__ import annotations

import math

import attrs
import numpy as np
import pytest
from ranked_case import entry, run_of, submission
from scipy import stats

from ddrank_core.leaderboard.rank import agreement, agreements, leaders, parts, sample, tables, undefined


def test_the_score_of_a_repeat_is_that_of_the_run_itself():
    # IOR = HLR: the exponent is 0 at w = 0.5, and (1 - e^-1) / (e - e^-1) = 0.26894.
    found = sample(entry("a", lrs=[(0.2, 0.2), (0.1, 0.3)]).measured, "lrs", 0.5)
    expected = (math.exp(-0.1) - math.exp(-1)) / (math.e - math.exp(-1))
    assert found.values == pytest.approx((0.2689414, expected))
    augmented = {"syn-aug": [0.7], "rdm-aug": [0.6], "syn-naug": [0.5], "rdm-naug": [0.2]}
    expected = (math.exp(0.25 * 0.1 + 0.75 * 0.3) - math.exp(-1)) / (math.e - math.exp(-1))
    assert sample(run_of(augmented), "ars", 0.25).values == pytest.approx((expected,))
    assert parts(run_of(augmented), "ars") == [pytest.approx((0.1, 0.3))]


def test_a_row_is_tied_with_the_leader_of_its_group_until_one_differs():
    p = [[1, 0.5, 0.01, 0.2], [0.5, 1, 0.3, 0.4], [0.01, 0.3, 1, 0.6], [0.2, 0.4, 0.6, 1]]
    # The last does not differ from the first either, and yet belongs to the group above it.
    assert leaders(p) == [0, 0, 2, 2]
    assert leaders([]) == []


def test_a_table_by_hand():
    wave, other_wave = np.array([0.01, -0.01, 0.02, -0.02, 0.0]), np.array([0.02, 0.0, -0.03, 0.0, 0.01])
    entries = [
        entry("third", ars=0.1 + wave + 0.001 * other_wave),
        entry("first", ars=0.4 + wave),
        entry("second", ars=0.39 + wave + other_wave),
    ]
    (table,) = tables(entries, "ars", 0.0)
    rows = {row.entry.submission.method: row for row in table.rows}
    assert list(rows) == ["first", "second", "third"]
    assert [(row.place, row.rank, row.tied) for row in table.rows] == [
        (1, 1, True),
        (2, 1, True),
        (3, 3, False),
    ]
    assert [(row.lowest, row.highest) for row in table.rows] == [(1, 2), (1, 2), (3, 3)]
    scores = [row.sample.values for row in table.rows]
    raw = [stats.ttest_rel(scores[i], scores[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    # 0-2 has the smallest p, 1-2 the next, 0-1 the largest.
    assert raw[1] < raw[2] < raw[0]
    assert table.p_values[0][2] == pytest.approx(3 * raw[1])
    assert table.p_values[1][2] == table.p_values[2][1] == pytest.approx(2 * raw[2])
    assert table.p_values[0][1] == pytest.approx(raw[0])
    first = rows["first"]
    half = stats.t.ppf(0.975, 4) * np.std(first.sample.values, ddof=1) / math.sqrt(5)
    assert (first.mean, first.ci95) == pytest.approx((np.mean(first.sample.values), half))


def test_equal_methods_share_the_first_rank_and_can_have_any():
    (table,) = tables([entry(name, ars=[0.1, 0.2, 0.3]) for name in "cab"], "ars", 0.0)
    assert [(row.entry.submission.method, row.rank) for row in table.rows] == [("a", 1), ("b", 1), ("c", 1)]
    assert {(row.lowest, row.highest) for row in table.rows} == {(1, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_all_rank_intervals_of_a_table_hold_together(n: int):
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(500):
        scores = rng.normal(size=(n, 6)) + rng.normal(size=(n, 1)) - 0.3 * np.arange(6)
        entries = [entry(f"m{i}", ars=column) for i, column in enumerate((0.3 + 0.01 * scores).T.tolist())]
        (table,) = tables(entries, "ars", 0.0)
        true = {row.entry.submission.method: 1 + int(row.entry.submission.method[1:]) for row in table.rows}
        held += all(row.lowest <= true[row.entry.submission.method] <= row.highest for row in table.rows)
    assert held / 500 > 0.95 - 0.03


def test_only_what_can_be_compared_shares_a_table():
    own = entry("a", lrs=[(0.1, 0.1)])
    other_protocol = attrs.evolve(own.measured, protocol="ddranking-0.2 1")
    entries = [
        own,
        attrs.evolve(own, track="fixed"),
        attrs.evolve(own, student="mlp"),
        attrs.evolve(own, submission=submission("a", ipc=10)),
        attrs.evolve(own, submission=submission("a", "mnist")),
        attrs.evolve(own, measured=other_protocol),
    ]
    found = tables(entries)
    assert len(found) == 6
    assert all(len(table.rows) == 1 for table in found)
    # Track and student each differ alone from the first; no other pair does.
    assert [(one.one.track, one.other.track, one.common) for one in agreements(found)] == [
        ("fixed", "own", 1),
        ("own", "own", 1),
    ]


def test_a_run_without_the_score_is_listed_with_its_reason():
    good = entry("good", lrs=[(0.1, 0.1), (0.2, 0.1)])
    diverged = attrs.evolve(
        good, measured=attrs.evolve(good.measured, arms={**good.measured.arms, "rdm-any": (0.5, None)})
    )
    assert undefined(diverged.measured, "lrs") == "rdm-any: 1 of 2 repeats without accuracy"
    assert undefined(good.measured, "ars") == "not measured: syn-aug"
    (table,) = tables([good, attrs.evolve(diverged, submission=submission("bad"))])
    assert [row.entry.submission.method for row in table.rows] == ["good"]
    assert [(e.submission.method, why) for e, why in table.unranked] == [
        ("bad", "rdm-any: 1 of 2 repeats without accuracy")
    ]


def test_accuracy_per_byte_counts_images_labels_and_teacher():
    (table,) = tables([entry("a", lrs=[(0.1, 0.1), (0.3, 0.1)], teacher_bytes=976)])
    (row,) = table.rows
    assert (row.bytes, row.accuracy) == (2000, pytest.approx(0.7))
    assert row.accuracy_per_byte == pytest.approx(0.00035)


def test_an_accuracy_is_none_where_a_repeat_has_none():
    arms = dict.fromkeys(("syn-naug", "rdm-aug", "rdm-naug", "syn-aug"), (0.5, 0.5))
    lost = attrs.evolve(entry("a", ars=[0.1, 0.2]), measured=run_of({**arms, "syn-any": (0.5, None)}))
    (table,) = tables([lost], "ars")
    assert [(row.accuracy, row.accuracy_per_byte) for row in table.rows] == [(None, None)]


def test_a_record_of_absurd_size_is_listed_with_its_reason_and_the_others_are_ranked():
    absurd = entry("absurd", lrs=[(0.1, 0.1)], image_bytes=1 << 20_000)
    (table,) = tables([absurd, entry("good", lrs=[(0.1, 0.1)])])
    assert [row.entry.submission.method for row in table.rows] == ["good"]
    assert [why for _, why in table.unranked] == ["its record states images of more than 1 PiB"]


def test_means_that_differ_by_a_rounding_error_are_in_the_order_of_their_names():
    # Both differ by 0.2, but not as floats.
    assert 0.6 - 0.4 < 0.3 - 0.1
    runs = {
        name: run_of({"full-hard": [0.5], "syn-hard": [0.5], "syn-any": [high], "rdm-any": [low]})
        for name, high, low in (("a", 0.6, 0.4), ("b", 0.3, 0.1))
    }
    entries = [attrs.evolve(entry(name, lrs=[(0, 0)]), measured=run) for name, run in runs.items()]
    (table,) = tables(entries)
    assert table.rows[0].mean < table.rows[1].mean
    assert [row.entry.submission.method for row in table.rows] == ["a", "b"]
    assert {tau for _, tau in table.stability.taus} == {None}
    assert [reign.slug for reign in table.stability.reigns] == ["a/digits-ipc1"]


def test_a_row_names_the_controls_that_are_significantly_worse():
    noisy = np.array([0.01, -0.01, 0.02, -0.02, 0.0])
    controls = {
        "noise": entry("x", ars=-0.3 + noisy).measured,
        "random": entry("x", ars=0.2 - noisy).measured,
        "herding": entry("x", ars=0.5 + noisy).measured,
        "k-means": entry("x", lrs=[(0.1, 0.1)]).measured,
    }
    (table,) = tables([entry("a", ars=0.2 + 1.1 * noisy, controls=controls)], "ars", 0.0)
    assert table.rows[0].beats == ("noise",)


def test_the_first_place_changes_where_the_curves_cross():
    # Exponents 0.4 w - 0.2 and 0.15 w - 0.05 are equal at w = 0.6.
    entries = [entry("late", lrs=[(0.2, 0.2)] * 2), entry("early", lrs=[(0.1, 0.05)] * 2)]
    (table,) = tables(entries, weight=0.5)
    reigns = table.stability.reigns
    assert [reign.slug for reign in reigns] == ["early/digits-ipc1", "late/digits-ipc1"]
    ends = [(reign.start, reign.end) for reign in reigns]
    assert ends == [(0.0, pytest.approx(0.6, abs=1e-8)), (pytest.approx(0.6, abs=1e-8), 1.0)]
    taus = {weight: tau for weight, tau in table.stability.taus if weight != 0.6}
    assert taus == {weight: 1.0 if weight < 0.6 else -1.0 for weight in taus}
    assert (len(taus), min(taus), max(taus)) == (20, 0.0, 1.0)


def test_two_tables_agree_by_kendalls_tau_over_the_methods_that_both_have():
    one = [0.1, 0.2, 0.3, 0.4]
    other = [0.2, 0.1, 0.5, 0.4]
    own = [entry(f"m{i}", lrs=[(value, 0.1)] * 2) for i, value in enumerate(one)]
    fixed = [entry(f"m{i}", lrs=[(value, 0.1)] * 2, track="fixed") for i, value in enumerate(other)]
    found = tables([*own, *fixed, entry("alone", lrs=[(0.9, 0.1)] * 2)])
    result = agreement(*found)
    assert (result.common, result.tau) == (4, pytest.approx(stats.kendalltau(one, other).statistic))
