"""Pictures of a submission, taken into the site: small PNGs from its own folder and nothing else."""

from __future__ import annotations

import struct
from pathlib import Path

from ddrank_core.errors import DataError
from ddrank_core.leaderboard.site.drawn import images_png
from ddrank_core.leaderboard.types import Submission

MAX_BYTES = 4 << 20
MAX_PIXELS = 16_000_000
"""What a phone's browser still draws; a picture of few bytes can unpack to gigabytes."""

IMAGES = "distilled.png"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def images_of(submission: Submission) -> bytes | None:
    """Return a picture of the distilled images: the one that a run has left, or one that is drawn here.

    None where neither is there: a set that is pinned and lies elsewhere.
    """
    if (submission.folder / IMAGES).exists():
        return read(submission.folder, IMAGES)
    path = submission.distilled.path
    if path is None or not path.is_file():
        return None
    check_inside(submission.folder, path)
    return images_png(path)


def read(folder: Path, name: str) -> bytes:
    """Return a PNG that lies in the folder.

    Raises:
        DataError: one line, if it lies elsewhere, is no PNG, or is larger than a page should hold.
    """
    path = folder / name
    whole = read_own(folder, path, MAX_BYTES)
    if len(whole) > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB; draw fewer images")
    width, height = _size(whole, path)
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width} x {height} pixels; at most {MAX_PIXELS:,} can be shown")
    return whole


def read_own(folder: Path, path: Path, most: int) -> bytes:
    """Return what a file in the submission's folder holds, cut off one byte after `most`.

    Raises:
        DataError: one line, if it lies elsewhere or cannot be read.
    """
    check_inside(folder, path)
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_inside(folder: Path, path: Path) -> None:
    """Refuse a path that leads out of the folder, a link, and what is no plain file.

    Raises:
        DataError: one line.
    """
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not inside or path.is_symlink() or not path.is_file():
        raise DataError(f"{path}: must be a file in the submission's own folder, and no link")


def size(whole: bytes) -> tuple[int, int]:
    """Return the width and height that a PNG's header states."""
    width, height = struct.unpack(">II", whole[16:24])
    return width, height


def _size(whole: bytes, path: Path) -> tuple[int, int]:
    if len(whole) < 33 or not whole.startswith(_SIGNATURE) or whole[12:16] != b"IHDR":
        raise DataError(f"{path}: is no PNG")
    return size(whole)
