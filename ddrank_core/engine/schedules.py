"""The engine's learning-rate schedules: the factor of each epoch, a pure function of its number."""

from __future__ import annotations

import math
from bisect import bisect_right

from ddrank_core.spec import component, parameter


@component
class Constant:
    """The learning rate as given, in every epoch."""

    def factor(self, epoch: int, epochs: int) -> float:
        """Return 1."""
        return 1.0


@component
class Step:
    """The learning rate times `gamma` after every `step_size` epochs."""

    step_size: int = parameter("epochs between two changes", minimum=1)
    gamma: float = parameter("what the rate is multiplied with", default=0.1, above=0)

    def factor(self, epoch: int, epochs: int) -> float:
        """Return gamma ** floor(epoch / step_size)."""
        return float(self.gamma ** (epoch // self.step_size))


@component
class MultiStep:
    """The learning rate times `gamma` at each milestone.

    The DC family divides it by 10 once, after epoch `epochs // 2 + 1` (counted from 0): for 1,000
    epochs that is `milestones: [502]`. Source: VICO-UoE/DatasetCondensation, utils.py, evaluate_synset.
    Deviation: the original makes a new optimiser there, which forgets its momentum; here it is kept.
    """

    milestones: tuple[int, ...] = parameter("epochs (from 0) from which the next factor holds")
    gamma: float = parameter("what the rate is multiplied with", default=0.1, above=0)

    def __attrs_post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 0 for m in self.milestones):
            raise ValueError(f"milestones must rise from 0 on, got {list(self.milestones)}")

    def factor(self, epoch: int, epochs: int) -> float:
        """Return gamma ** (number of milestones at or before `epoch`)."""
        return float(self.gamma ** bisect_right(self.milestones, epoch))


@component
class Cosine:
    """The learning rate along half a cosine wave, from 1 to 0 at the end of the last epoch."""

    def factor(self, epoch: int, epochs: int) -> float:
        """Return (1 + cos(pi * epoch / epochs)) / 2."""
        return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
