"""The engine's learning-rate schedules: the factor of each epoch, a pure function of its number."""

from __future__ import annotations

import math
from bisect import bisect_right

from ddrank_core.protocols import Schedule
from ddrank_core.spec import component, parameter
from ddrank_core.structure import Chosen


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


@component
class HalfCosine:
    """The first half of a cosine schedule: from 1 to 1/2 (or less), as RDED and its followers train.

    Their code writes (1 + cos(pi * epoch / epochs / 2)) / 2 and is often quoted as a cosine schedule; it
    stops where the cosine crosses zero, so the rate of the last epoch is still half of the first's.

    Source: LINs-lab/RDED, validation/main.py, where `stretch` is 2; EDC's smoothed schedule is the same.
    """

    stretch: float = parameter("how many times too long the cosine is; 1 is `cosine`", default=2.0, minimum=1)

    def factor(self, epoch: int, epochs: int) -> float:
        """Return (1 + cos(pi * epoch / (stretch * epochs))) / 2."""
        return 0.5 * (1.0 + math.cos(math.pi * epoch / (self.stretch * epochs)))


@component
class Warmup:
    """A linear rise over the first epochs, then another schedule over the epochs that are left.

    Source: Goyal et al. 2017, section 2.2; as torch's LinearLR in front of the other in SequentialLR.
    """

    epochs: int = parameter("epochs of the rise", minimum=1)
    start: float = parameter("the factor of the first epoch", default=0.01, above=0, maximum=1)
    then: Chosen[Schedule] = parameter("the schedule that follows; its first epoch is the one after the rise")

    def factor(self, epoch: int, epochs: int) -> float:
        """Return start + (1 - start) * epoch / self.epochs while rising, then the other's factor.

        Raises:
            ValueError: if the training is not longer than the rise.
        """
        if epochs <= self.epochs:
            raise ValueError(f"a warmup of {self.epochs} epochs needs a longer training, got {epochs} epochs")
        if epoch < self.epochs:
            return self.start + (1 - self.start) * epoch / self.epochs
        return self.then.component.factor(epoch - self.epochs, epochs - self.epochs)
