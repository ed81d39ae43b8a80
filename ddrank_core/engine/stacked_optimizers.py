"""The engine's optimisers for many trainings at once, each with its own learning rate.

A stacked weight [T, ...] holds one weight of T networks. A step is torch's own update of each of them, and
waits for nothing: the rates and the count of steps stay on the device, so that a step can be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddrank_core.engine.optimizers import SGD, Adam, AdamW, DecayOn
from ddrank_core.protocols import Optimizer

if TYPE_CHECKING:
    from torch import Tensor


def stacked_optimizer(optimizer: Optimizer, weights: Sequence[Tensor]) -> StackedOptimizer:
    """Return the optimiser of stacked `weights`, all [T, ...] and of one dtype and device.

    Raises:
        ValueError: if it is none of the engine's own.
    """
    match optimizer:
        case SGD():
            return _StackedSGD(optimizer, weights)
        case Adam() | AdamW():
            return _StackedAdam(optimizer, weights)
    raise ValueError(f"the optimizer {type(optimizer).__name__} has no form for many trainings at once")


class StackedOptimizer:
    """What the optimisers have in common: weights, which of them decay, and the rates of T trials."""

    def __init__(self, weights: Sequence[Tensor], weight_decay: float, decay_on: DecayOn) -> None:
        self.weights = tuple(weights)
        self.rates = self.weights[0].new_zeros(len(self.weights[0]), requires_grad=False)
        """[T]: changed in place, so that a replayed step sees the change."""
        self._weight_decay = weight_decay
        # A stacked weight has one dimension more than a network's.
        self._decays = tuple(decay_on == "all" or weight.ndim > 2 for weight in self.weights)

    def set_rates(self, rates: Tensor) -> None:
        """Take the learning rates [T] that hold from now on."""
        self.rates.copy_(rates)

    def step(self) -> None:
        """Move every weight that has a gradient, and forget the gradients.

        A weight without one stays as it is and does not decay, as in torch.
        """
        import torch

        with torch.no_grad():
            self._step([place for place, weight in enumerate(self.weights) if weight.grad is not None])
        self.forget()

    def forget(self) -> None:
        """Forget the gradients."""
        for weight in self.weights:
            weight.grad = None

    def remembered(self) -> list[Tensor]:
        """Return what it remembers from step to step, changed in place: all but the weights and the rates."""
        raise NotImplementedError

    def _step(self, moved: list[int]) -> None:
        raise NotImplementedError

    def _gradients(self, moved: list[int]) -> list[Tensor]:
        return [gradient for place in moved if (gradient := self.weights[place].grad) is not None]

    def _decayed(self, moved: list[int]) -> list[Tensor]:
        return [self.weights[place] for place in moved if self._decays[place]] if self._weight_decay else []

    def _add_decay(self, moved: list[int]) -> None:
        """Add the weights, times the decay, to their gradients."""
        import torch

        if decayed := self._decayed(moved):
            gradients = [weight.grad for weight in decayed if weight.grad is not None]
            torch._foreach_add_(gradients, decayed, alpha=self._weight_decay)

    def _take_off(self, moved: list[int], steps: list[Tensor], rates: Tensor) -> None:
        """Take `steps` times each trial's own rate [T] off the weights."""
        import torch

        weights = [self.weights[place] for place in moved]
        torch._foreach_addcmul_(weights, steps, [_along(rates, weight) for weight in weights], value=-1)


class _StackedSGD(StackedOptimizer):
    """torch.optim.SGD without dampening."""

    def __init__(self, about: SGD, weights: Sequence[Tensor]) -> None:
        import torch

        super().__init__(weights, about.weight_decay, about.decay_on)
        self._about = about
        self._velocities = [torch.zeros_like(w, requires_grad=False) for w in weights if about.momentum]

    def remembered(self) -> list[Tensor]:
        """Return the velocities."""
        return self._velocities

    def _step(self, moved: list[int]) -> None:
        import torch

        self._add_decay(moved)
        steps = self._gradients(moved)
        if self._about.momentum and moved:
            velocities = [self._velocities[place] for place in moved]
            torch._foreach_mul_(velocities, self._about.momentum)
            torch._foreach_add_(velocities, steps)
            if self._about.nesterov:
                torch._foreach_add_(steps, velocities, alpha=self._about.momentum)
            else:
                steps = velocities
        self._take_off(moved, steps, self.rates)


class _StackedAdam(StackedOptimizer):
    """torch.optim.Adam, and AdamW, which takes its decay off the weights themselves."""

    def __init__(self, about: Adam | AdamW, weights: Sequence[Tensor]) -> None:
        import torch

        super().__init__(weights, about.weight_decay, about.decay_on)
        self._about = about
        self._means = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
        self._squares = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
        self._steps = torch.zeros((), dtype=torch.float64, device=self.rates.device)

    def remembered(self) -> list[Tensor]:
        """Return both moments, and the count of steps."""
        return [*self._means, *self._squares, self._steps]

    def _step(self, moved: list[int]) -> None:
        import torch

        means = [self._means[place] for place in moved]
        squares = [self._squares[place] for place in moved]
        first, second = self._about.betas
        self._decay(moved)
        gradients = self._gradients(moved)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        # Python's numbers would be frozen into a replayed step.
        self._steps += 1
        widths = torch._foreach_sqrt(squares)
        torch._foreach_div_(widths, (1 - second**self._steps).sqrt())
        torch._foreach_add_(widths, self._about.eps)
        rates = self.rates / (1 - first**self._steps)
        self._take_off(moved, list(torch._foreach_div(means, widths)), rates)

    def _decay(self, moved: list[int]) -> None:
        import torch

        if isinstance(self._about, Adam):
            self._add_decay(moved)
        elif decayed := self._decayed(moved):
            kept = 1 - self.rates * self._weight_decay
            torch._foreach_mul_(decayed, [_along(kept, weight) for weight in decayed])


def _along(values: Tensor, weight: Tensor) -> Tensor:
    """Shape values [T] so that they broadcast over a stacked weight [T, ...]."""
    return values.view(-1, *(1 for _ in weight.shape[1:]))
