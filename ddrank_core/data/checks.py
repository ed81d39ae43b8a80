"""What a distilled set must be, by itself and next to the real data set that it stands for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, get_args

from ddrank_core.errors import DataError
from ddrank_core.types import DistilledSet, ImageSpace, RealData, SoftKind

if TYPE_CHECKING:
    from torch import Tensor

MAX_CLASSES = 1_000_000
PROBABILITY_TOLERANCE = 1e-3
"""How far the probabilities of one soft label may be from summing to 1."""


class Described(Protocol):
    """What a distilled set and the header of one have in common."""

    @property
    def num_classes(self) -> int: ...
    @property
    def space(self) -> ImageSpace: ...
    @property
    def soft_kind(self) -> SoftKind: ...
    @property
    def soft_temperature(self) -> float: ...
    @property
    def learning_rate(self) -> float | None: ...


def check_described(described: Described, channels: int, soft_width: int | None, where: str) -> None:
    """Check all that can be checked without reading a pixel or a label.

    Raises:
        DataError: for the first fault, naming `where` and the field.
    """
    if channels not in (1, 3):
        raise DataError(f"{where}: images: {channels} channels, but must be 1 (grey) or 3 (colour)")
    if not 1 <= described.num_classes <= MAX_CLASSES:
        raise DataError(f"{where}: num_classes: {described.num_classes}, but must be from 1 to {MAX_CLASSES}")
    if described.soft_kind not in get_args(SoftKind):
        raise DataError(f"{where}: soft_kind: {described.soft_kind!r}, but must be logits or probabilities")
    temperature = described.soft_temperature
    if not (math.isfinite(temperature) and temperature > 0):
        raise DataError(f"{where}: soft_temperature: {temperature}, but must be finite and above 0")
    if described.soft_kind == "logits" and temperature != 1:
        raise DataError(f"{where}: soft_temperature: {temperature:g}, but only probabilities can have one")
    if soft_width is not None and soft_width != described.num_classes:
        raise DataError(
            f"{where}: soft_labels: {soft_width} values per image for {described.num_classes} classes"
        )
    rate = described.learning_rate
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise DataError(f"{where}: learning_rate: {rate}, but must be finite and above 0")
    check_space(described.space, channels, where)


def check_space(space: ImageSpace, channels: int, where: str) -> None:
    """Check that a space is known, and has one mean and one std per channel where it needs them.

    Raises:
        DataError: for the first fault, naming `where` and the field.
    """
    if space.kind not in ("unit", "normalised", "zca"):
        raise DataError(f"{where}: space: {space.kind!r}, but must be unit, normalised or zca")
    needed = channels if space.kind == "normalised" else 0
    for name, values in (("mean", space.mean), ("std", space.std)):
        if len(values) != needed:
            raise DataError(
                f"{where}: space: {name} has length {len(values)}, but must have {needed} "
                f"for {space.kind} images of {channels} channel{'s' * (channels != 1)}"
            )
        if not all(map(math.isfinite, values)):
            raise DataError(f"{where}: space: {name} holds NaN or Inf")
    if any(value <= 0 for value in space.std):
        raise DataError(f"{where}: space: std must be above 0 in every channel")


def validate(distilled: DistilledSet, where: str) -> None:
    """Check that a distilled set is whole and consistent in itself.

    Raises:
        DataError: for the first fault, naming `where` and the field.
    """
    import torch

    images, labels, soft = distilled.images, distilled.labels, distilled.soft_labels
    _check_tensor(images, 4, torch.float32, f"{where}: images")
    _check_tensor(labels, 1, torch.int64, f"{where}: labels")
    if soft is not None:
        _check_tensor(soft, 2, torch.float32, f"{where}: soft_labels")
    for name, tensor in (("labels", labels), ("soft_labels", soft)):
        if tensor is not None and len(tensor) != len(images):
            raise DataError(f"{where}: {name}: {len(tensor)} for {len(images)} images")
    check_described(distilled, images.shape[1], None if soft is None else soft.shape[1], where)
    _check_finite(images, f"{where}: images")
    _check_labels(labels, distilled.num_classes, f"{where}: labels")
    if soft is not None:
        _check_soft(soft, distilled.soft_kind, f"{where}: soft_labels")


def _check_tensor(tensor: Tensor, rank: int, dtype: object, where: str) -> None:
    shape = "x".join(map(str, tensor.shape))
    if tensor.ndim != rank:
        raise DataError(f"{where}: rank {tensor.ndim} (shape {shape or 'scalar'}), but must be {rank}")
    if tensor.dtype != dtype:
        raise DataError(f"{where}: {tensor.dtype}, but must be {dtype}")
    if 0 in tensor.shape:
        raise DataError(f"{where}: empty (shape {shape})")


def _check_finite(tensor: Tensor, where: str) -> None:
    bad = ~tensor.isfinite().flatten(1).all(dim=1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise DataError(
            f"{where}: NaN or Inf in {int(bad.sum())} of {len(bad)} (the first is number {first})"
        )


def _check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    bad = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(bad):
        first = int(bad[0])
        raise DataError(
            f"{where}: {len(bad)} out of range: number {first} is {int(labels[first])}, "
            f"but must be from 0 to {num_classes - 1}"
        )


def _check_soft(soft: Tensor, kind: SoftKind, where: str) -> None:
    _check_finite(soft, where)
    if kind != "probabilities":
        return
    if float(soft.min()) < 0:
        raise DataError(f"{where}: negative probabilities; are they logits?")
    off = (soft.double().sum(dim=1) - 1).abs()
    if float(off.max()) > PROBABILITY_TOLERANCE:
        worst = int(off.argmax())
        raise DataError(
            f"{where}: the probabilities of number {worst} sum to {float(soft[worst].sum()):.4g}, not 1; "
            "are they logits?"
        )


def check_against(distilled: DistilledSet, real: RealData, ipc: int | None, where: str) -> None:
    """Check that a distilled set fits the real data set, and holds `ipc` images of every class.

    Without an `ipc`, classes may differ in number, but none may be missing.

    Raises:
        DataError: for the first fault, naming `where`, the field and the class.
    """
    import torch

    ours, theirs = tuple(distilled.images.shape[1:]), real.image_shape
    if ours[0] != theirs[0]:
        raise DataError(f"{where}: images: {ours[0]} channels, but the data set's have {theirs[0]}")
    if ours != theirs:
        raise DataError(
            f"{where}: images: {ours[1]}x{ours[2]} pixels, but the data set's are {theirs[1]}x{theirs[2]}"
        )
    if distilled.num_classes != real.num_classes:
        raise DataError(
            f"{where}: num_classes: {distilled.num_classes}, but the data set has {real.num_classes}"
        )
    _check_class_order(distilled, real, where)
    counts = torch.bincount(distilled.labels, minlength=real.num_classes).tolist()
    for index, (count, name) in enumerate(zip(counts, real.class_names, strict=True)):
        named = f"class {index}" if name == str(index) else f"class {index} ({name})"
        if count == 0:
            raise DataError(f"{where}: labels: no image of {named}")
        if ipc is not None and count != ipc:
            raise DataError(f"{where}: labels: {count} images of {named}, but the declared IPC is {ipc}")


def _check_class_order(distilled: DistilledSet, real: RealData, where: str) -> None:
    """Refuse class folders whose order is not the data set's: every label would be silently wrong."""
    names = distilled.info.get("class_names")
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(real.class_names):
        return
    for index, (ours, theirs) in enumerate(zip(names, real.class_names, strict=True)):
        if ours != theirs:
            raise DataError(
                f"{where}: info.class_names: class {index} is {ours!r}, but the data set's is {theirs!r}; "
                "number the class folders in the data set's order"
            )
