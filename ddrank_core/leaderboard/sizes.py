"""What a training on a distilled set needs, in bytes: its images, its labels, and a teacher if it asks one.

Images count as stored: float32. A hard label counts as the fewest whole bytes that tell the classes apart,
one up to 256 classes, though files hold eight. The rest depends on the recipe's label mapping: `hard` and
`smooth` need no more; `soft` adds the stored soft labels, float32; `stored-views` the file of views;
`teacher` adds no labels but every teacher, its checkpoint's size where that lies in the submission (with at
least two bytes per parameter), else four bytes per parameter. A mapping of another plugin may need all of it,
so all that there is counts.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ddrank_core.errors import DataError
from ddrank_core.leaderboard.measured import take, typed
from ddrank_core.leaderboard.parameters import parameters

_FLOAT, _HALF = 4, 2
_NEEDS: Mapping[str, frozenset[str]] = {
    "hard": frozenset(),
    "smooth": frozenset(),
    "soft": frozenset({"soft"}),
    "stored-views": frozenset({"views"}),
    "teacher": frozenset({"teacher"}),
}
"""Label mapping -> what it needs beside images and classes."""
_ALL = frozenset({"soft", "views", "teacher"})


def sizes(record: Mapping[str, Any], folder: Path, where: str) -> tuple[int, int, int]:
    """Return the bytes of images, labels and teachers of a submission's record.

    Raises:
        DataError: one line, if the record does not tell.
    """
    images = _natural(take(record, "data.distilled.images", int, where), f"{where}: data.distilled.images")
    shape = _shape(record, where)
    classes = len(take(record, "data.dataset.classes", list, where))
    needs = _NEEDS.get(take(record, "config.recipe.labels.use", str, where), _ALL)
    labels = images * max(1, math.ceil(math.log2(max(classes, 1)) / 8))
    if "soft" in needs and take(record, "data.distilled", dict, where).get("soft_labels") is not None:
        labels += images * classes * _FLOAT
    if "views" in needs:
        labels += _views(record, folder, where)
    teachers = _teachers(record, folder, classes, shape, where) if "teacher" in needs else 0
    return images * math.prod(shape) * _FLOAT, labels, teachers


def _shape(record: Mapping[str, Any], where: str) -> list[int]:
    field = f"{where}: data.dataset.image_shape"
    shape = [typed(side, int, field) for side in take(record, "data.dataset.image_shape", list, where)]
    if len(shape) != 3 or not all(0 < side < 1 << 16 for side in shape):
        raise DataError(f"{field}: must be channels, height and width, each below 65536")
    return shape


def _natural(value: int, where: str) -> int:
    if not 0 < value < 1 << 40:
        raise DataError(f"{where}: must be at least 1, and no data set has {value}")
    return value


def _views(record: Mapping[str, Any], folder: Path, where: str) -> int:
    views = take(record, "config.distilled", dict, where).get("views")
    if views is None:
        return 0
    size = _size_in(folder, views)
    if size is None:
        raise DataError(f"{where}: config.distilled.views: not in the submission, so its bytes are not known")
    return size


def _teachers(record: Mapping[str, Any], folder: Path, classes: int, shape: list[int], where: str) -> int:
    total = 0
    for index, teacher in enumerate(take(record, "config.teachers", list, where)):
        field = f"{where}: config.teachers[{index}]"
        network = {**typed(teacher, dict, field)}
        checkpoint, _ = network.pop("checkpoint", None), network.pop("accuracy", None)
        count, size = parameters(network, classes, shape, field), _size_in(folder, checkpoint)
        if size is not None:
            check_weights(size, count, f"{field}: checkpoint")
        total += _FLOAT * count if size is None else size
    return total


def check_weights(size: int, count: int, where: str) -> None:
    """Check that a file may hold so many parameters, at least as half floats.

    Raises:
        DataError: one line.
    """
    if size < _HALF * count:
        raise DataError(f"{where}: {size} bytes, fewer than {_HALF} for each of {count} parameters")


def _size_in(folder: Path, path: object) -> int | None:
    """Return the size of a file of the submission itself; None if there is none."""
    # A record's paths start at its submission's folder; one that starts elsewhere is of no file in it.
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    if not parts or parts[0] == "/" or ".." in parts:
        return None
    try:
        about = os.lstat(folder.joinpath(*parts))
    except (OSError, ValueError):
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None
