"""Distilled sets on disk: one self-describing safetensors file each.

Tensors: `images` float32 [N, C, H, W], `labels` int64 [N], and where there are any `soft_labels`
float32 [N, K]. Everything else is text in the safetensors metadata; `header` reads it without torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
import uuid
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from ddrank_core.data.checks import check_against as check_against
from ddrank_core.data.checks import check_described
from ddrank_core.data.checks import validate as validate
from ddrank_core.errors import DataError
from ddrank_core.types import DistilledSet, ImageSpace, SoftKind

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "ddrank-distilled"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 30
_DTYPES = {"labels": ("I64", 8), "images": ("F32", 4), "soft_labels": ("F32", 4)}
_RANKS = {"labels": 1, "images": 4, "soft_labels": 2}


@attrs.frozen(kw_only=True)
class DistilledHeader:
    """What a distilled set says about itself before any of its pixels is read."""

    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    n: int
    """The number of images."""
    num_classes: int
    space: ImageSpace
    soft_width: int | None = None
    """Values per soft label; None without soft labels."""
    soft_kind: SoftKind = "logits"
    soft_temperature: float = 1.0
    learning_rate: float | None = None
    info: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def has_soft(self) -> bool:
        return self.soft_width is not None

    @property
    def ipc(self) -> int:
        """Images per class, rounded down where classes differ."""
        return self.n // self.num_classes


@attrs.frozen
class _Stored:
    """Where a tensor lies in a file."""

    shape: tuple[int, ...]
    start: int
    length: int


def save(distilled: DistilledSet, path: Path) -> None:
    """Write a distilled set; the same set gives the same bytes.

    The file appears complete or not at all; one that exists is replaced.

    Raises:
        DataError: if the set is not valid, or the file cannot be written.
    """
    validate(distilled, str(path))
    named = {"labels": distilled.labels, "images": distilled.images, "soft_labels": distilled.soft_labels}
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in named.items() if tensor is not None
    }
    head = _pack(tensors, _metadata(distilled, str(path)))
    if len(head) > MAX_HEADER_BYTES:
        raise DataError(f"{path}: info: larger than {MAX_HEADER_BYTES >> 10} KiB, which no reader accepts")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            for tensor in tensors.values():
                file.write(tensor.numpy().data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def load(path: Path) -> DistilledSet:
    """Read a distilled set.

    Raises:
        DataError: naming file and field, if it is missing, damaged or not a valid set.
    """
    import torch

    about, stored = _read_header(path)
    dtypes = {"I64": torch.int64, "F32": torch.float32}
    tensors = {}
    with _opened(path) as file:
        for name, place in stored.items():
            file.seek(place.start)
            raw = bytearray(place.length)
            if file.readinto(raw) != place.length:
                raise DataError(f"{path}: {name}: the file was cut off while it was read")
            tensors[name] = torch.frombuffer(raw, dtype=dtypes[_DTYPES[name][0]]).reshape(place.shape)
    distilled = DistilledSet(
        images=tensors["images"],
        labels=tensors["labels"],
        soft_labels=tensors.get("soft_labels"),
        space=about.space,
        num_classes=about.num_classes,
        soft_kind=about.soft_kind,
        soft_temperature=about.soft_temperature,
        learning_rate=about.learning_rate,
        info=about.info,
    )
    validate(distilled, str(path))
    return distilled


def header(path: Path) -> DistilledHeader:
    """Read what a distilled set says about itself, without importing torch or numpy.

    Raises:
        DataError: naming file and field, if it is missing, damaged or of another format.
    """
    return _read_header(path)[0]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        DataError: if it cannot be read.
    """
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_space(images: Tensor, space: ImageSpace, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return images [N, C, H, W], which are in `space`, as normalised with `mean` and `std`.

    float32 in, float32 out, never clipped. Images that already are in that space come back as
    they are, bit for bit. Statistics are per channel, of unit-range pixels.

    Raises:
        DataError: for ZCA-whitened images, whose whitening a file does not hold.
    """
    if space.kind == "normalised" and (space.mean, space.std) == (mean, std):
        return images
    return (to_unit(images, space) - _shaped(mean, images)) / _shaped(std, images)


def to_unit(images: Tensor, space: ImageSpace) -> Tensor:
    """Return images [N, C, H, W], which are in `space`, in [0, 1] units, never clipped.

    Raises:
        DataError: for ZCA-whitened images, whose whitening a file does not hold.
    """
    if space.kind == "zca":
        raise DataError("distilled set: space: ZCA-whitened images need a run with whitening")
    if space.kind == "unit":
        return images
    return images * _shaped(space.std, images) + _shaped(space.mean, images)


def _shaped(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(1, -1, 1, 1)


# Writing


def _metadata(distilled: DistilledSet, where: str) -> dict[str, str]:
    try:
        info = json.dumps(dict(distilled.info), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: info: cannot be written as JSON: {error}") from error
    space = {k: v for k, v in attrs.asdict(distilled.space).items() if v}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "space": json.dumps(space, sort_keys=True),
        "num_classes": str(distilled.num_classes),
        "info": info,
    }
    if distilled.soft_labels is not None:
        metadata["soft_kind"] = distilled.soft_kind
        if distilled.soft_temperature != 1.0:
            metadata["soft_temperature"] = repr(float(distilled.soft_temperature))
    if distilled.learning_rate is not None:
        metadata["learning_rate"] = repr(float(distilled.learning_rate))
    return metadata


def _pack(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return a safetensors header.

    Written here because the library puts the metadata in an order that differs from process to
    process, and the digest of a set should not.
    """
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        dtype, width = _DTYPES[name]
        start, end = end, end + tensor.numel() * width
        entries[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


# Reading


def _opened(path: Path) -> BufferedReader:
    """Open a plain file for reading; anything else, a pipe for one, could block for ever."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{path}: is a folder, not a file")
        if not stat.S_ISREG(mode):
            raise DataError(f"{path}: is not a plain file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error


def _read_header(path: Path) -> tuple[DistilledHeader, dict[str, _Stored]]:
    where = str(path)
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{where}: larger than {MAX_FILE_BYTES >> 30} GiB, which no distilled set is")
        raw_length = file.read(8)
        length = struct.unpack("<Q", raw_length)[0] if len(raw_length) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise DataError(
                f"{where}: not a distilled set (no safetensors header of at most "
                f"{MAX_HEADER_BYTES >> 10} KiB); 'ddrank import' makes one from what a method published"
            )
        raw = file.read(length)
    if len(raw) < length:
        raise DataError(f"{where}: cut off: the header ends after {len(raw)} of {length} bytes")
    entries = _json_object(raw, f"{where}: header")
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise DataError(
            f"{where}: format: a safetensors file, but not a distilled set ('{FORMAT}'); "
            "'ddrank import' makes one from what a method published"
        )
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise DataError(
            f"{where}: format_version: {metadata.get('format_version')!r}, "
            f"but this version of ddrank reads {FORMAT_VERSION}"
        )
    stored = _stored(entries, 8 + length, size, where)
    return _about(metadata, stored, where), stored


def _json_object(text: bytes | str, where: str) -> dict[str, Any]:
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: damaged: cannot be read as JSON") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: damaged: not a JSON object")
    return value


def _stored(entries: dict[str, Any], base: int, size: int, where: str) -> dict[str, _Stored]:
    """Return where each tensor lies; together they fill the file exactly, without overlap."""
    missing = {"images", "labels"} - set(entries)
    if missing:
        raise DataError(f"{where}: {min(missing)}: missing")
    places = {}
    for name, entry in entries.items():
        if name not in _DTYPES:
            raise DataError(f"{where}: {name[:40]!r}: unknown tensor; known: {', '.join(_DTYPES)}")
        places[name] = _place(name, entry, base, size, where)
    end = base
    for place in sorted(places.values(), key=lambda place: place.start):
        if place.start != end:
            raise DataError(f"{where}: header: damaged: its tensors overlap or leave gaps")
        end += place.length
    if end != size:
        raise DataError(f"{where}: damaged: {size} bytes long, though its header accounts for {end}")
    return places


def _place(name: str, entry: Any, base: int, size: int, where: str) -> _Stored:
    fields = entry if isinstance(entry, dict) else {}
    dtype, width = _DTYPES[name]
    if fields.get("dtype") != dtype:
        raise DataError(f"{where}: {name}: must be {dtype}, not {str(fields.get('dtype'))[:20]}")
    shape = _naturals(fields.get("shape"))
    if len(shape) != _RANKS[name] or 0 in shape:
        raise DataError(
            f"{where}: {name}: shape {list(shape)}, but must have rank {_RANKS[name]} and no zeros"
        )
    offsets = _naturals(fields.get("data_offsets"))
    if len(offsets) != 2:
        raise DataError(f"{where}: {name}: damaged: no start and end in the file")
    start, end = offsets
    if base + end > size:
        raise DataError(f"{where}: {name}: cut off: ends at byte {base + end}, the file at {size}")
    if end - start != math.prod(shape) * width:
        raise DataError(f"{where}: {name}: damaged: {end - start} bytes do not hold shape {list(shape)}")
    return _Stored(shape, base + start, end - start)


def _naturals(value: Any) -> tuple[int, ...]:
    """Return a short JSON list of numbers from 0 to 2**63 as a tuple; an empty one for all else."""
    short = isinstance(value, list) and len(value) <= 4
    return tuple(value) if short and all(type(item) is int and 0 <= item < 1 << 63 for item in value) else ()


def _about(metadata: dict[str, Any], stored: dict[str, _Stored], where: str) -> DistilledHeader:
    _, *image_shape = stored["images"].shape
    soft = stored.get("soft_labels")
    about = DistilledHeader(
        image_shape=(image_shape[0], image_shape[1], image_shape[2]),
        n=stored["images"].shape[0],
        num_classes=_number(metadata.get("num_classes"), int, f"{where}: num_classes"),
        space=_space(metadata.get("space"), f"{where}: space"),
        soft_width=soft.shape[1] if soft else None,
        soft_kind=metadata.get("soft_kind", "logits"),
        soft_temperature=_number(
            metadata.get("soft_temperature", "1.0"), float, f"{where}: soft_temperature"
        ),
        learning_rate=_number(metadata.get("learning_rate"), float, f"{where}: learning_rate")
        if "learning_rate" in metadata
        else None,
        info=_json_object(str(metadata.get("info", "{}")), f"{where}: info"),
    )
    if stored["labels"].shape[0] != about.n:
        raise DataError(f"{where}: labels: {stored['labels'].shape[0]} labels for {about.n} images")
    if soft and soft.shape[0] != about.n:
        raise DataError(f"{where}: soft_labels: {soft.shape[0]} soft labels for {about.n} images")
    check_described(about, image_shape[0], about.soft_width, where)
    return about


def _number(text: Any, kind: Any, where: str) -> Any:
    try:
        return kind(text if isinstance(text, str) else "")
    except ValueError as error:
        raise DataError(f"{where}: {str(text)[:40]!r} is not a number") from error


def _space(text: Any, where: str) -> ImageSpace:
    fields = _json_object(text if isinstance(text, str) else "", where)
    unknown = set(fields) - {"kind", "mean", "std"}
    if unknown:
        raise DataError(f"{where}: unknown field {min(unknown)[:40]!r}")
    return ImageSpace(
        kind=fields.get("kind"),  # type: ignore[arg-type]  # check_described refuses what it may not be
        mean=_floats(fields.get("mean", []), f"{where}: mean"),
        std=_floats(fields.get("std", []), f"{where}: std"),
    )


def _floats(values: Any, where: str) -> tuple[float, ...]:
    try:
        if isinstance(values, list) and all(type(item) in (int, float) for item in values):
            return tuple(map(float, values))
    except OverflowError:
        pass
    raise DataError(f"{where}: must be a list of numbers")
