"""Reads IDX files, the format that MNIST and its relatives come in."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from ddrank_core import DataError

if TYPE_CHECKING:
    from torch import Tensor

_UNSIGNED_BYTE = 0x08
_GZIP = b"\x1f\x8b"


def read_idx(path: Path, shape: tuple[int, ...], digest: str) -> Tensor:
    """Read one file of unsigned bytes, gzip or plain (told by content), into uint8 of `shape`.

    No more than the expected size is ever unpacked, whatever a gzip stream would grow to. `digest`
    is `algorithm:hexadecimal` of the unpacked file, header included.

    Raises:
        DataError: if the file cannot be read, is cut off or too long, or is not the expected one.
    """
    import torch

    header = struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)
    size = len(header) + math.prod(shape)
    content = _read(path, size + 1)
    _check_header(path, content, header, shape)
    if len(content) != size:
        fault = (
            f"is cut off after {len(content)} of {size} bytes"
            if len(content) < size
            else f"has more than {size} bytes"
        )
        raise DataError(f"{path}: {fault}; delete it and fetch it again")
    algorithm, _, expected = digest.partition(":")
    if hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() != expected:
        raise DataError(
            f"{path}: is not the official file (its unpacked {algorithm} differs); "
            "delete it and fetch it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=len(header)).reshape(shape)


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if not packed:
                return file.read(limit)
            with gzip.GzipFile(fileobj=file) as stream:
                return stream.read(limit)
    except EOFError as error:
        raise DataError(f"{path}: its gzip stream is cut off; delete it and fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: its gzip stream is damaged ({error}); delete it and fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_header(path: Path, content: bytes, header: bytes, shape: tuple[int, ...]) -> None:
    if content[:4] != header[:4]:
        raise DataError(
            f"{path}: is not an IDX file of bytes in {len(shape)} dimensions: it starts with "
            f"{content[:4].hex() or 'nothing'}, not {header[:4].hex()}"
        )
    if len(content) >= len(header) and content[: len(header)] != header:
        found = struct.unpack_from(f">{len(shape)}I", content, 4)
        raise DataError(f"{path}: holds {_dims(found)} values, and {_dims(shape)} are expected")


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
