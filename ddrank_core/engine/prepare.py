"""Everything that can be found wrong without a training step: data, plan, networks, teachers.

Every command that works with a config begins here. `ddrank check` rehearses a step of every arm besides, and
so does a run before it trains anything. Nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ddrank_core.config import RunConfig, TeacherConfig
from ddrank_core.data import distilled as distilled_file
from ddrank_core.data import stored_views
from ddrank_core.engine import whitening
from ddrank_core.engine.images import WorkingSpace, normaliser
from ddrank_core.engine.plan import Plan, Training, asks_teachers, full_training, make_plan
from ddrank_core.engine.prepared import Prepared, real_digest, split_training_set
from ddrank_core.engine.rehearse import fault, step_activations
from ddrank_core.engine.teacher_check import check_teachers
from ddrank_core.errors import ConfigError, DataError
from ddrank_core.registry import Registry
from ddrank_core.store import cache_folder
from ddrank_core.structure import Structurer
from ddrank_core.types import DistilledSet, RealData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_CLASSES = 1 << 16
"""Predictions are kept as uint16."""


def prepare(
    config: RunConfig,
    where: str,
    registry: Registry,
    device: torch.device,
    real: RealData | None = None,
    elsewhere: bool = False,
) -> Prepared:
    """Load the data and check it all together, up to the student's answer to an image.

    `real` is the config's data set where it has been loaded before. `elsewhere` says that trials are trained
    on other devices than this one.

    Raises:
        DDRankError: one line that names the file and the field.
    """
    if config.precision != "fp32" and device.type != "cuda" and not elsewhere:
        raise ConfigError(
            f"{where}: precision: {config.precision} needs a CUDA device, and this run is on {device}; "
            "use fp32"
        )
    if real is None:
        with fault(f"{where}: dataset"):
            real = config.dataset.component.load()
        check_real(real, f"dataset {config.dataset.use}")
    distilled = distilled_file.load(config.distilled.path)
    if distilled.space.kind == "zca" and config.whitening is None:
        raise ConfigError(
            f"{where}: whitening: missing; the images of {config.distilled.path} are ZCA-whitened, so give "
            "the eps of the whitening that its method trains with (MTT and its followers: "
            "whitening: {eps: 0.1})"
        )
    distilled_file.check_against(distilled, real, config.distilled.ipc, str(config.distilled.path))
    _check_soft(config, distilled, where)
    views = _views(config, distilled, where)
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
        space=working_space(config, real, device),
        views=views,
    )
    _check_split(prepared)
    _check_random(prepared)
    prepared = attrs.evolve(prepared, step_activations=step_activations(prepared))
    if any(asks_teachers(arm.training) for arm in plan.trained):
        prepared = attrs.evolve(prepared, teacher_checks=check_teachers(prepared))
    return prepared


def working_space(config: RunConfig | TeacherConfig, real: RealData, device: torch.device) -> WorkingSpace:
    """Return the space that the config's networks see images in."""
    if config.whitening is None:
        return normaliser(real.mean, real.std, device)
    eps = config.whitening.eps
    kept = cache_folder() / "whitening" / f"{real_digest(real, 'train')}-{eps!r}.safetensors"
    where = f"dataset {config.dataset.use}"
    return whitening.cached(kept, lambda: whitening.fit(real.train_images, eps, where)).to(device)


def _views(config: RunConfig, distilled: DistilledSet, where: str) -> stored_views.StoredViews | None:
    if config.distilled.views is None:
        return None
    named = str(config.distilled.views)
    count, _, height, width = distilled.images.shape
    views = stored_views.load(
        config.distilled.views, images=count, num_classes=distilled.num_classes, size=(height, width)
    )
    if views.mixes and views.batch_size != min(config.recipe.batch_size, count):
        raise ConfigError(
            f"{where}: recipe.batch_size: {config.recipe.batch_size}, but {named} mixes images in batches of "
            f"{views.batch_size}; use that, with recipe.micro_batch if it does not fit"
        )
    if getattr(config.recipe.loss.component, "needs_logits", False) and views.soft_kind != "logits":
        raise ConfigError(
            f"{where}: recipe.loss: {config.recipe.loss.use} needs logits, and {named} stores probabilities"
        )
    return views


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
    if real.num_classes > MAX_CLASSES:
        raise DataError(f"{where}: {real.num_classes} classes are more than {MAX_CLASSES}")
    if not len(real.mean) == len(real.std) == real.image_shape[0] or not all(s > 0 for s in real.std):
        raise DataError(f"{where}: mean and std must have one value per channel, std above 0")


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


def _check_split(prepared: Prepared) -> None:
    if prepared.plan.validation_share > 0 and len(prepared.split.validation) == 0:
        raise ConfigError(
            f"{prepared.where}: protocol: every class has a single real image, so none can be set aside to "
            "choose a learning rate by; give one learning rate"
        )


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
