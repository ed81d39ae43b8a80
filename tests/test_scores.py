"""Scores, by hand."""

import math

import attrs
import pytest

from ddrank_core.engine.score import (
    augmentation_robust_score,
    ci95,
    label_robust_score,
    mean_and_std,
    score_all,
    summarise,
    summarise_arm,
)


@attrs.frozen
class Weights:
    lrs: float = 0.5
    ars: float = 0.5


@attrs.frozen
class Config:
    """The two fields of a run config that scoring reads."""

    scores: tuple[str, ...] = ("hlr", "ior", "ior_hlr", "lrs", "ars")
    weights: Weights = Weights()


def arms(**accuracies):
    return {
        name.replace("_", "-"): summarise_arm(name.replace("_", "-"), values, [0.01] * len(values))
        for name, values in accuracies.items()
    }


HAND = arms(
    full_hard=[0.90, 0.92],
    syn_hard=[0.50, 0.52],
    syn_any=[0.60, 0.64],
    rdm_any=[0.50, 0.50],
    syn_aug=[0.60, 0.64],
    rdm_aug=[0.50, 0.50],
    syn_naug=[0.40, 0.44],
    rdm_naug=[0.42, 0.40],
)


def test_scores_of_a_hand_worked_case():
    found = score_all(Config(), HAND)

    # HLR: 0.90 - 0.50 and 0.92 - 0.52. IOR: 0.60 - 0.50 and 0.64 - 0.50.
    assert found["hlr"].values == pytest.approx([0.40, 0.40])
    assert found["ior"].values == pytest.approx([0.10, 0.14])
    assert found["ior_hlr"].values == pytest.approx([0.25, 0.35])
    # a = 0.5 * 0.10 - 0.5 * 0.40 = -0.15: (0.860708 - 0.367879) / 2.350402 = 0.209679
    # a = 0.5 * 0.14 - 0.5 * 0.40 = -0.13: (0.878095 - 0.367879) / 2.350402 = 0.217076
    assert found["lrs"].values == pytest.approx([0.209679, 0.217076], abs=1e-6)
    # b = 0.5 * 0.10 + 0.5 * -0.02 = 0.04: (1.040811 - 0.367879) / 2.350402 = 0.286305
    # b = 0.5 * 0.14 + 0.5 * 0.04 = 0.09: (1.094174 - 0.367879) / 2.350402 = 0.309009
    assert found["ars"].values == pytest.approx([0.286305, 0.309009], abs=1e-6)
    assert found["ior"].mean == pytest.approx(0.12)
    # Two values 0.04 apart: sample deviation 0.04 / sqrt(2); t(0.975, 1) = 12.7062.
    assert found["ior"].std == pytest.approx(0.04 / math.sqrt(2))
    assert found["ior"].ci95 == pytest.approx(12.7062 * 0.02, rel=1e-4)
    assert found["ior"].n == 2


def test_the_combined_scores_are_0_and_1_at_their_ends():
    assert label_robust_score(ior=1.0, hlr=0.0, weight=1.0) == pytest.approx(1.0)
    assert label_robust_score(ior=0.0, hlr=1.0, weight=0.0) == pytest.approx(0.0)
    assert augmentation_robust_score(1.0, 1.0, 0.3) == pytest.approx(1.0)
    assert augmentation_robust_score(-1.0, -1.0, 0.3) == pytest.approx(0.0)


def test_the_weight_moves_lrs_between_its_two_parts():
    only_ior = score_all(Config(weights=Weights(lrs=1.0)), HAND)["lrs"].values[0]
    only_hlr = score_all(Config(weights=Weights(lrs=0.0)), HAND)["lrs"].values[0]

    assert only_ior == pytest.approx((math.exp(0.10) - math.exp(-1)) / (math.e - math.exp(-1)))
    assert only_hlr == pytest.approx((math.exp(-0.40) - math.exp(-1)) / (math.e - math.exp(-1)))


def test_accuracies_are_fractions_so_the_scores_stay_in_the_unit_interval():
    for syn in (0.0, 0.3, 1.0):
        for random in (0.0, 0.7, 1.0):
            case = arms(full_hard=[1.0], syn_hard=[0.0], syn_any=[syn], rdm_any=[random])
            assert 0 <= score_all(Config(scores=("lrs",)), case)["lrs"].mean <= 1


@pytest.mark.parametrize("syn_hard", [[0.90, 0.5], [0.95, 0.5]])
def test_the_ratio_is_undefined_where_hlr_is_zero_or_negative(syn_hard):
    case = {**HAND, **arms(syn_hard=syn_hard)}

    ratio = score_all(Config(scores=("ior_hlr",)), case)["ior_hlr"]

    assert ratio.mean is None
    assert ratio.std is None
    assert ratio.reason == (
        "HLR is zero or negative in 1 of 2 repeats, where a ratio has no meaning as a rank"
    )


def test_a_diverged_trial_makes_its_scores_undefined_and_leaves_the_others():
    case = {**HAND, **arms(rdm_any=[None, 0.5])}

    found = score_all(Config(), case)

    assert case["rdm-any"].mean == 0.5
    assert case["rdm-any"].n == 1
    assert case["rdm-any"].diverged == 1
    assert found["ior"].mean is None
    assert found["ior"].reason == "selected trials diverged: 1 of 2 of rdm-any"
    assert found["lrs"].mean is None
    assert found["hlr"].mean == pytest.approx(0.40)
    assert found["ars"].mean is not None


def test_the_interval_agrees_with_scipy():
    from scipy import stats

    values = [0.31, 0.36, 0.29, 0.33, 0.35]
    low, high = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))

    found = summarise("x", values)

    assert found.mean - found.ci95 == pytest.approx(low)
    assert found.mean + found.ci95 == pytest.approx(high)


def test_one_repeat_has_a_mean_and_no_deviation():
    assert mean_and_std([0.5]) == (0.5, None)
    assert ci95(None, 1) is None
