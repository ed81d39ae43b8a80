"""What CIFAR-10 and CIFAR-100 share: torchvision's reader, with errors that name the file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core import DataError, DatasetFacts, RealData
from ddrank_datasets._checks import brief, checked, say_licence

if TYPE_CHECKING:
    from torch import Tensor


LICENCE = "none stated; its authors ask to be cited"


@attrs.frozen(kw_only=True)
class Family:
    """The facts of one of the two."""

    name: str
    torchvision_class: str
    folder: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics: str
    class_names: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return f"{self.name} (Krizhevsky 2009), official files by md5"


def facts_of(family: Family, root: Path) -> DatasetFacts:
    """Return what is known of one of the two without reading it."""
    folder = root / family.folder
    return DatasetFacts(
        source=family.source,
        licence=LICENCE,
        num_classes=family.num_classes,
        class_names=family.class_names,
        class_order="the official one",
        train_images=50_000,
        test_images=10_000,
        image_shape=(3, 32, 32),
        mean=family.mean,
        std=family.std,
        statistics=family.statistics,
        check="the official md5 of each file",
        found=folder if os.path.isdir(folder) else None,
    )


def load_cifar(family: Family, root: Path, download: bool) -> RealData:
    """Read one of the two, fetching it first if that is asked for and it is not there.

    The files are pickles. torchvision compares each with its official md5 before it opens it, so
    no pickle but the official ones is ever executed.

    Returns images uint8 [N, 3, 32, 32].

    Raises:
        DataError: naming the missing or damaged file and what to do.
    """
    from torchvision import datasets

    reader = getattr(datasets, family.torchvision_class)
    if not download:
        _check_present(reader, root)
    elif _absent(reader, root):
        say_licence(family.name, LICENCE)
    train = _read(reader, root, train=True, download=download)
    test = _read(reader, root, train=False, download=False)
    train_images, train_labels = _tensors(train)
    test_images, test_labels = _tensors(test)
    data = RealData(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(train.classes),
        mean=family.mean,
        std=family.std,
        source=family.source,
    )
    return checked(data, str(root / reader.base_folder))


def _files(reader: Any) -> list[tuple[str, str]]:
    meta = reader.meta
    return [(name, md5) for name, md5 in [*reader.train_list, *reader.test_list]] + [
        (meta["filename"], meta["md5"])
    ]


def _absent(reader: Any, root: Path) -> list[str]:
    folder = root / reader.base_folder
    return [name for name, _ in _files(reader) if not os.path.isfile(folder / name)]


def _check_present(reader: Any, root: Path) -> None:
    folder = root / reader.base_folder
    if absent := _absent(reader, root):
        what = f"{', '.join(absent)} missing from it" if os.path.isdir(folder) else "no such folder"
        raise DataError(
            f"{folder}: {what}; unpack {reader.filename} ({reader.url}) into {root}, "
            "or fetch it with --set dataset.download=true"
        )


def _read(reader: Any, root: Path, train: bool, download: bool) -> Any:
    from http.client import HTTPException

    try:
        with warnings.catch_warnings():
            # The official pickles were written by numpy 1.x, and numpy 2.4 remarks on that.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align")
            return reader(root=str(root), train=train, download=download)
    except (RuntimeError, OSError, HTTPException) as error:
        raise DataError(_fault(reader, root, error)) from error


def _fault(reader: Any, root: Path, error: Exception) -> str:
    from torchvision.datasets.utils import check_integrity

    folder = root / reader.base_folder
    for name, md5 in _files(reader):
        path = folder / name
        if os.path.isfile(path) and os.access(path, os.R_OK) and not check_integrity(str(path), md5):
            return (
                f"{path}: is damaged or not the official file (its md5 differs); "
                "delete it and fetch it again with --set dataset.download=true"
            )
    return f"{folder}: cannot be read or fetched: {brief(error)}"


def _tensors(part: Any) -> tuple[Tensor, Tensor]:
    import numpy as np
    import torch

    images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
    return torch.from_numpy(images), torch.tensor(part.targets, dtype=torch.int64)
