"""Trains many students at once: the same numbers as one by one, in one pass of stacked tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.capture import Capture, NotRecorded, Replays, Tensors
from ddrank_core.engine.cohort_views import Batch, Shown, targets_of, tensors_of
from ddrank_core.engine.device import tf32
from ddrank_core.engine.folded import Folded
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Training, replays_views
from ddrank_core.engine.stack import Stack, Vmapped
from ddrank_core.engine.stacked_optimizers import StackedOptimizer, stacked_optimizer
from ddrank_core.engine.train import DIVERGENCE_CHECK_EPOCHS, Setting, widened
from ddrank_core.engine.unfinished import Generators, InPlace, Keeping, Part
from ddrank_core.protocols import Loss
from ddrank_core.types import Targets

if TYPE_CHECKING:
    from torch import Tensor, nn

SLOW = "There is a performance drop because we have not yet implemented the batching rule for "
"""How torch's warning begins, before the operation's name."""
STEPS_AT_ONCE = 16
"""Steps of an epoch that are captured as one, where views are captured too. One launch for so many costs
nothing beside them; a graph of all steps on a large set would have too many kernels."""


# -- training ----------------------------------------------------------------------------------


def train_cohort(
    networks: Sequence[nn.Module],
    data: Sequence[ImageSet],
    training: Training,
    rates: Sequence[float],
    seeds: Sequence[int],
    setting: Setting,
    after_epoch: Callable[[int], None],
    folded: bool = False,
    capture: Capture | None = None,
    keeping: Keeping | None = None,
) -> list[bool]:
    """Train T networks in place, each on its own data, rate and seed; return which stayed finite.

    Each comes out as `train` would have it alone, up to the order of sums; `probe` says for which
    networks that holds, and whether `folded` does. A trial that diverges touches no other one, and is
    carried along; when all have, the training ends at the next check, as that of one does.
    At `after_epoch(epoch)` the networks are what the epoch made of them.

    Trials of one seed and the same data (they differ in their rate) share their views, and their teachers'
    labels. Nothing in an epoch waits for the device. With a `capture`, the steps are recorded and replayed,
    to the last bit the same; where that turns out to be impossible, `capture` says why, and the training
    goes on without. `keeping` is as for `train`.

    Raises:
        ValueError: if the trials are not of one kind.
    """
    _check(networks, data, rates, seeds)
    for network in networks:
        network.train()
    stack = Stack(networks)
    try:
        with _silent_fallbacks():
            return _train(stack, data, training, rates, seeds, setting, after_epoch, folded, capture, keeping)
    finally:
        stack.release()


def _train(
    stack: Stack,
    data: Sequence[ImageSet],
    training: Training,
    base_rates: Sequence[float],
    seeds: Sequence[int],
    setting: Setting,
    after_epoch: Callable[[int], None],
    folded: bool,
    capture: Capture | None,
    keeping: Keeping | None,
) -> list[bool]:
    import torch

    optimizer = stacked_optimizer(training.optimizer.component, stack.trained)
    rates = _rates(training, base_rates, optimizer)
    finite = torch.ones(len(seeds), dtype=torch.bool, device=setting.device)
    step = _Step(Folded(stack) if folded else Vmapped(stack), optimizer, training, setting, finite)
    shown = Shown(data, training, seeds, setting)
    captures = capture is not None and capture.failed is None and not replays_views(training)
    done = 0
    if keeping is not None:
        parts: dict[str, Part] = {
            # All in place: a recording, made later, works on this very memory.
            "networks": InPlace([*stack.parameters.values(), *stack.buffers.values()]),
            "optimizer": InPlace(optimizer.remembered()),
            "finite": InPlace([finite]),
            "draws": Generators([*shown.generators, *shown.host_generators]),
        }
        done = keeping.begin("folded" if folded else "vmap", training.epochs, setting.device, parts)
    epochs = (
        _captured(step, shown, capture, done)
        if captures and capture is not None
        else _uncaptured(step, shown, done)
    )
    with closing(epochs):
        for epoch in range(done, training.epochs):
            optimizer.set_rates(rates[epoch])
            next(epochs)
            if (epoch + 1) % DIVERGENCE_CHECK_EPOCHS == 0 and not finite.any().item():
                break
            after_epoch(epoch + 1)
            if keeping is not None:
                keeping.epoch_ended(epoch + 1)
    found: list[bool] = finite.tolist()
    return found


@attrs.frozen(eq=False)
class _Step:
    """A training step of all trials: it changes tensors in place, and waits for nothing."""

    forward: Callable[[Tensor], Tensor]
    optimizer: StackedOptimizer
    training: Training
    setting: Setting
    finite: Tensor
    """bool [T]: which trials' losses have stayed finite."""

    def __call__(self, batch: Batch) -> None:
        losses = backward(self.forward, *batch, self.training, self.setting)
        self.optimizer.step()
        self.finite.logical_and_(losses.isfinite())


def _uncaptured(step: _Step, shown: Shown, done: int) -> Generator[None]:
    """Train for an epoch at each turn, after those that are `done`."""
    for batches in shown.epochs(done):
        for batch in batches:
            step(batch)
        yield


def _captured(step: _Step, shown: Shown, capture: Capture, done: int) -> Generator[None]:
    """Train for an epoch at each turn, after those `done`, by replaying steps as far as can be recorded."""
    import torch

    with closing(_Recorded(step, shown, capture)) as recorded:
        for order in shown.orders(done):
            for part in torch.split(order, step.training.batch_size * STEPS_AT_ONCE, dim=1):
                recorded.steps(part)
            recorded.turn()
            yield


class _Recorded:
    """The steps of a cohort, replayed: with the making of their views, or else without, or else not at all.

    Views cannot be part of it where they depend on draws of the host, or stay there: a replay runs no Python.
    """

    def __init__(self, step: _Step, shown: Shown, capture: Capture) -> None:
        self._step, self._shown, self._capture = step, shown, capture
        self._replays = Replays(capture.recorder(), shown.generators)

    def steps(self, order: Tensor) -> None:
        """Take the steps of a part of an epoch, whose images are `order` [S, n]."""
        if self._capture.failed is None and self._capture.views and self._shown.are_resident:
            before = self._shown.host_states()
            if self._with_views(order):
                self._capture.views = _equal(before, self._shown.host_states())
                return
        for batch in self._shown.batches(order):
            if self._capture.failed is not None or not self._without_views(batch):
                self._step(batch)

    def _with_views(self, order: Tensor) -> bool:
        """Return whether the steps were taken, by a replay or to be recorded next time."""

        def work(tensors: Tensors) -> None:
            for batch in self._shown.batches(tensors["order"]):
                self._step(batch)

        try:
            self._replays(work, {"order": order})
        except NotRecorded:
            self._step.optimizer.forget()
            self._capture.views = False
            return False
        return True

    def _without_views(self, batch: Batch) -> bool:
        """Return whether the step was taken, by a replay or to be recorded next time."""
        images, targets = batch
        kind, temperature = targets.soft_kind, targets.soft_temperature

        def work(tensors: Tensors) -> None:
            # Of the recording's own tensors: it must not keep those of one batch.
            given = {name: tensor for name, tensor in tensors.items() if name != "images"}
            self._step((tensors["images"], targets_of(given, kind, temperature)))

        tensors = {"images": images, **tensors_of(targets)}
        try:
            self._replays(work, tensors, kind, temperature)
        except NotRecorded as error:
            self._step.optimizer.forget()
            self._capture.failed = str(error)
            return False
        return True

    def turn(self) -> None:
        """End an epoch."""
        self._replays.turn()

    def close(self) -> None:
        """Free the recordings."""
        self._replays.close()


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    import torch

    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def _rates(training: Training, base_rates: Sequence[float], optimizer: StackedOptimizer) -> Tensor:
    """Return the rate of every epoch and trial, [epochs, T] on the device."""
    import torch

    factors = [training.schedule.component.factor(epoch, training.epochs) for epoch in range(training.epochs)]
    # Multiplied in Python as `train` does it, and rounded once.
    rates = [[rate * factor for rate in base_rates] for factor in factors]
    return torch.tensor(rates, dtype=optimizer.rates.dtype, device=optimizer.rates.device)


def backward(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Targets,
    training: Training,
    setting: Setting,
) -> Tensor:
    """Add a batch's gradients to the stacked weights', and return the trials' losses [T].

    The sum of the losses is what is differentiated: each weight is in one of them only.
    """
    import torch

    count = images.shape[1]
    size = min(training.micro_batch or count, count)
    total = torch.zeros((), device=images.device)
    with tf32(setting.precision == "tf32"):
        for start in range(0, count, size):
            part = slice(start, start + size)
            with _autocast(setting):
                logits = widened(forward(images[:, part]))
            losses = _losses(training.loss.component, logits, targets, part)
            if size < count:
                losses = losses * (logits.shape[1] / count)
            torch.autograd.backward(losses.sum())
            total = total + losses.detach()
    return total


def _autocast(setting: Setting) -> Any:
    """Return the context that a forward pass runs in: as in `train`, but weights are cast anew at every use.

    Torch's cache of them would outlive a capture, and hold the weights of its step for good.
    """
    import torch

    if setting.precision != "bf16":
        return nullcontext()
    return torch.autocast(setting.device.type, dtype=torch.bfloat16, cache_enabled=False)


def _losses(loss: Loss, logits: Tensor, targets: Targets, part: slice) -> Tensor:
    """Return each trial's loss [T] of logits [T, B, K] and a part of the targets."""
    from torch.func import vmap

    def one(logits: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        return loss(logits, targets_of(tensors, targets.soft_kind, targets.soft_temperature))

    tensors = {name: tensor[:, part] for name, tensor in tensors_of(targets).items()}
    losses: Tensor = vmap(one)(logits, tensors)
    return losses


@contextmanager
def _silent_fallbacks() -> Iterator[None]:
    """Keep quiet about operations that run trial by trial: `probe` has said so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=SLOW)
        yield


def _check(
    networks: Sequence[nn.Module], data: Sequence[ImageSet], rates: Sequence[float], seeds: Sequence[int]
) -> None:
    if not len(networks) == len(data) == len(rates) == len(seeds) > 0:
        raise ValueError("every trial of a cohort needs a network, data, a learning rate and a seed")
    kinds = {
        (len(images), images.images.shape[1:], images.num_classes, images.soft_kind, images.soft is None)
        for images in data
    }
    if len(kinds) > 1:
        raise ValueError("the trials of a cohort must train on equally many images of one kind")
