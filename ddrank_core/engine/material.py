"""The images of a run: on its device where they fit, else streamed to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ddrank_core.engine.device import fits
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Training, Trial, needs_stored_soft, replays_views
from ddrank_core.engine.prepared import Prepared, draw_subset, working_images
from ddrank_core.engine.train import evaluation_batch
from ddrank_core.protocols import Teachers

if TYPE_CHECKING:
    from torch import Tensor

_NORMALISED_BYTES = 64 << 20
"""Up to here a trial's random images are normalised once, as float32: CIFAR-100's at 50 per class are."""


class Material:
    """What trials train on, choose by and are tested on."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        real = prepared.real
        # The labels of the test set stay behind: nothing can be chosen by them.
        self.test = self._real(real.test_images, real.train_labels[:0])
        self.full = self._real(real.train_images, real.train_labels)
        """All real training images."""
        self.validation = self._part(prepared.split.validation)
        working = working_images(prepared)
        self._working = working.to(prepared.device) if fits(working, prepared.device) else working

    def of(self, training: Training, trial: Trial, teachers: Teachers) -> ImageSet:
        """Return what a trial trains on; distilled and random images are normalised beforehand."""
        match training.source:
            case "full":
                return self._part(self._prepared.split.rest) if trial.phase == "search" else self.full
            case "distilled":
                return self._distilled(training)
            case "random":
                assert trial.subset_seed is not None  # the plan gives every random arm's trial one
                return self._random(training, trial.subset_seed, teachers)

    def _real(self, images: Tensor, labels: Tensor) -> ImageSet:
        prepared = self._prepared
        return ImageSet(
            images=images.to(prepared.device) if fits(images, prepared.device) else images,
            labels=labels.to(prepared.device),
            num_classes=prepared.real.num_classes,
            space=prepared.space,
        )

    def _part(self, index: Tensor) -> ImageSet:
        whole = len(index) == len(self.full)
        return self.full if whole else self.full.part(index.to(self._prepared.device))

    def _distilled(self, training: Training) -> ImageSet:
        distilled, device = self._prepared.distilled, self._prepared.device
        soft = distilled.soft_labels if needs_stored_soft(training) else None
        return ImageSet(
            images=self._working,
            labels=distilled.labels.to(device),
            soft=None if soft is None else soft.to(device),
            soft_kind=distilled.soft_kind,
            soft_temperature=distilled.soft_temperature,
            num_classes=distilled.num_classes,
            views=self._prepared.views if replays_views(training) else None,
        )

    def _random(self, training: Training, subset_seed: int, teachers: Teachers) -> ImageSet:
        index = draw_subset(self._prepared, subset_seed)
        data = attrs.evolve(
            self._drawn(index),
            soft_kind=self._prepared.distilled.soft_kind,
            soft_temperature=self._prepared.distilled.soft_temperature,
            views=self._prepared.views if replays_views(training) else None,
            views_are_labelled=False,
        )
        if needs_stored_soft(training):
            data = attrs.evolve(data, soft=self._label_softly(data, teachers))
        return data

    def _drawn(self, index: Tensor) -> ImageSet:
        """Return the real images at `index`, int64 [M] on the CPU.

        A few are normalised beforehand. Many are copied to the device as they are stored, or stay where they
        are, and are normalised batch by batch: float32 takes four times as much, for every repeat.
        """
        device, full = self._prepared.device, self.full
        part = full.part(index.to(device))
        if 4 * len(index) * full.images[0].numel() <= _NORMALISED_BYTES:
            return attrs.evolve(part, images=part.batch(slice(None)), rows=None, space=None)
        if full.images.device == device:
            return part
        images = full.images[index]
        return attrs.evolve(part, images=images.to(device), rows=None) if fits(images, device) else part

    def _label_softly(self, data: ImageSet, teachers: Teachers) -> Tensor:
        """Return the teachers' mean label of each image, of the kind that the distilled set stores."""
        import torch

        size = evaluation_batch(data, self._prepared.device)
        parts = (data.batch(slice(start, start + size)) for start in range(0, len(data), size))
        logits = torch.cat([torch.stack(teachers(part)) for part in parts], dim=1)
        distilled = self._prepared.distilled
        if distilled.soft_kind == "logits":
            return logits.mean(dim=0)
        return (logits / distilled.soft_temperature).softmax(dim=2).mean(dim=0)
