"""Views of a distilled set with the soft labels that a teacher gave them, on disk: one safetensors file.

For each of E epochs and each of its N places, in the order of training: which image is shown, which part of
it, mirrored or not, mixed with which other place of its batch and how, and the teacher's soft label of that
view.

Tensors: `image` int32 [E, N]; `box` float32 [E, N, 4], top, left, height and width as shares of the image;
`flip` uint8 [E, N]; `soft` float16 or float32 [E, N, K]; and for mixed views `partner` int32 [E, N], a place
of the same epoch and batch, with either `paste` int32 [E, N, 4], the box (top, left, bottom, right, in
pixels) that is the partner's, or `weight` float32 [E, N], the share of the image itself.

Such a file can be larger than memory: it is written, checked and read one epoch at a time.

Source: Shen & Xing 2022 (FKD), whose labels SRe2L and its followers publish.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

from ddrank_core.errors import DataError, one_line
from ddrank_core.types import SoftKind

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "ddrank-views"
FORMAT_VERSION = "1"
Mixed = Literal["no", "paste", "weight"]
"""How views are mixed: not at all, by pasting a box of the partner (CutMix), or by weight (MixUp)."""
_BYTES = {"I32": 4, "F32": 4, "F16": 2, "U8": 1}
_WHOLE_PIXEL = 0.01
"""How far from a whole pixel an edge may come out; float32 shares of a 1000-pixel side lose 1e-4."""
_SUM_TOLERANCE = 0.01
"""How far probabilities may be from summing to 1: in half precision, 1000 of them are off by up to 5e-3."""


@attrs.frozen(eq=False, kw_only=True)
class Views:
    """The views of one epoch, in the order of training."""

    image: Tensor
    """int64 [N]: which image is shown."""
    box: Tensor
    """float32 [N, 4]: top, left, height, width as shares of the image."""
    flip: Tensor
    """bool [N]: whether it is mirrored, left to right."""
    soft: Tensor | None = None
    """float16 or float32 [N, K]; None where they were not asked for."""
    partner: Tensor | None = None
    """int64 [N]: the place of this epoch whose view is mixed in; of the same batch."""
    paste: Tensor | None = None
    """int64 [N, 4]: top, left, bottom, right in pixels; what lies inside is the partner's."""
    weight: Tensor | None = None
    """float32 [N] in [0, 1]: the share of the image itself."""


@attrs.frozen(eq=False, kw_only=True)
class About:
    """What a file of views says of itself."""

    epochs: int
    count: int
    """N: views per epoch."""
    num_classes: int
    batch_size: int
    """How many places make a batch; partners are of one batch."""
    mixed: Mixed = "no"
    soft_dtype: Literal["F16", "F32"] = "F32"
    soft_kind: SoftKind = "logits"
    soft_temperature: float = 1.0

    @property
    def mixes(self) -> bool:
        return self.mixed != "no"

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return each tensor's dtype and shape in one epoch, in the order of the file: the widest first."""
        count = (self.count,)
        mixing: dict[Mixed, dict[str, tuple[str, tuple[int, ...]]]] = {
            "no": {},
            "paste": {"partner": ("I32", count), "paste": ("I32", (*count, 4))},
            "weight": {"partner": ("I32", count), "weight": ("F32", count)},
        }
        return {
            "image": ("I32", count),
            "box": ("F32", (*count, 4)),
            **mixing[self.mixed],
            "soft": (self.soft_dtype, (*count, self.num_classes)),
            "flip": ("U8", count),
        }


@attrs.frozen(eq=False, kw_only=True)
class StoredViews(About):
    """A checked file of views; an epoch is read when it begins."""

    path: Path

    def epoch(self, epoch: int, *, with_labels: bool = True) -> Views:
        """Return the views of an epoch, from 0, on the CPU; after the last one, the first comes again.

        Raises:
            DataError: if the file cannot be read any more, or its labels are not what they should be.
        """
        from safetensors import safe_open

        which = epoch % self.epochs
        names = [name for name in self.tensors() if with_labels or name != "soft"]
        try:
            with safe_open(self.path, framework="pt") as file:
                read = {name: file.get_slice(name)[which : which + 1][0] for name in names}
        except Exception as error:  # whatever a damaged file, or one that changed, makes the reader raise
            raise DataError(f"{self.path}: cannot be read as stored views: {one_line(error)}") from error
        views = Views(
            **{name: t if t.is_floating_point() else t.long() for name, t in read.items() if name != "flip"},
            flip=read["flip"] != 0,
        )
        if with_labels:
            _check_labels(views, self, f"{self.path}: epoch {which}")
        return views


def load(path: Path, *, images: int, num_classes: int, size: tuple[int, int]) -> StoredViews:
    """Open a file of stored views of `images` images of `size` (height, width) and check all but its labels.

    An epoch's labels, which are nearly all of the file, are checked when the epoch is read.

    Raises:
        DataError: naming the file and the field.
    """
    views = StoredViews(path=path, **attrs.asdict(_about(path)))
    if views.num_classes != num_classes:
        raise DataError(f"{path}: soft: {views.num_classes} classes, but the data set has {num_classes}")
    for epoch in range(views.epochs):
        check_places(views.epoch(epoch, with_labels=False), views, images, size, f"{path}: epoch {epoch}")
    return views


def save(epochs: Iterable[Views], about: About, path: Path) -> None:
    """Write the epochs as they come, each with its labels; the file appears complete or not at all.

    Raises:
        DataError: if there are not as many as `about` says, labels are not what they should be, or the file
            cannot be written.
    """
    head, starts = _head(about)
    _check_space(starts["end"], path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    written = 0
    try:
        with temporary.open("xb") as file:
            file.write(head)
            for views in epochs:
                _check_labels(views, about, f"{path}: epoch {written}")
                for name, raw in _raw(views, about):
                    file.seek(starts[name] + written * len(raw))
                    file.write(raw)
                written += 1
            file.flush()
            os.fsync(file.fileno())
        if written != about.epochs:
            raise DataError(f"{path}: {written} epochs were given, not {about.epochs}")
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or one_line(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_places(views: Views, about: About, images: int, size: tuple[int, int], where: str) -> None:
    """Check what an epoch's places say, so that no replay can read outside an image or a batch.

    Raises:
        DataError: for the first fault, naming `where` and the field.
    """
    height, width = size
    if not _within(views.image, 0, images - 1):
        raise DataError(f"{where}: image: must be from 0 to {images - 1}, as in the distilled set")
    pixels = in_pixels(views.box, size)
    if not bool(((pixels - pixels.round()).abs() < _WHOLE_PIXEL).all()):
        raise DataError(f"{where}: box: not whole pixels of {height}x{width} images; made for another size?")
    top, left, tall, wide = pixels.round().unbind(dim=1)
    inside = (top >= 0) & (left >= 0) & (tall >= 1) & (wide >= 1)
    if not bool((inside & (top + tall <= height) & (left + wide <= width)).all()):
        raise DataError(f"{where}: box: must be shares (top, left, height, width) of a part of the image")
    if views.partner is not None:
        _check_partners(views.partner, about, where)
    if views.paste is not None and not _are_boxes(views.paste, size):
        raise DataError(f"{where}: paste: must be boxes in {height}x{width} pixels: top, left, bottom, right")
    if views.weight is not None and not _within(views.weight, 0, 1):
        raise DataError(f"{where}: weight: must be from 0 to 1")


def in_pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes [N, 4], shares of images of `size` (height, width), in pixels, not rounded."""
    import torch

    height, width = size
    top, left, tall, wide = boxes.unbind(dim=1)
    return torch.stack([top * height, left * width, tall * height, wide * width], dim=1)


def _check_partners(partner: Tensor, about: About, where: str) -> None:
    import torch

    batch = torch.arange(about.count) // about.batch_size
    if not _within(partner, 0, about.count - 1) or not bool((batch[partner] == batch).all()):
        raise DataError(f"{where}: partner: must be a place of the same batch of {about.batch_size}")


def _are_boxes(boxes: Tensor, size: tuple[int, int]) -> bool:
    top, left, bottom, right = boxes.unbind(dim=1)
    ordered = bool(((top <= bottom) & (left <= right)).all())
    return ordered and _within(boxes[:, ::2], 0, size[0]) and _within(boxes[:, 1::2], 0, size[1])


def _within(values: Tensor, low: float, high: float) -> bool:
    # NaN fails every comparison.
    return bool(((values >= low) & (values <= high)).all())


def _check_labels(views: Views, about: About, where: str) -> None:
    soft = views.soft
    assert soft is not None  # the caller has read them
    if not bool(soft.isfinite().all()):
        raise DataError(f"{where}: soft: NaN or infinite labels")
    if about.soft_kind != "probabilities":
        return
    if float(soft.min()) < 0 or float((soft.float().sum(dim=1) - 1).abs().max()) > _SUM_TOLERANCE:
        raise DataError(f"{where}: soft: probabilities must not be negative, and sum to 1")


# The file


def _about(path: Path) -> About:
    """Read what a file says of itself, and check that its tensors are what follows from that."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it has no __iter__
            found = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise DataError(f"{path}: cannot be read as stored views: {one_line(error)}") from error
    if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path}: not a file of stored views ('{FORMAT}' {FORMAT_VERSION})")
    dtype, shape = found.get("soft", ("none", ()))
    if dtype not in ("F16", "F32") or len(shape) != 3 or 0 in shape:
        raise DataError(
            f"{path}: soft: must be F16 or F32 [epochs, views, classes], not {dtype} {list(shape)}"
        )
    epochs, count, num_classes = shape
    about = About(
        epochs=epochs,
        count=count,
        num_classes=num_classes,
        mixed=_mixed(set(found)),
        soft_dtype=dtype,
        **_described(metadata, path),
    )
    expected = {name: (dtype, (epochs, *each)) for name, (dtype, each) in about.tensors().items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            raise DataError(
                f"{path}: {name[:40]}: is {_tensor_words(found.get(name))}, but must be "
                f"{_tensor_words(expected.get(name))}"
            )
    return about


def _mixed(names: set[str]) -> Mixed:
    if "weight" in names:
        return "weight"
    return "paste" if names & {"paste", "partner"} else "no"


def _tensor_words(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "missing" if tensor is None else f"{tensor[0]} {list(tensor[1])}"


def _described(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        batch_size = int(metadata.get("batch_size", ""))
        temperature = float(metadata.get("soft_temperature", ""))
    except ValueError as error:
        raise DataError(f"{path}: batch_size or soft_temperature: missing, or not a number") from error
    kind = metadata.get("soft_kind")
    if batch_size < 1 or not (math.isfinite(temperature) and temperature > 0):
        raise DataError(f"{path}: batch_size and soft_temperature must be above 0")
    if kind not in get_args(SoftKind):
        raise DataError(f"{path}: soft_kind: {json.dumps(kind)}, but must be logits or probabilities")
    if kind == "logits" and temperature != 1:
        raise DataError(f"{path}: soft_temperature: {temperature:g}, but only probabilities can have one")
    return {"batch_size": batch_size, "soft_kind": kind, "soft_temperature": temperature}


def _head(about: About) -> tuple[bytes, dict[str, int]]:
    """Return a safetensors header, and where each tensor and the file's end lie."""
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "batch_size": str(about.batch_size),
        "soft_kind": about.soft_kind,
        "soft_temperature": repr(float(about.soft_temperature)),
    }
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, each) in about.tensors().items():
        start, end = end, end + about.epochs * math.prod(each) * _BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": [about.epochs, *each], "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    starts = {name: base + entries[name]["data_offsets"][0] for name in about.tensors()}
    return struct.pack("<Q", len(text)) + text, {**starts, "end": base + end}


def _raw(views: Views, about: About) -> Iterable[tuple[str, memoryview]]:
    """Yield the bytes of each of an epoch's tensors."""
    import torch

    dtypes = {"I32": torch.int32, "F32": torch.float32, "F16": torch.float16, "U8": torch.uint8}
    for name, (dtype, shape) in about.tensors().items():
        tensor = getattr(views, name)
        if tensor is None or tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: must have shape {list(shape)}")
        yield name, tensor.to("cpu", dtypes[dtype]).contiguous().view(-1).numpy().view("uint8").data


def _check_space(needed: int, path: Path) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    if needed > free:
        raise DataError(f"{path}: needs {needed / 2**30:.1f} GiB, and only {free / 2**30:.1f} are free there")
