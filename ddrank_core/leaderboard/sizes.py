"""What a training on a distilled set needs, in bytes: its images, its labels, and a teacher if it asks one.

Images count as stored: float32. A hard label counts as the fewest whole bytes that tell the classes apart,
one up to 256 classes, though files hold eight. The rest depends on the recipe's label mapping: `hard` and
`smooth` need no more; `soft` adds the stored soft labels, float32; `stored-views` the file of views;
`teacher` adds no labels but every teacher, its checkpoint's size where that lies in the submission, else four
bytes per parameter. A mapping of another plugin may need all of it, so all that there is counts.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.errors import DataError, DDRankError, one_line
from ddrank_core.leaderboard.measured import take, typed
from ddrank_core.protocols import Architecture
from ddrank_core.registry import default_registry
from ddrank_core.structure import Chosen, Structurer

_FLOAT = 4
_NEEDS: Mapping[str, frozenset[str]] = {
    "hard": frozenset(),
    "smooth": frozenset(),
    "soft": frozenset({"soft"}),
    "stored-views": frozenset({"views"}),
    "teacher": frozenset({"teacher"}),
}
"""Label mapping -> what it needs beside images and classes."""
_ALL = frozenset({"soft", "views", "teacher"})
_LARGEST = 1 << 16
"""Of a network's parameters: none is so deep or wide, and counting weights must end."""


def sizes(record: Mapping[str, Any], folder: Path, where: str) -> tuple[int, int, int]:
    """Return the bytes of images, labels and teachers of a submission's record.

    Raises:
        DataError: one line, if the record does not tell.
    """
    images = _natural(take(record, "data.distilled.images", int, where), f"{where}: data.distilled.images")
    field = f"{where}: data.dataset.image_shape"
    shape = [
        _natural(typed(side, int, field), field)
        for side in take(record, "data.dataset.image_shape", list, where)
    ]
    classes = len(take(record, "data.dataset.classes", list, where))
    needs = _NEEDS.get(take(record, "config.recipe.labels.use", str, where), _ALL)
    labels = images * max(1, math.ceil(math.log2(max(classes, 1)) / 8))
    if "soft" in needs and take(record, "data.distilled", dict, where).get("soft_labels") is not None:
        labels += images * classes * _FLOAT
    if "views" in needs:
        labels += _views(record, folder, where)
    teachers = _teachers(record, folder, classes, shape, where) if "teacher" in needs else 0
    return images * math.prod(shape) * _FLOAT, labels, teachers


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
        size = _size_in(folder, checkpoint)
        total += _FLOAT * _parameters(network, classes, shape, field) if size is None else size
    return total


def _size_in(folder: Path, path: object) -> int | None:
    """Return the size of a file of that name in the submission itself; None if there is none."""
    # Only the name counts: a record's paths start where it was made.
    name = Path(path).name if isinstance(path, str) else ""
    try:
        about = os.lstat(folder / name)
    except (OSError, ValueError):
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


@attrs.frozen
class _Asked:
    """A network that a record names."""

    network: Chosen[Architecture]


def _parameters(given: Mapping[str, Any], classes: int, shape: list[int], where: str) -> int:
    """Return how many parameters a network has.

    Raises:
        DataError: one line, if no plugin can build it.
    """
    if any(type(value) is int and abs(value) > _LARGEST for value in given.values()):
        raise DataError(f"{where}: a parameter is larger than {_LARGEST}, which no network's is")
    without_weights = {**given, **({"pretrained": False} if "pretrained" in given else {})}
    try:
        return _counted(json.dumps(without_weights), classes, tuple(shape))
    except DDRankError as error:
        raise DataError(f"{where}: {error}") from error
    except Exception as error:  # a plugin's code, on values that a stranger chose
        raise DataError(f"{where}: cannot be built to count its parameters: {one_line(error)}") from error


@lru_cache(maxsize=256)
def _counted(network: str, classes: int, shape: tuple[int, int, int]) -> int:
    import torch

    values = {"network": json.loads(network)}
    asked: _Asked = Structurer(default_registry(), Path()).structure(values, _Asked, "teacher")
    # Shapes without values: nothing is drawn, and nothing large is held.
    with torch.device("meta"):
        built = asked.network.component.build(classes, shape)
    return sum(parameter.numel() for parameter in built.parameters())
