"""Everything that can be found wrong before the first training: data, plan, networks, a rehearsal.

`ddrank check` stops here; `ddrank run` goes on from here. Nothing is written.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ddrank_core.config import RunConfig, Teacher
from ddrank_core.data import distilled as distilled_file
from ddrank_core.engine.images import Normaliser, normaliser
from ddrank_core.engine.plan import Plan, Training, full_training, make_plan
from ddrank_core.engine.seed import derive, generator, randomness
from ddrank_core.engine.teachers import freeze, load_checkpoint
from ddrank_core.engine.train import Setting, augment, build
from ddrank_core.errors import ConfigError, DataError, DDRankError, one_line
from ddrank_core.registry import Registry
from ddrank_core.structure import Structurer
from ddrank_core.types import DistilledSet, RealData, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
    normaliser: Normaliser


def prepare(config: RunConfig, where: str, registry: Registry, device: torch.device) -> Prepared:
    """Load the data and check it all together, up to one rehearsed step of every arm.

    Raises:
        DDRankError: one line that names the file and the field.
    """
    if config.precision == "bf16" and device.type != "cuda":
        raise ConfigError(
            f"{where}: precision: bf16 needs a CUDA device, and this run is on {device}; use fp32"
        )
    real = config.dataset.component.load()
    check_real(real, f"dataset {config.dataset.use}")
    distilled = distilled_file.load(config.distilled.path)
    distilled_file.check_against(distilled, real, config.distilled.ipc, str(config.distilled.path))
    _check_soft(config, distilled, where)
    plan, teacher_training = _plan(config, distilled, registry)
    prepared = Prepared(
        config=config,
        where=where,
        plan=plan,
        teacher_training=teacher_training,
        real=real,
        distilled=distilled,
        distilled_digest=distilled_file.digest(config.distilled.path),
        counts=_class_counts(distilled.labels, real.num_classes),
        split=split_training_set(real, plan.validation_share, config.seed),
        device=device,
        normaliser=normaliser(real.mean, real.std, device),
    )
    _check_random(prepared)
    _rehearse(prepared)
    return prepared


def check_real(real: RealData, where: str) -> None:
    """Check what a data set's plugin returned; the test labels' values are not looked at.

    Raises:
        DataError: one line.
    """
    import torch

    for part in ("train", "test"):
        images, labels = getattr(real, f"{part}_images"), getattr(real, f"{part}_labels")
        shape = list(images.shape)
        if images.ndim != 4 or (images.dtype != torch.uint8 and images.dtype != torch.float32):
            raise DataError(
                f"{where}: {part}_images must be uint8 or float32 [N, C, H, W], got {images.dtype} {shape}"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{where}: {part}_labels must be int64 [{len(images)}], got {labels.dtype} "
                f"{list(labels.shape)}"
            )
        if len(images) == 0:
            raise DataError(f"{where}: {part}_images is empty")
    if real.train_images.shape[1:] != real.test_images.shape[1:]:
        raise DataError(f"{where}: train and test images differ in shape")
    low, high = int(real.train_labels.min()), int(real.train_labels.max())
    if low < 0 or high >= real.num_classes:
        raise DataError(
            f"{where}: train_labels go from {low} to {high}, but there are {real.num_classes} classes"
        )
    if not len(real.mean) == len(real.std) == real.image_shape[0] or not all(s > 0 for s in real.std):
        raise DataError(f"{where}: mean and std must have one value per channel, std above 0")


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
    host = normaliser(prepared.real.mean, prepared.real.std, _cpu())
    return host.to_unit(normalised_images(prepared))


def normalised_images(prepared: Prepared) -> Tensor:
    """Return the distilled images in the data set's normalised space, float32 [N, C, H, W], on the CPU."""
    distilled, real = prepared.distilled, prepared.real
    return distilled_file.to_space(distilled.images, distilled.space, real.mean, real.std)


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


def _class_counts(labels: Tensor, num_classes: int) -> tuple[int, ...]:
    return tuple(labels.bincount(minlength=num_classes).tolist())


def _check_soft(config: RunConfig, distilled: DistilledSet, where: str) -> None:
    labels, loss = config.recipe.labels, config.recipe.loss
    if not getattr(labels.component, "needs_stored_soft", False):
        return
    if distilled.soft_labels is None:
        raise ConfigError(
            f"{where}: recipe.labels: {labels.use} needs stored soft labels, and {config.distilled.path} "
            "has none; use the labels teacher or hard"
        )
    if getattr(loss.component, "needs_logits", False) and distilled.soft_kind != "logits":
        raise ConfigError(
            f"{where}: recipe.loss: {loss.use} needs logits, and {config.distilled.path} stores probabilities"
        )


def _plan(config: RunConfig, distilled: DistilledSet, registry: Registry) -> tuple[Plan, Training | None]:
    structurer = Structurer(registry, Path())
    hard, cross_entropy = structurer.chosen("label-mapping", "hard"), structurer.chosen("loss", "ce")
    plan = make_plan(config, distilled.learning_rate, hard, cross_entropy)
    recipe = config.full_data.recipe
    return plan, None if recipe is None else full_training(recipe, hard, cross_entropy)


def _check_random(prepared: Prepared) -> None:
    if not any(arm.training.source == "random" for arm in prepared.plan.arms):
        return
    labels = prepared.real.train_labels[prepared.split.rest]
    there = _class_counts(labels, prepared.real.num_classes)
    for name, has, wanted in zip(prepared.real.class_names, there, prepared.counts, strict=True):
        if wanted > has:
            raise ConfigError(
                f"{prepared.where}: distilled.path: {wanted} images of class {name}, but only {has} real "
                "ones are left to compare with; lower protocol.validation"
            )


def _rehearse(prepared: Prepared) -> None:
    """Run two images through every arm's augmentation, labels, network and loss, without a step."""
    import torch

    config, real = prepared.config, prepared.real
    teachers = tuple(_teacher_network(prepared, teacher, i) for i, teacher in enumerate(config.teachers))
    with _fault(prepared, "student"):
        student = build(config.student.component, real.num_classes, real.image_shape, 0).to(prepared.device)
    setting = Setting(
        device=prepared.device,
        precision=config.precision,
        normaliser=prepared.normaliser,
        teachers=lambda images: tuple(network(images) for network in teachers),
    )
    # Two images: with one, batch norm has nothing to average over.
    few = normalised_images(prepared)[:2].to(prepared.device)
    few = few if len(few) == 2 else few.repeat(2, 1, 1, 1)
    with torch.no_grad():
        for arm in prepared.plan.trained:
            _rehearse_arm(prepared, arm.name, arm.training, student, few, setting)


def _rehearse_arm(
    prepared: Prepared, name: str, training: Training, student: torch.nn.Module, few: Tensor, setting: Setting
) -> None:
    import torch

    draws = randomness(0, prepared.device)
    hard = torch.zeros(2, dtype=torch.int64, device=prepared.device)
    soft = torch.full((2, prepared.real.num_classes), 1 / prepared.real.num_classes, device=prepared.device)
    stored = getattr(training.labels.component, "needs_stored_soft", False)
    with _fault(prepared, f"{name}: augmentation"):
        images, mixing = augment(few, training, draws, prepared.normaliser)
        if images.shape != few.shape:
            raise ValueError(f"changes images of {list(few.shape[1:])} to {list(images.shape[1:])}")
    with _fault(prepared, f"{name}: labels"):
        view = View(images, hard, soft if stored else None, prepared.distilled.soft_kind, mixing)
        targets = training.labels.component(view, setting.teachers)
    with _fault(prepared, "student"):
        logits = student(images)
        if logits.shape != (2, prepared.real.num_classes):
            raise ValueError(
                f"gives logits of shape {list(logits.shape)} for 2 images and "
                f"{prepared.real.num_classes} classes"
            )
    with _fault(prepared, f"{name}: loss"):
        training.loss.component(logits.float(), targets)


def _teacher_network(prepared: Prepared, teacher: Teacher, index: int) -> torch.nn.Module:
    with _fault(prepared, f"teachers[{index}]"):
        network = build(teacher.network.component, prepared.real.num_classes, prepared.real.image_shape, 0)
    if teacher.checkpoint is not None:
        load_checkpoint(network, teacher.checkpoint, f"{prepared.where}: teachers[{index}].checkpoint")
    return freeze(network, prepared.device)


class _fault:
    """Turns what a component raises on a rehearsal into one line that names the config's field."""

    def __init__(self, prepared: Prepared, field: str) -> None:
        self._where = f"{prepared.where}: {field}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, DDRankError):
            return
        # The plugin boundary: a component may raise anything; a ValueError is its word to the user.
        text = str(error) if isinstance(error, ValueError) else one_line(error)
        raise ConfigError(f"{self._where}: {text}") from error
