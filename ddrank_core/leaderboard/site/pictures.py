"""Pictures of a submission, taken into the site: small PNGs from its own folder and nothing else."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from ddrank_core.errors import DataError, DDRankError
from ddrank_core.leaderboard.fetch import destination, is_here
from ddrank_core.leaderboard.site.drawn import MAX_SET_BYTES, images_png
from ddrank_core.leaderboard.types import Submission

MAX_BYTES = 4 << 20
MAX_PIXELS = 16_000_000
"""What a phone's browser still draws; a picture of few bytes can unpack to gigabytes."""

IMAGES = "distilled.png"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def images_of(submission: Submission) -> tuple[bytes, bool] | None:
    """Return a picture of the distilled images, and whether it was drawn here, from the set itself.

    The picture that a submission brings may show anything. It is what there is of a set that is pinned and
    lies elsewhere, or is too large to be read for a picture; None where there is none.

    Raises:
        DataError: one line, if the set or the picture cannot be shown.
    """
    path = _at_hand(submission)
    drawn = None if path is None else images_png(path)
    if drawn is not None:
        return drawn, True
    if os.path.lexists(submission.folder / IMAGES):
        return read(submission.folder, IMAGES), False
    return None


def _at_hand(submission: Submission) -> Path | None:
    """Return where the distilled set lies, None for a pinned one that was not fetched."""
    path = submission.distilled.path
    if path is not None:
        if not path.exists():
            return None
        check_inside(submission.folder, path)
        return path
    if submission.distilled.bytes > MAX_SET_BYTES:
        return None
    try:
        return destination(submission) if is_here(submission) else None
    except DDRankError:
        # The recipe names no file, or another one lies in its place: what `check` says of it is enough.
        return None


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
    if not width or not height:
        raise DataError(f"{path}: {width} x {height} pixels, which nothing can show")
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
