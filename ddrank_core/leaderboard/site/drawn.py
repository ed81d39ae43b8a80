"""The images of a distilled set as one PNG, for a submission that brings no picture of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrank_core.data import distilled as distilled_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ddrank_core.types import DistilledSet

MAX_CLASSES, MAX_IMAGES = 20, 10
"""What is drawn: the first classes, and the first images of each."""
MAX_SET_BYTES = 256 << 20
_TILE, _GAP = 64, 4


def images_png(path: Path) -> bytes | None:
    """Return a row of images for each class, or one row of all where each class has one.

    None for a set that is too large to be read for a picture. Pixels of a space that cannot be turned back,
    as those of ZCA, are stretched between each image's least and greatest.

    Raises:
        DataError: one line, if the file is no distilled set.
    """
    if path.stat().st_size > MAX_SET_BYTES:
        return None
    found = distilled_file.load(path)
    tiles, labels = _tiles(found), found.labels.numpy()
    rows = [(labels == k).nonzero()[0][:MAX_IMAGES] for k in range(min(found.num_classes, MAX_CLASSES))]
    if max(map(len, rows)) <= 1:
        firsts = [index for row in rows for index in row]
        rows = [firsts[start : start + MAX_IMAGES] for start in range(0, len(firsts), MAX_IMAGES)]
    return _png(_sheet(tiles, rows))


def _tiles(found: DistilledSet) -> NDArray[np.uint8]:
    """Return the images as uint8 [N, H, W, 3], each pixel a square of whole pixels."""
    import numpy as np

    images = found.images.numpy().astype(np.float32)
    if found.space.kind == "normalised":
        mean, std = (
            np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (found.space.mean, found.space.std)
        )
        images = images * std + mean
    elif found.space.kind == "zca":
        low = images.min(axis=(1, 2, 3), keepdims=True)
        images = (images - low) / np.maximum(images.max(axis=(1, 2, 3), keepdims=True) - low, 1e-12)
    if images.shape[1] != 3:
        images = np.repeat(images.mean(axis=1, keepdims=True), 3, axis=1)
    pixels = (images.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    step = max(1, -(-max(pixels.shape[1:3]) // 224))
    larger = max(1, _TILE // max(pixels.shape[1:3]))
    return pixels[:, ::step, ::step].repeat(larger, axis=1).repeat(larger, axis=2)


def _sheet(tiles: NDArray[np.uint8], rows: Any) -> NDArray[np.uint8]:
    """Return the rows on a see-through ground, uint8 [H, W, 4]."""
    import numpy as np

    _, height, width, _ = tiles.shape
    columns = max(map(len, rows))
    sheet = np.zeros((len(rows) * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 4), np.uint8)
    for i, row in enumerate(rows):
        for j, index in enumerate(row):
            top, left = i * (height + _GAP), j * (width + _GAP)
            sheet[top : top + height, left : left + width, :3] = tiles[index]
            sheet[top : top + height, left : left + width, 3] = 255
    return sheet


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 [H, W, 4] as a PNG: the same pixels, the same bytes."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
