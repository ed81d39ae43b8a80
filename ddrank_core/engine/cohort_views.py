"""What the trials of a cohort are shown: views that several trials share are made once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Training, replays_views
from ddrank_core.engine.seed import randomness
from ddrank_core.engine.train import Setting, epoch_views, orders, view
from ddrank_core.types import Mixing, SoftKind, Targets, View

if TYPE_CHECKING:
    from torch import Generator, Tensor

Batch = tuple["Tensor", Targets]
"""Images [T, B, C, H, W] and their targets, whose tensors are [T, B, ...]."""

_TARGETS = ("hard", "partner_hard", "weight", "soft", "partner_soft")


class Shown:
    """The batches of a cohort of T trials, made of S <= T different streams of views."""

    def __init__(
        self, data: Sequence[ImageSet], training: Training, seeds: Sequence[int], setting: Setting
    ) -> None:
        import torch

        firsts, places = _shared(data, seeds, replays_views(training))
        self._training, self._setting = training, setting
        self._data = [data[first] for first in firsts]
        self._seeds = [seeds[first] for first in firsts]
        self._draws = [randomness(seed, setting.device) for seed in self._seeds]
        self._where = torch.tensor(places, device=setting.device)

    def epochs(self, done: int = 0) -> Iterator[Iterator[Batch]]:
        """Yield the batches of every epoch that is not `done`."""
        if not replays_views(self._training):
            yield from (self.batches(order) for order in self.orders(done))
            return
        streams = [
            epoch_views(data, self._training, seed, self._setting, draws, done)
            for data, seed, draws in zip(self._data, self._seeds, self._draws, strict=True)
        ]
        for epoch in zip(*streams, strict=True):
            yield (self._batch(views) for views in zip(*epoch, strict=True))

    def orders(self, done: int = 0) -> Iterator[Tensor]:
        """Yield the order of the images of every epoch that is not `done`, int64 [S, N] on the device."""
        import torch

        streams = [
            orders(len(data), self._training.epochs, seed, self._setting.device, done)
            for data, seed in zip(self._data, self._seeds, strict=True)
        ]
        for order in zip(*streams, strict=True):
            yield torch.stack(order)

    def batches(self, order: Tensor) -> Iterator[Batch]:
        """Yield the batches of a part of an epoch, whose images are `order` [S, n]."""
        import torch

        for index in torch.split(order, self._training.batch_size, dim=1):
            yield self._batch(
                [
                    view(data, one, self._training, draws, self._setting)
                    for data, one, draws in zip(self._data, index, self._draws, strict=True)
                ]
            )

    @property
    def are_resident(self) -> bool:
        """Return whether all images are on the device."""
        return all(data.images.device == data.labels.device for data in self._data)

    @property
    def generators(self) -> list[Generator]:
        """Return the device's generators that views draw from."""
        return [draws.device for draws in self._draws]

    @property
    def host_generators(self) -> list[Generator]:
        """Return the host's generators that views draw from."""
        return [draws.host for draws in self._draws]

    def host_states(self) -> list[Tensor]:
        """Return the states of the host's generators."""
        return [generator.get_state() for generator in self.host_generators]

    def _batch(self, views: Sequence[View]) -> Batch:
        return batch(views, self._where, self._training, self._setting)


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

    tensors = {name: spread(tensor) for name, tensor in tensors_of(targets).items()}
    return spread(_joined_images(views)), targets_of(tensors, targets.soft_kind, targets.soft_temperature)


def tensors_of(targets: Targets) -> dict[str, Tensor]:
    """Return the tensors that targets have, by their names."""
    return {name: tensor for name in _TARGETS if (tensor := getattr(targets, name)) is not None}


def targets_of(tensors: dict[str, Tensor], soft_kind: SoftKind, soft_temperature: float) -> Targets:
    """Return targets of tensors, by their names."""
    given: dict[str, Any] = dict(tensors)
    return Targets(**given, soft_kind=soft_kind, soft_temperature=soft_temperature)


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
