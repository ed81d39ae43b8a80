"""How far a run is: plain arithmetic over its events, fed with the time of each."""

from __future__ import annotations

from ddrank_core import EpochFinished, RunStarted, TrialFinished


class Status:
    """The state of one run.

    Speed is work per second over those stretches of time that ended in trained work. A stretch that
    ended in a teacher's epoch, or in a trial that was read back, says nothing about how fast students
    train and is left out; the work of a trial that was read back is only taken off what remains.
    """

    def __init__(self, event: RunStarted, now: float) -> None:
        self.name = event.name
        self.device = event.device
        self.arms = event.arms
        self.trials = event.trials
        self.trials_done = 0
        self.training = "starting"
        self.last = ""
        self._work = event.work
        self._trained = 0.0
        self._skipped = 0.0
        self._trained_seconds = 0.0
        self._started = self._latest = now

    def epoch_finished(self, event: EpochFinished, now: float) -> None:
        """Count an epoch that ended at `now`, in seconds of a clock that never goes back."""
        self.training = f"{event.training}: epoch {event.epoch}/{event.epochs}"
        self._count(event.work, now, trained=event.work > 0)

    def trial_finished(self, event: TrialFinished, now: float) -> None:
        """Count a trial that ended, or was read back, at `now`."""
        result = event.result
        self.trials_done, self.trials = event.done, event.total
        self.last = f"{result.arm} {_outcome(result.accuracy, result.validation_accuracy, result.diverged)}"
        # What a diverged trial did not train any more passed in no time, like a trial read back.
        self._count(event.work, now, trained=not (result.reused or (result.diverged and event.work > 0)))

    def finish(self) -> None:
        """Count whatever work the plan had expected and nobody reported."""
        self._skipped = max(0.0, self._work - self._trained)
        self.training = ""

    def fraction(self) -> float:
        """Return the share of the run that is done, 0..1."""
        if self._work <= 0:
            return self.trials_done / self.trials if self.trials else 0.0
        return min(1.0, (self._trained + self._skipped) / self._work)

    def seconds_left(self) -> float | None:
        """Return the expected time to the end; None before anything was trained."""
        if self._trained <= 0 or self._trained_seconds <= 0:
            return None
        remaining = max(0.0, self._work - self._trained - self._skipped)
        return remaining * self._trained_seconds / self._trained

    def seconds(self, now: float) -> float:
        """Return the time since the run started."""
        return now - self._started

    def _count(self, work: float, now: float, *, trained: bool) -> None:
        if trained:
            self._trained += work
            self._trained_seconds += now - self._latest
        else:
            self._skipped += work
        self._latest = now


def clock(seconds: float) -> str:
    """Return seconds as a clock shows them.

    >>> clock(5), clock(83.4), clock(7384)
    ('0:05', '1:23', '2:03:04')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _outcome(accuracy: float | None, validation_accuracy: float | None, diverged: bool) -> str:
    if diverged:
        return "diverged"
    if accuracy is not None:
        return f"{100 * accuracy:.1f} %"
    if validation_accuracy is not None:
        return f"{100 * validation_accuracy:.1f} % (validation)"
    return "done"
