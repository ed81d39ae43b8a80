"""What MNIST and Fashion-MNIST share: four IDX files, and where they may lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from ddrank_core import DataError, DatasetFacts, RealData
from ddrank_datasets._checks import brief, checked, say_licence
from ddrank_datasets._idx import read_idx

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


@attrs.frozen(kw_only=True)
class Family:
    """The facts of one data set of this make."""

    name: str
    torchvision_class: str
    digests: Mapping[str, str]
    """File name -> `algorithm:hexadecimal` of the unpacked official file."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    train: int = 60_000
    test: int = 10_000
    side: int = 28


def facts_of(family: Family, root: Path) -> DatasetFacts:
    """Return what is known of a family's data set without reading it."""
    algorithm = family.digests[TRAIN_IMAGES].partition(":")[0]
    return DatasetFacts(
        source=family.source,
        licence=family.licence,
        num_classes=len(family.class_names),
        class_names=family.class_names,
        class_order="the official one",
        train_images=family.train,
        test_images=family.test,
        image_shape=(1, family.side, family.side),
        mean=family.mean,
        std=family.std,
        statistics="the train pixels' (VICO-UoE/DatasetCondensation, utils.py)",
        check=f"the {algorithm} of each file, unpacked",
        found=_complete_folder(family, root),
    )


def load_family(family: Family, root: Path, download: bool) -> RealData:
    """Read the four files, fetching them first if that is asked for and they are not there.

    Returns images uint8 [N, 1, 28, 28].

    Raises:
        DataError: naming the missing or wrong file and what to do.
    """
    if download and _complete_folder(family, root) is None:
        _fetch(family, root)
    folder = _complete_folder(family, root)
    if folder is None:
        raise DataError(_missing(family, root))
    side = family.side
    shapes = {
        TRAIN_IMAGES: (family.train, side, side),
        TRAIN_LABELS: (family.train,),
        TEST_IMAGES: (family.test, side, side),
        TEST_LABELS: (family.test,),
    }
    read = {
        name: read_idx(_file(folder, name) or folder / name, shape, family.digests[name])
        for name, shape in shapes.items()
    }
    data = RealData(
        train_images=read[TRAIN_IMAGES].unsqueeze(1),
        train_labels=read[TRAIN_LABELS].long(),
        test_images=read[TEST_IMAGES].unsqueeze(1),
        test_labels=read[TEST_LABELS].long(),
        class_names=family.class_names,
        mean=family.mean,
        std=family.std,
        source=family.source,
    )
    return checked(data, str(folder))


def _folders(family: Family, root: Path) -> tuple[Path, ...]:
    # The most specific first: one root may hold both families in torchvision's layout.
    return (root / family.torchvision_class / "raw", root / "raw", root)


def _file(folder: Path, name: str) -> Path | None:
    # os.path.isfile is False where Path.is_file of Python 3.11 raises: a folder that may not be read.
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if os.path.isfile(path)), None)


def _complete_folder(family: Family, root: Path) -> Path | None:
    complete = (f for f in _folders(family, root) if all(_file(f, name) for name in FILES))
    return next(complete, None)


def _missing(family: Family, root: Path) -> str:
    folders = _folders(family, root)
    best = max(folders, key=lambda folder: sum(_file(folder, name) is not None for name in FILES))
    absent = [name for name in FILES if _file(best, name) is None]
    if len(absent) == len(FILES):
        looked = ", ".join(str(folder) for folder in reversed(folders))
        fault = f"{root}: no {family.name} here (looked in {looked})"
    else:
        fault = f"{best}: {', '.join(absent)} of {family.name} is missing"
    return (
        f"{fault}; put the four files ({TRAIN_IMAGES}, ..., .gz or unpacked) there, "
        "or fetch them with --set dataset.download=true"
    )


def _fetch(family: Family, root: Path) -> None:
    from http.client import HTTPException

    from torchvision import datasets

    say_licence(family.name, family.licence)
    try:
        getattr(datasets, family.torchvision_class)(root=str(root), train=True, download=True)
    except (RuntimeError, OSError, HTTPException) as error:
        raise DataError(f"{root}: {family.name} could not be fetched: {brief(error)}") from error
