"""Checks that trials with a component can be trained at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import nn

from ddrank_core.engine.cohort_probe import probe
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.plan import Training
from ddrank_core.engine.train import Setting
from ddrank_core.protocols import Teachers
from ddrank_core.testing import architectures, augmentations
from ddrank_core.testing.case import Case, Shape, hold
from ddrank_core.testing.label_mappings import no_teachers
from ddrank_core.testing.observed import CPU

_CLASSES, _COUNT = architectures.CLASSES, 8
_PLACE = {"loss": "loss", "label-mapping": "labels", "augmentation": "augmentation"}


def trains_in_cohort(case: Case) -> None:
    """Train two trials at once and one by one, as the engine's own probe does."""
    network, shape = _network(case)
    for training in _trainings(case):
        space = normaliser((0.5,) * shape[0], (0.25,) * shape[0], CPU)
        setting = Setting(device=CPU, precision="fp32", space=space, teachers=_teachers(case))
        found = probe(network, training, _images(shape), setting)
        hold(
            found.reason is None,
            f"trials with it cannot be trained at once, and are trained one by one, which is slower: "
            f"{found.reason}; if that is so by design, declare it in expected_failures",
        )


def _network(case: Case) -> tuple[nn.Module, Shape]:
    if case.kind == "architecture":
        return architectures.network_of(case)
    shape: Shape = augmentations.taken(case)[0] if case.kind == "augmentation" else (3, 8, 8)
    size = shape[0] * shape[1] * shape[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(size, _CLASSES)), shape


def _trainings(case: Case) -> Iterator[Training]:
    """Yield a plain training with the component in its place; a loss with each kind of labels it takes."""
    labels = ["hard"] if case.kind != "loss" else ["soft"] if case.flag("needs_soft") else ["hard", "soft"]
    for label in labels:
        chosen: dict[str, Any] = {
            place: case.structurer.chosen(kind, use)
            for place, kind, use in (
                ("labels", "label-mapping", label),
                ("loss", "loss", "ce"),
                ("optimizer", "optimizer", "sgd"),
                ("schedule", "schedule", "constant"),
            )
        }
        chosen["augmentation"] = ()
        if case.kind in _PLACE:
            own = attrs.evolve(case.chosen, component=case.component)
            chosen[_PLACE[case.kind]] = (own,) if case.kind == "augmentation" else own
        yield Training(source="distilled", epochs=2, batch_size=_COUNT, **chosen)


def _teachers(case: Case) -> Teachers:
    if case.kind != "label-mapping" or not case.flag("needs_teacher"):
        return no_teachers
    return lambda images: (images.new_zeros(len(images), _CLASSES),) * 2


def _images(shape: Shape) -> ImageSet:
    draws = torch.Generator().manual_seed(0)
    return ImageSet(
        images=torch.randn(_COUNT, *shape, generator=draws),
        labels=torch.arange(_COUNT) % _CLASSES,
        soft=torch.randn(_COUNT, _CLASSES, generator=draws),
        num_classes=_CLASSES,
    )
