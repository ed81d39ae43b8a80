"""How fast a run trains, from what its trainings report."""

from __future__ import annotations

_LUMP = 0.01
"""Reports that come within this share of the time so far are taken for one."""


class Pace:
    """Work per second of the time in which something was trained.

    Trainings that run beside each other report at much the same time. Between the first and the last of such
    reports, a stretch of time would be counted and only a part of the work that was done in it. So they are
    held back, and counted when the next ones come.
    """

    def __init__(self) -> None:
        self.work = 0.0
        """All that was reported, held back or not."""
        self._reports = 0
        self._counted = (0.0, 0.0)
        """Work, and the seconds that it took."""
        self._held = (0.0, 0.0)
        self._held_since = 0.0

    def add(self, work: float, seconds: float, now: float, at_once: int) -> None:
        """Count work that was reported at `now`, and the time since the event before it.

        `at_once` is how many trainings were under way in that time.
        """
        self.work += work
        self._reports += work > 0
        if at_once <= 1:
            self._counted = _sum(self._counted, self._held, (work, seconds))
            self._held = (0.0, 0.0)
            return
        if now - self._held_since > _LUMP * (self._counted[1] + self._held[1] + seconds):
            self._counted, self._held = _sum(self._counted, self._held), (0.0, 0.0)
            self._held_since = now
        self._held = _sum(self._held, (work, seconds))

    def seconds_for(self, work: float, trials: int) -> float | None:
        """Return how long some more work takes; `trials` are under way.

        None before anything was trained, and before as many reports as trials under way: until then, most of
        the work that was done is not reported.
        """
        if self._reports < trials:
            return None
        done, seconds = self._counted
        # What is held back has taken its time, though not all of its work is reported.
        since, passed = self._held
        if done <= 0:
            (done, seconds), since, passed = _sum(self._counted, self._held), 0.0, 0.0
        if done <= 0 or seconds <= 0:
            return None
        return max(0.0, (work + since) * seconds / done - passed)


class Longest:
    """The trainings under way that report their epochs, each under its name, and when each will end.

    The last of a run's trainings is alone in the end: then it takes as long as it takes, however fast all of
    them were together.
    """

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, float]] = {}
        """Training -> an epoch of it, and when that ended."""
        self._ends: dict[str, float] = {}

    def epoch(self, training: str, epoch: int, epochs: int, now: float) -> None:
        """Hear of an epoch that ended at `now`."""
        first, since = self._begun.setdefault(training, (epoch, now))
        if epoch >= epochs:
            self.drop(training)
        elif epoch < first or now <= since:
            # It began anew, or another one has the same name.
            self._begun[training] = (epoch, now)
            self._ends.pop(training, None)
        elif epoch > first:
            self._ends[training] = now + (epochs - epoch) * (now - since) / (epoch - first)

    def drop(self, prefix: str) -> None:
        """Forget the trainings whose names begin like this; those that go on are heard of again."""
        for training in [name for name in self._begun if name.startswith(prefix)]:
            del self._begun[training]
            self._ends.pop(training, None)

    def end(self) -> float:
        """Return when the last of them ends; minus infinity if that is not known of any."""
        return max(list(self._ends.values()), default=float("-inf"))


def _sum(*pairs: tuple[float, float]) -> tuple[float, float]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
