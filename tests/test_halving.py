"""The search that drops learning rates on the way: what it trains, what it chooses."""

from __future__ import annotations

import attrs
import pytest
from tiny_case import prepared_case, run_case

from ddrank_core.engine.selection import DDRanking02, Strict
from ddrank_core.results import Rung, TrialResult

RATES = (0.001, 0.005, 0.01, 0.05, 0.1)


def halving(repeats=5, **parameters):
    return Strict(repeats=repeats, search="halving", **parameters)


def trial(rate, repeat, validation, diverged=False):
    return TrialResult(
        arm="syn-any",
        phase="final",
        repeat=repeat,
        learning_rate=rate,
        seed=repeat,
        subset_seed=None,
        validation_accuracy=validation,
        accuracy=None,
        epoch=1,
        diverged=diverged,
        seconds=1.0,
    )


def test_half_of_the_rates_go_on_after_one_two_and_four_repeats():
    rungs = halving().rungs(5)
    assert (Rung((0,), 5), Rung((1,), 3), Rung((2, 3), 2), Rung((4,), 1)) == rungs
    assert 13 == sum(len(rung.repeats) * rung.rates for rung in rungs)


@pytest.mark.parametrize(
    ("protocol", "rates", "expected"),
    [
        (halving(repeats=1), 5, (Rung((0,), 5),)),
        (halving(repeats=2), 4, (Rung((0,), 4), Rung((1,), 2))),
        (halving(repeats=3), 1, (Rung((0, 1, 2), 1),)),
        (Strict(repeats=3), 5, (Rung((0, 1, 2), 5),)),
        (DDRanking02(repeats=3), 5, (Rung((0, 1, 2), 5),)),
    ],
)
def test_other_searches_are_one_rung_or_fewer(protocol, rates, expected):
    assert expected == protocol.rungs(rates)


def test_the_best_rates_by_validation_go_on_and_diverged_ones_do_not():
    first = [trial(0.001, 0, 0.3), trial(0.01, 0, 0.5), trial(0.1, 0, 0.9, diverged=True), trial(1.0, 0, 0.4)]
    assert (0.01, 1.0) == halving().keep(first, 2)


def test_a_rate_that_was_dropped_is_not_chosen_however_good_its_one_repeat_was():
    trials = [trial(0.1, 0, 0.9), trial(0.01, 0, 0.5), trial(0.01, 1, 0.6)]
    assert [(0.01, 0), (0.01, 1)] == [(t.learning_rate, t.repeat) for t in halving().select(trials)]


def search(tmp_path, name, kind, repeats=4):
    protocol = {
        "use": "strict",
        "repeats": repeats,
        "learning_rates": [0.0001, 0.01, 0.1, 0.3],
        "validation": 0.2,
        "search": kind,
    }
    prepared = prepared_case(tmp_path, protocol=protocol, scores=["hlr", "ior"])
    return prepared, run_case(prepared, tmp_path / name)


def test_halving_trains_what_it_planned_and_every_repeat_of_the_rate_that_is_left(tmp_path):
    prepared, outcome = search(tmp_path, "cache", "halving")
    assert prepared.plan.count() == len(outcome.trials)
    for arm in ("syn-hard", "syn-any", "rdm-any"):
        tried = [t for t in outcome.trials if t.arm == arm]
        assert 4 + 2 + 1 * 2 == len(tried)
        (rate,) = set(outcome.arms[arm].learning_rates)
        assert {0, 1, 2, 3} == {t.repeat for t in tried if t.learning_rate == rate}
        assert 4 == outcome.arms[arm].n


def test_the_trials_of_halving_are_some_of_the_grids(tmp_path):
    _, grid = search(tmp_path, "cache", "grid")
    _, half = search(tmp_path, "cache", "halving")
    # Test predictions may be of other trials; what is trained is the same.
    plain = {attrs.evolve(t, accuracy=None, seconds=0.0, reused=False) for t in grid.trials}
    assert {attrs.evolve(t, accuracy=None, seconds=0.0, reused=False) for t in half.trials} <= plain
    assert all(t.reused for t in half.trials)


def test_an_interrupted_halving_goes_on_to_the_same_end(tmp_path):
    prepared, undisturbed = search(tmp_path, "one", "halving")

    class Stop(Exception):
        pass

    def stop(hook, event):
        if hook == "ddrank_trial_finished" and event.done == 11:
            raise Stop

    with pytest.raises(Exception, match="Stop"):
        run_case(prepared, tmp_path / "two", stop)
    resumed = run_case(prepared, tmp_path / "two")
    assert undisturbed.scores == resumed.scores
    assert any(t.reused for t in resumed.trials)
