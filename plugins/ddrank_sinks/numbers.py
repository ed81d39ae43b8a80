"""The numbers of a run's events, named, for trackers that draw curves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from ddrank_core import Event, RunFinished, TrialFailed, TrialFinished


@attrs.frozen
class Number:
    """One point of a curve."""

    name: str
    value: float
    step: int
    """How many trials had ended; of a final accuracy, its repeat."""


class Numbers:
    """Turns the events of one run into points.

    `trials/done`, `trials/failed`; of each trial `accuracy/ARM`, `validation_accuracy/ARM` and
    `learning_rate/ARM`; at the end `final_accuracy/ARM` by repeat, and `scores/NAME`.
    """

    def __init__(self) -> None:
        self._done = self._failed = 0

    def of(self, event: Event) -> list[Number]:
        """Return an event's points, those that are finite."""
        return [number for number in self._of(event) if math.isfinite(number.value)]

    def _of(self, event: Event) -> Iterator[Number]:
        match event:
            case TrialFinished():
                self._done = event.done
                yield Number("trials/done", event.done, self._done)
                result = event.result
                for name in ("accuracy", "validation_accuracy", "learning_rate"):
                    value = getattr(result, name)
                    if value is not None:
                        yield Number(f"{name}/{result.arm}", value, self._done)
            case TrialFailed(final=True):
                self._done, self._failed = event.done, self._failed + 1
                yield Number("trials/done", event.done, self._done)
                yield Number("trials/failed", self._failed, self._done)
            case RunFinished():
                for arm in event.arms.values():
                    for repeat, accuracy in enumerate(arm.accuracies):
                        if accuracy is not None:
                            yield Number(f"final_accuracy/{arm.name}", accuracy, repeat)
                for score in event.scores.values():
                    if score.mean is not None:
                        yield Number(f"scores/{score.name}", score.mean, self._done)
