"""A stopwatch for what is repeated, and what its laps come to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import torch

SHORTEST = 0.05
"""Seconds of a lap at least: on a GPU its end is waited for, which must not show, and others disturb."""
_LONG_WARM_UP = 2.0
"""Seconds after which a single repetition is warm-up enough."""
_PATIENCE = 3
"""A lap may take its whole budget so many times before it is taken as the only one."""


@attrs.frozen
class Spread:
    """The median of several measurements between their quartiles, or what follows from such."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value.

        >>> Spread.of([4.0, 1.0, 2.0, 3.0, 9.0])
        Spread(median=3.0, low=2.0, high=4.0)
        """
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(median(values), low, high)

    def times(self, factor: float) -> Spread:
        """Return so many times as much; `factor` is not negative."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def plus(self, other: Spread) -> Spread:
        """Return both together, as if both were low or high at once: wide rather than tight."""
        return Spread(self.median + other.median, self.low + other.low, self.high + other.high)

    def at_least(self, other: Spread) -> Spread:
        """Return the larger of both, end by end."""
        return Spread(max(self.median, other.median), max(self.low, other.low), max(self.high, other.high))

    def rate(self, amount: float) -> Spread:
        """Return `amount` per unit of this: of seconds, what is done in one."""
        return Spread(amount / self.median, amount / self.high, amount / self.low)


NOTHING = Spread(0.0, 0.0, 0.0)


def summed(spreads: Sequence[Spread]) -> Spread:
    """Return all of them together."""
    total = NOTHING
    for spread in spreads:
        total = total.plus(spread)
    return total


class Laps:
    """Times repetitions: the first are warm-up; then short ones are put together into a lap.

    Enough is when there are `most` laps, or `least` of them and the budget of seconds is used up; a
    repetition far longer than the budget is taken once.
    """

    def __init__(
        self, device: torch.device, budget: float, *, least: int = 3, most: int = 40, warm_up: int = 2
    ) -> None:
        self._device, self._budget, self._least, self._most = device, budget, least, most
        self._warm_up = warm_up
        self._since = self._spent = 0.0
        self._repetitions = 0
        self.seconds: list[float] = []
        """Of one repetition, by lap."""

    @property
    def enough(self) -> bool:
        count = len(self.seconds)
        used_up = self._spent >= self._budget and count >= self._least
        return count >= self._most or used_up or (count > 0 and self._spent >= _PATIENCE * self._budget)

    def start(self) -> None:
        """Start a lap, after the device has done what it was given."""
        wait_for(self._device)
        self._since, self._repetitions = time.perf_counter(), 0

    def tick(self) -> bool:
        """Count one repetition; return whether these are enough."""
        self._repetitions += 1
        if time.perf_counter() - self._since >= SHORTEST:
            self._lap()
        return self.enough

    def stop(self) -> None:
        """End the lap that is under way, if anything was repeated in it."""
        if self._repetitions:
            self._lap()

    def _lap(self) -> None:
        wait_for(self._device)
        passed, repetitions = time.perf_counter() - self._since, self._repetitions
        if self._warm_up > 0:
            self._warm_up -= self._warm_up if passed >= _LONG_WARM_UP else repetitions
        else:
            self.seconds.append(passed / repetitions)
            self._spent += passed
        self._since, self._repetitions = time.perf_counter(), 0


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given; a CPU has."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
