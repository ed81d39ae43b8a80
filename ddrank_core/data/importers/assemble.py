"""Make a distilled set of tensors as methods save them: other types, soft labels, a rate of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.data.checks import validate
from ddrank_core.data.distilled import digest
from ddrank_core.data.importers.noise import check_not_noise
from ddrank_core.data.importers.options import ImportOptions, SpaceKind
from ddrank_core.errors import DataError
from ddrank_core.types import DistilledSet, SoftKind

if TYPE_CHECKING:
    from torch import Tensor

MAX_VALUES = 1 << 31
"""Pixel values in one set: 8 GiB as float32."""
MAX_UNIT = 100.0
"""Distilled pixels leave [0, 1], but only 0..255 pictures go this far."""
RESERVED = ("source", "source_sha256", "dataset", "recorded_accuracies", "experiment", "class_names")
"""Keys of `info` that an importer fills itself."""


@attrs.frozen(eq=False, kw_only=True)
class Parts:
    """What was found in a source, as it was found."""

    images: Any
    labels: Any = None
    soft_labels: Any = None
    learning_rate: float | None = None
    space: SpaceKind | None = None
    """Where the kind of source decides it; the option goes first."""
    files: tuple[Path, ...] = ()
    info: dict[str, Any] = attrs.field(factory=dict)


def assemble(parts: Parts, options: ImportOptions, source: Path, where: str) -> DistilledSet:
    """Return a valid distilled set.

    Images may be of any float type, or uint8 in 0..255. Labels may be whole numbers of any type
    [N] or [N, 1], or soft labels [N, K]; hard labels are then their argmax, unless given too.

    Raises:
        DataError: naming `where` and the field.
    """
    stored = sum(file.stat().st_size for file in parts.files) or None
    images, is_8_bit = image_tensor(parts.images, stored, where)
    labels, soft = _labels(parts.labels, parts.soft_labels, stored, where)
    if options.soft_kind is not None and soft is None:
        raise DataError(f"{where}: --soft-kind: there are no soft labels")
    shape = tuple(images.shape[1:])
    options.check_shape(shape, where)
    if is_8_bit and options.space not in (None, "unit"):
        raise DataError(f"{where}: images: 8-bit values are in unit space, not {options.space}")
    # A recorded accuracy shows that somebody has trained with the images, whatever they look like.
    if options.space != "zca" and not parts.info.get("recorded_accuracies"):
        check_not_noise(images, where)
    space = options.image_space("unit" if is_8_bit else parts.space, shape[0], where)
    distilled = DistilledSet(
        images=images,
        labels=labels,
        soft_labels=soft,
        space=space,
        num_classes=options.classes() or _classes(labels, soft),
        soft_kind=options.soft_kind or soft_kind(soft),
        learning_rate=parts.learning_rate,
        info=_info(parts, options, source, where),
    )
    validate(distilled, where)
    if space.kind == "unit" and float(images.abs().max()) > MAX_UNIT:
        raise DataError(f"{where}: images: values up to {float(images.abs().max()):.4g}, but unit is 0 to 1")
    return distilled


def image_tensor(value: Any, stored_bytes: int | None, where: str) -> tuple[Tensor, bool]:
    """Return images [N, C, H, W] as float32, and whether they were 8-bit pictures, now in [0, 1].

    Raises:
        DataError: if they are not images.
    """
    import torch

    images = _tensor(value, stored_bytes, f"{where}: images")
    shape = "x".join(map(str, images.shape))
    if images.ndim == 2:
        raise DataError(f"{where}: images: shape {shape}: {images.shape[1]}-long vectors, not images")
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(f"{where}: images: shape {shape or 'scalar'}, but must be [N, C, H, W]")
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        raise DataError(f"{where}: images: shape {shape}: channels are last; save them as [N, C, H, W]")
    if images.dtype == torch.uint8:
        return images.float() / 255, True
    if not images.is_floating_point():
        raise DataError(f"{where}: images: {images.dtype}, but must be a float type or uint8")
    return images.float().contiguous(), False


def _tensor(value: Any, stored_bytes: int | None, where: str) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        raise DataError(f"{where}: {type(value).__name__}, but must be a dense tensor")
    # A tensor of few bytes can claim any shape by repeating them.
    if value.numel() > min(MAX_VALUES, stored_bytes or MAX_VALUES):
        raise DataError(f"{where}: {value.numel()} values, more than the file can hold")
    return value.detach().cpu()


def _labels(hard: Any, soft: Any, stored_bytes: int | None, where: str) -> tuple[Tensor, Tensor | None]:
    given = None if hard is None else _tensor(hard, stored_bytes, f"{where}: labels")
    if given is not None and given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given is not None and given.ndim == 2 and given.is_floating_point():
        if soft is not None:
            raise DataError(f"{where}: labels: two sets of soft labels; hard labels must have shape [N]")
        soft, given = given, None
    if soft is None:
        return _hard(given, where), None
    softs = _tensor(soft, stored_bytes, f"{where}: soft_labels")
    if softs.ndim != 2 or not softs.is_floating_point() or 0 in softs.shape:
        raise DataError(f"{where}: soft_labels: {_describe(softs)}, but must be a float type, shape [N, K]")
    softs = softs.float().contiguous()
    return softs.argmax(dim=1) if given is None else _hard(given, where), softs


def _hard(labels: Tensor | None, where: str) -> Tensor:
    import torch

    if labels is None:
        raise DataError(f"{where}: labels: missing")
    if labels.ndim != 1 or not len(labels) or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"{where}: labels: {_describe(labels)}, but must be whole numbers, shape [N]")
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise DataError(f"{where}: labels: {_describe(labels)} with values that are not whole numbers")
    return labels.long().contiguous()


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _classes(labels: Tensor, soft: Tensor | None) -> int:
    return int(soft.shape[1] if soft is not None else max(0, int(labels.max())) + 1)


def soft_kind(soft: Tensor | None) -> SoftKind:
    """Tell probabilities from logits: every row of the former is positive and sums to 1, to the digit."""
    if soft is None or float(soft.min()) < 0 or float((soft.double().sum(dim=1) - 1).abs().max()) > 1e-3:
        return "logits"
    return "probabilities"


def _info(parts: Parts, options: ImportOptions, source: Path, where: str) -> dict[str, Any]:
    for key in options.info:
        if key in RESERVED:
            raise DataError(f"{where}: --info {key}: is filled in by the import itself")
    info = {**options.info, **parts.info, "source": source.resolve().name}
    if parts.files:
        info["source_sha256"] = {file.name: digest(file) for file in parts.files}
    if options.dataset:
        info["dataset"] = options.dataset
    return info
