"""The protocols: how the learning rate and the epoch that count are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from ddrank_core.config import rates_fault
from ddrank_core.results import Rung, TrialResult
from ddrank_core.spec import component, parameter

GRID = (0.001, 0.005, 0.01, 0.05, 0.1)
"""ddranking's grid of learning rates, kept so that results can be compared."""


@component
class Strict:
    """Nothing is selected on the test set.

    Every arm tries every candidate rate (the grid, and the distilled set's own rate if it brings
    one) in every repeat; the arm on the full data those of its own recipe, where that names any.
    One rate per arm is chosen: the best mean accuracy over repeats on a split that is carved from the
    real training set. The weights of the last epoch then predict the test set, once, and its labels are
    read after the last arm is done. With one candidate there is nothing to choose and no split is
    carved. The arm on the full real set is searched without the split and then trained anew on the
    whole of it.

    With `search: halving`, rates that do badly in the first repeats are not tried in the later ones: after 1,
    2, 4, ... repeats the better half goes on (successive halving over repeats, after Karnin, Koren & Somekh
    2013 and Jamieson & Talwalkar 2016). The rate that is left is trained in every repeat, as in the grid.
    """

    version: ClassVar[str] = "1"

    repeats: int = parameter("trials per arm and rate, each with new initial weights", default=5, minimum=1)
    learning_rates: tuple[float, ...] = parameter(
        "the grid, the same for every arm", default=GRID, check=rates_fault
    )
    search: Literal["grid", "halving"] = parameter(
        "grid: every rate in every repeat; halving: the worse half is dropped after 1, 2, 4, ... repeats",
        default="grid",
    )
    validation: float = parameter(
        "share of the real training set to choose by", default=0.1, above=0, below=1
    )

    def validation_share(self, candidates: Sequence[float]) -> float:
        """Return the share of the real training set to set aside: none where nothing is chosen."""
        return self.validation if len(candidates) > 1 else 0.0

    def test_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return no epoch: the test set is not looked at while training."""
        return ()

    def rungs(self, rates: int) -> tuple[Rung, ...]:
        """Return one rung for the grid; for halving, repeats 0, 1, 2 to 3, 4 to 7, ... of fewer rates."""
        if self.search == "grid" or rates == 1:
            return (Rung(tuple(range(self.repeats)), rates),)
        found, start, stop = [], 0, 1
        while start < self.repeats:
            # The last rung is the last chance to be left with one.
            found.append(Rung(tuple(range(start, min(stop, self.repeats))), rates))
            start, stop, rates = stop, 2 * stop, max(1, -(-rates // 2))
        return tuple(found)

    def keep(self, trials: Sequence[TrialResult], rates: int) -> tuple[float, ...]:
        """Return the rates that `select` would choose first, of those that are in every repeat so far."""
        return tuple(sorted(_ranked(trials)[:rates]))

    def select(self, trials: Sequence[TrialResult]) -> tuple[TrialResult, ...]:
        """Return the trials at the best rate, by repeat; a rate that was dropped on the way is none.

        Fewer diverged repeats come before a better mean; the smaller rate wins a tie.
        """
        best = _ranked(trials)[0]
        return tuple(sorted((t for t in trials if t.learning_rate == best), key=lambda t: t.repeat))


def _ranked(trials: Sequence[TrialResult]) -> list[float]:
    """Return the rates that have the most repeats, the best first."""
    by_rate: dict[float, list[TrialResult]] = {}
    for trial in trials:
        by_rate.setdefault(trial.learning_rate, []).append(trial)
    most = max(map(len, by_rate.values()))
    left = sorted(rate for rate, group in by_rate.items() if len(group) == most)
    return sorted(left, key=lambda rate: _rank(by_rate[rate]))


def _rank(trials: Sequence[TrialResult]) -> tuple[int, float]:
    """Return a key that is smaller for a better rate."""
    scored = [t.validation_accuracy for t in trials if not t.diverged and t.validation_accuracy is not None]
    mean = sum(scored) / len(scored) if scored else 0.0
    return sum(t.diverged for t in trials), -mean


@component
class DDRanking02:
    """The older protocol: learning rate and epoch by the test set, as ddranking 0.2 does.

    Its numbers are optimistic, and are here to be compared with published ones. A trial is scored on the
    test set after every `test_interval` epochs; its best counts, and each repeat takes its best rate.
    Unlike the peer, the last epoch is always scored too (the peer's result is 0 for fewer than 20 epochs),
    and every arm gets the same candidates.
    """

    version: ClassVar[str] = "1"

    repeats: int = parameter("trials per arm and rate, each with new initial weights", default=5, minimum=1)
    learning_rates: tuple[float, ...] = parameter(
        "the grid, the same for every arm", default=GRID, check=rates_fault
    )
    test_interval: int = parameter("epochs between two looks at the test set", default=20, minimum=1)

    def validation_share(self, candidates: Sequence[float]) -> float:
        """Return 0: this protocol chooses on the test set."""
        return 0.0

    def test_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return every `test_interval`-th epoch and the last."""
        return (*range(self.test_interval, epochs, self.test_interval), epochs)

    def rungs(self, rates: int) -> tuple[Rung, ...]:
        """Return one rung: every rate in every repeat."""
        return (Rung(tuple(range(self.repeats)), rates),)

    def keep(self, trials: Sequence[TrialResult], rates: int) -> tuple[float, ...]:
        """Return all rates: nothing is dropped on the way."""
        return tuple(sorted({trial.learning_rate for trial in trials}))

    def select(self, trials: Sequence[TrialResult]) -> tuple[TrialResult, ...]:
        """Return, for each repeat, the trial with the best test accuracy; the smaller rate wins a tie."""
        repeats = sorted({trial.repeat for trial in trials})
        return tuple(min((t for t in trials if t.repeat == r), key=_by_test) for r in repeats)


def _by_test(trial: TrialResult) -> tuple[bool, float, float]:
    return trial.diverged, -(trial.accuracy or 0.0), trial.learning_rate
