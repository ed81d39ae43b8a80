"""A run that is known to be well-formed: its data, its plan, its split."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import attrs

from ddrank_core.config import RunConfig
from ddrank_core.data import distilled as distilled_file
from ddrank_core.data.stored_views import StoredViews
from ddrank_core.engine.images import WorkingSpace
from ddrank_core.engine.plan import Plan, Training
from ddrank_core.engine.seed import derive, generator
from ddrank_core.types import DistilledSet, RealData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ddrank_core.engine.teacher_check import TeacherCheck


@attrs.frozen(eq=False, kw_only=True)
class Split:
    """The real training set, as index tensors int64 on the CPU: what to train on, what to choose by."""

    rest: Tensor
    validation: Tensor


@attrs.frozen(eq=False, kw_only=True)
class Prepared:
    """A run that is known to be well-formed."""

    config: RunConfig
    where: str
    """The config's path, as the user gave it."""
    plan: Plan
    teacher_training: Training | None
    real: RealData
    distilled: DistilledSet
    distilled_digest: str
    counts: tuple[int, ...]
    """Images of each class in the distilled set; the random arms draw as many."""
    split: Split
    device: torch.device
    space: WorkingSpace
    """What the networks see images in: normalised, or whitened."""
    views: StoredViews | None = None
    teacher_checks: tuple[TeacherCheck | None, ...] = ()
    """What each teacher was found to know; None for one that is trained here, or that no arm asks."""
    step_activations: int = 0
    """Activations of the largest training step, found by rehearsing it."""


def split_training_set(real: RealData, share: float, seed: int) -> Split:
    """Return which real training images are trained on and which are set aside to choose by.

    The split is stratified: `share` of each class, rounded, drawn from the seed; at least one image of
    a class that has two or more is set aside, and at least one stays.
    """
    import torch

    if share == 0:
        return Split(rest=torch.arange(len(real.train_labels)), validation=torch.empty(0, dtype=torch.int64))
    source = generator(derive(seed, "validation"))
    rest, aside = [], []
    for label in range(real.num_classes):
        members = (real.train_labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=source)]
        count = min(max(round(share * len(members)), 1), len(members) - 1) if len(members) else 0
        aside.append(members[:count])
        rest.append(members[count:])
    return Split(rest=torch.cat(rest).sort().values, validation=torch.cat(aside).sort().values)


def draw_subset(prepared: Prepared, subset_seed: int) -> Tensor:
    """Return the indices of a random subset of the real training images, int64, class by class.

    Each class gives as many images as it has in the distilled set, none of them twice, and none
    that is set aside to choose by.
    """
    import torch

    source = generator(subset_seed)
    labels = prepared.real.train_labels[prepared.split.rest]
    drawn = []
    for label, count in enumerate(prepared.counts):
        members = (labels == label).nonzero().flatten()
        drawn.append(members[torch.randperm(len(members), generator=source)[:count]])
    return prepared.split.rest[torch.cat(drawn)]


def digest_of(*tensors: Tensor) -> str:
    """Return the SHA-256 of tensors, dtype and shape included."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().data)
    return whole.hexdigest()


def unit_images(prepared: Prepared) -> Tensor:
    """Return the distilled images in [0, 1] units (not clipped), float32 [N, C, H, W], on the CPU."""
    return prepared.space.to(_cpu()).to_unit(working_images(prepared))


def working_images(prepared: Prepared, first: int | None = None) -> Tensor:
    """Return the first distilled images, or all, in the working space, float32 [N, C, H, W], on the CPU."""
    distilled, real = prepared.distilled, prepared.real
    images = distilled.images[:first]
    if prepared.config.whitening is None:
        return distilled_file.to_space(images, distilled.space, real.mean, real.std)
    if distilled.space.kind == "zca":
        return images
    unit = distilled_file.to_unit(images, distilled.space)
    return prepared.space.to(_cpu()).normalise(unit)


Part = Literal["train", "test", "test images", "test labels"]


def real_digest(real: RealData, part: Part) -> str:
    """Return the SHA-256 that stands for a part of a real data set; `train`, `test`: images with labels.

    It is that of the tensors, or where the data set brings a digest of its own, made from that.
    """
    if real.digest is not None:
        return hashlib.sha256(f"{real.digest}, {part}".encode()).hexdigest()
    match part:
        case "train":
            return digest_of(real.train_images, real.train_labels)
        case "test":
            return digest_of(real.test_images, real.test_labels)
        case "test images":
            return digest_of(real.test_images)
        case "test labels":
            return digest_of(real.test_labels)


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")
