"""How far a run is: plain arithmetic over its events, fed with the time of each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ddrank_core import EpochFinished, RunStarted, TrialFailed, TrialFinished, TrialStarted
from ddrank_progress.pace import Longest, Pace

if TYPE_CHECKING:
    from ddrank_core.results import TrialResult

_Identity = tuple[str, str, int, float, int]

_MOST_ARMS = 3
"""How many arms are named of those that are trained at once; more do not fit 80 columns."""


class Status:
    """The state of one run.

    Speed is work per second of the time in which students were trained: what passed while at least one of
    them was under way, or ended in trained work. What passed otherwise, with a teacher or with trials that
    were read back, says nothing about it; the work of a trial that was read back, or given up, is only taken
    off what remains.
    """

    def __init__(self, event: RunStarted, now: float) -> None:
        self.name = event.name
        self.device = event.device
        self.arms = event.arms
        self.trials = event.trials
        self.trials_done = 0
        self.failed = 0
        """How many trials were given up."""
        self.last = ""
        self._training = "starting"
        self._work = event.work
        self._skipped = 0.0
        """Work that is not to be done, or less than none: that which is to be done again."""
        self._pace, self._longest = Pace(), Longest()
        self._running: dict[_Identity, int] = {}
        """Trials under way -> how many are trained as one computation."""
        self._by_arm: Counter[str] = Counter()
        self._computations = 0.0
        self._started = self._latest = now

    def trial_started(self, event: TrialStarted, now: float) -> None:
        """Count a trial that is under way from `now`, in seconds of a clock that never goes back."""
        self._pass(0.0, now, trained=False)
        self._take_out(_identity(event))
        self._running[_identity(event)] = event.at_once
        self._by_arm[event.arm] += 1
        self._computations += 1 / event.at_once

    def epoch_finished(self, event: EpochFinished, now: float) -> None:
        """Count an epoch that ended at `now`."""
        self._training = f"{event.training}: epoch {event.epoch}/{event.epochs}"
        self._pass(event.work, now, trained=event.work > 0)
        if event.work > 0:
            self._longest.epoch(event.training, event.epoch, event.epochs, now)

    def trial_finished(self, event: TrialFinished, now: float) -> None:
        """Count a trial that ended, or was read back, at `now`."""
        result = event.result
        self.trials_done, self.trials = event.done, event.total
        self.last = f"{result.arm} {_outcome(result.accuracy, result.validation_accuracy, result.diverged)}"
        # What a diverged trial did not train any more passed in no time, like a trial read back.
        self._pass(event.work, now, trained=not (result.reused or (result.diverged and event.work > 0)))
        self._take_out(_identity(result))

    def trial_failed(self, event: TrialFailed, now: float) -> None:
        """Count an attempt at a trial that was lost at `now`."""
        self.trials_done, self.trials = event.done, event.total
        self.failed += event.final
        self.last = f"{event.arm} {'failed' if event.final else f'lost (attempt {event.attempt})'}"
        self._pass(event.work, now, trained=False)
        self._take_out(_identity(event))
        self._longest.drop(event.arm)

    def finish(self) -> None:
        """Count whatever work the plan had expected and nobody reported."""
        self._skipped = max(0.0, self._work - self._pace.work)
        self._training = ""
        self._running.clear()
        self._by_arm.clear()
        self._computations = 0.0

    @property
    def training(self) -> str:
        """What is being trained: the one training and its epoch, or how many there are of which arms."""
        if round(self._computations) <= 1:
            return self._training
        # This is read by the thread that draws: `most_common` would iterate over what the other changes.
        counts = [(arm, count) for arm, count in list(self._by_arm.items()) if count]
        counts.sort(key=lambda pair: -pair[1])
        if len(counts) == 1:
            ((arm, count),) = counts
            return f"{arm}: {count} running"
        named = ", ".join(f"{arm} {count}" for arm, count in counts[:_MOST_ARMS])
        more = len(counts) - _MOST_ARMS
        others = f" and {more} more arm{'s' if more > 1 else ''}" if more > 0 else ""
        return f"{len(self._running)} running: {named}{others}"

    def fraction(self) -> float:
        """Return the share of the run that is done, 0..1."""
        if self._work <= 0:
            return self.trials_done / self.trials if self.trials else 0.0
        return min(1.0, max(0.0, (self._pace.work + self._skipped) / self._work))

    def seconds_left(self) -> float | None:
        """Return the expected time to the end, as of the last event; None where nothing tells it yet."""
        remaining = max(0.0, self._work - self._pace.work - self._skipped)
        left = self._pace.seconds_for(remaining, len(self._running))
        return None if left is None else max(left, self._longest.end() - self._latest)

    def seconds(self, now: float) -> float:
        """Return the time since the run started."""
        return now - self._started

    def _pass(self, work: float, now: float, *, trained: bool) -> None:
        """Count the time since the last event, and work that was done in it or is not to be done."""
        if trained or self._running:
            at_once = round(self._computations)
            self._pace.add(work if trained else 0.0, now - self._latest, now, at_once)
        if not trained:
            self._skipped += work
        self._latest = now

    def _take_out(self, trial: _Identity) -> None:
        at_once = self._running.pop(trial, None)
        if at_once is not None:
            self._by_arm[trial[0]] -= 1
            self._computations = self._computations - 1 / at_once if self._running else 0.0


def clock(seconds: float) -> str:
    """Return seconds as a clock shows them.

    >>> clock(5), clock(83.4), clock(7384)
    ('0:05', '1:23', '2:03:04')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _identity(trial: TrialStarted | TrialFailed | TrialResult) -> _Identity:
    return trial.arm, trial.phase, trial.repeat, trial.learning_rate, trial.seed


def _outcome(accuracy: float | None, validation_accuracy: float | None, diverged: bool) -> str:
    if diverged:
        return "diverged"
    if accuracy is not None:
        return f"{100 * accuracy:.1f} %"
    if validation_accuracy is not None:
        return f"{100 * validation_accuracy:.1f} % (validation)"
    return "done"
