"""Trains many students at once: the same numbers as one by one, in one pass of stacked tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.folded import Folded
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Training, replays_views
from ddrank_core.engine.stack import Stack, Vmapped
from ddrank_core.engine.stacked_optimizers import StackedOptimizer, stacked_optimizer
from ddrank_core.engine.train import DIVERGENCE_CHECK_EPOCHS, Setting, autocast, epoch_views, widened
from ddrank_core.protocols import Loss
from ddrank_core.types import Mixing, Targets, View

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch = tuple["Tensor", Targets]
"""Images [T, B, C, H, W] and their targets, whose tensors are [T, B, ...]."""

_TARGETS = ("hard", "partner_hard", "weight", "soft", "partner_soft")
SLOW = "There is a performance drop because we have not yet implemented the batching rule for "
"""How torch's warning begins, before the operation's name."""


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
) -> list[bool]:
    """Train T networks in place, each on its own data, rate and seed; return which stayed finite.

    Each comes out as `train` would have it alone, up to the order of sums; `probe` says for which
    networks that holds, and whether `folded` does. A trial that diverges touches no other one, and is
    carried along; when all have, the training ends at the next check, as that of one does.
    At `after_epoch(epoch)` the networks are what the epoch made of them.

    Trials of one seed and the same data (they differ in their rate) share their views, and their teachers'
    labels. Nothing in an epoch waits for the device. What a CUDA graph can replay is `backward` and
    the optimiser's step, at a fixed batch; making views takes the host, since augmentations may choose by
    the host's generator, and their device generators would have to be registered with the graph.

    Raises:
        ValueError: if the trials are not of one kind.
    """
    _check(networks, data, rates, seeds)
    for network in networks:
        network.train()
    stack = Stack(networks)
    try:
        with _silent_fallbacks():
            return _train(stack, data, training, rates, seeds, setting, after_epoch, folded)
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
) -> list[bool]:
    import torch

    forward = Folded(stack) if folded else Vmapped(stack)
    optimizer = stacked_optimizer(training.optimizer.component, stack.trained)
    rates = _rates(training, base_rates, optimizer)
    finite = torch.ones(len(seeds), dtype=torch.bool, device=setting.device)
    for epoch, batches in enumerate(_batches(data, training, seeds, setting)):
        optimizer.set_rates(rates[epoch])
        for images, targets in batches:
            losses = backward(forward, images, targets, training, setting)
            optimizer.step()
            finite &= losses.isfinite()
        if (epoch + 1) % DIVERGENCE_CHECK_EPOCHS == 0 and not finite.any().item():
            break
        after_epoch(epoch + 1)
    found: list[bool] = finite.tolist()
    return found


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
    for start in range(0, count, size):
        part = slice(start, start + size)
        with autocast(setting):
            logits = widened(forward(images[:, part]))
        losses = _losses(training.loss.component, logits, targets, part)
        if size < count:
            losses = losses * (logits.shape[1] / count)
        torch.autograd.backward(losses.sum())
        total = total + losses.detach()
    return total


def _losses(loss: Loss, logits: Tensor, targets: Targets, part: slice) -> Tensor:
    """Return each trial's loss [T] of logits [T, B, K] and a part of the targets."""
    from torch.func import vmap

    def one(logits: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        return loss(logits, _evolved(targets, tensors))

    tensors = {name: tensor[:, part] for name, tensor in _given(targets).items()}
    losses: Tensor = vmap(one)(logits, tensors)
    return losses


def _given(targets: Targets) -> dict[str, Tensor]:
    return {name: tensor for name in _TARGETS if (tensor := getattr(targets, name)) is not None}


def _evolved(targets: Targets, tensors: dict[str, Tensor]) -> Targets:
    changes: dict[str, Any] = dict(tensors)
    return attrs.evolve(targets, **changes)


@contextmanager
def _silent_fallbacks() -> Iterator[None]:
    """Keep quiet about operations that run trial by trial: `probe` has said so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=SLOW)
        yield


# -- batches -----------------------------------------------------------------------------------


def _batches(
    data: Sequence[ImageSet], training: Training, seeds: Sequence[int], setting: Setting
) -> Iterator[Iterator[Batch]]:
    """Yield, for each epoch, the batches of all trials; views that several trials share are made once."""
    import torch

    firsts, places = _shared(data, seeds, replays_views(training))
    where = torch.tensor(places, device=setting.device)
    streams = [epoch_views(data[first], training, seeds[first], setting) for first in firsts]
    for epoch in zip(*streams, strict=True):
        yield (batch(views, where, training, setting) for views in zip(*epoch, strict=True))


def _shared(data: Sequence[ImageSet], seeds: Sequence[int], replayed: bool) -> tuple[list[int], list[int]]:
    """Return the first trial of each stream of views, and the place among these of every trial's stream."""
    firsts: list[int] = []
    places: list[int] = []
    for trial, images in enumerate(data):
        place = next(
            (
                place
                for place, first in enumerate(firsts)
                if (replayed or seeds[first] == seeds[trial]) and _same(data[first], images)
            ),
            len(firsts),
        )
        firsts += [trial] if place == len(firsts) else []
        places.append(place)
    return firsts, places


def _same(one: ImageSet, other: ImageSet) -> bool:
    """Return whether two sets hold the same; tensors are compared where they are not the very same."""
    import torch

    if one is other:
        return True
    for field in attrs.fields(ImageSet):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if mine is theirs:
            continue
        if isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
            if mine.dtype != theirs.dtype or not torch.equal(mine, theirs):
                return False
        elif mine != theirs:
            return False
    return True


def batch(views: Sequence[View], where: Tensor, training: Training, setting: Setting) -> Batch:
    """Return the batch of all trials; `where` int64 [T] says which view is whose.

    Labels are given, and teachers asked, for all views in one call.
    """
    targets = training.labels.component(_joined(views), setting.teachers)

    def spread(tensor: Tensor) -> Tensor:
        parts = tensor.reshape(len(views), -1, *tensor.shape[1:])
        return parts if len(views) == len(where) else parts.index_select(0, where)

    tensors = {name: spread(tensor) for name, tensor in _given(targets).items()}
    return spread(_joined_images(views)), _evolved(targets, tensors)


def _joined(views: Sequence[View]) -> View:
    """Return the views of several trials as one batch."""
    import torch

    softs = [view.soft for view in views if view.soft is not None]
    return attrs.evolve(
        views[0],
        images=_joined_images(views),
        hard=torch.cat([view.hard for view in views]),
        soft=torch.cat(softs) if softs else None,
        mixing=_joined_mixing(views),
    )


def _joined_images(views: Sequence[View]) -> Tensor:
    import torch

    return torch.cat([view.images for view in views])


def _joined_mixing(views: Sequence[View]) -> Mixing | None:
    import torch

    if all(view.mixing is None for view in views):
        return None
    mixings = [view.mixing or _unmixed(view) for view in views]
    offset = len(views[0].hard)
    partners = [mixing.partner + place * offset for place, mixing in enumerate(mixings)]
    return Mixing(torch.cat(partners), torch.cat([mixing.weight for mixing in mixings]))


def _unmixed(view: View) -> Mixing:
    """Return the mixing of a view, among others that are mixed, that is not."""
    import torch

    device = view.hard.device
    return Mixing(torch.arange(len(view.hard), device=device), torch.ones(len(view.hard), device=device))


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
