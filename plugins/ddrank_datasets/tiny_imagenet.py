"""TinyImageNet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddrank_core import DataError, DatasetFacts, Pictures, RealData, component, decoded, parameter
from ddrank_datasets._checks import brief, checked, whole_digest
from ddrank_datasets._imagenet import LICENCE, MEAN, STATISTICS, STD
from ddrank_datasets._pictures import (
    Decoder,
    check_shorter_side,
    class_folders,
    class_pictures,
    flat_pictures,
    label_tensor,
)

NUM_CLASSES = 200
TRAIN_IMAGES, TEST_IMAGES = 100_000, 10_000
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
FOLDER = "tiny-imagenet-200"
ANNOTATIONS = "val_annotations.txt"


@component
class TinyImageNet:
    """TinyImageNet-200: 64x64 colour, 200 classes of 500 train pictures, and the 10,000 of val to test.

    Reads the unpacked official zip (`train/<wnid>/images/`, `val/images/` with `val_annotations.txt`), and
    copies whose val pictures have been sorted into `val/<wnid>/` or `val/images/<wnid>/`. Train pictures
    count wherever they lie below their class.

    Classes are numbered by sorted WordNet id, as torchvision's ImageFolder numbers folders and thereby the
    code of MTT and all who follow it; the zip's own `wnids.txt` is in another order. Class names are the ids.

    Source: Le & Yang 2015, Stanford CS231N; torchvision has no download of it. No digest is published by
    its makers; `source` in the record says how many pictures there were. Images are normalised with
    ImageNet's statistics (mtt-distillation, utils.py).
    """

    root: Path = parameter(
        "the folder that has train/ and val/, or that has tiny-imagenet-200/; "
        "the default is relative to the working directory, a path in a config to the config's folder",
        default=Path("datasets"),
    )
    size: int = parameter("height and width of the images", default=64, minimum=1, maximum=4096)
    test_resize: int | None = parameter(
        "what a test picture is resized to before its centre is cut out, such as 72 for the size 64 (RDED); "
        "the size by default",
        default=None,
        minimum=1,
        maximum=8192,
    )

    def facts(self) -> DatasetFacts:
        """Return what is known without reading a picture."""
        folder = self._folder()
        return DatasetFacts(
            source=f"TinyImageNet-200 (Le & Yang 2015, Stanford CS231N), {URL}",
            licence=f"none stated; pictures of ImageNet, {LICENCE}",
            num_classes=NUM_CLASSES,
            class_order="sorted WordNet ids, as ImageFolder and MTT's code number them",
            train_images=TRAIN_IMAGES,
            test_images=TEST_IMAGES,
            image_shape=(3, self.size, self.size),
            mean=MEAN,
            std=STD,
            statistics=STATISTICS,
            check="200 class folders; no digest is published",
            # Another data set's train/ may lie in the same root.
            found=folder if folder.name == FOLDER or os.path.isfile(folder / "wnids.txt") else None,
        )

    def pictures(self) -> tuple[Pictures, Pictures]:
        """Return the picture files that train and those that test, undecoded.

        Raises:
            DataError: naming the folder or file that cannot be used.
        """
        (train, _), (test, _), _ = self._parts()
        return train, test

    def load(self) -> RealData:
        """Return images uint8 [N, 3, size, size]; the memory map of a file where prepared.

        Raises:
            DataError: naming the folder or picture, what is wrong with it and what to do.
        """
        (train_pictures, train_labels), (test_pictures, test_labels), names = self._parts()
        where = str(train_pictures.root)
        train, test = decoded((train_pictures, test_pictures), where)
        labels, other_labels = label_tensor(train_labels), label_tensor(test_labels)
        data = RealData(
            train_images=train.images,
            train_labels=labels,
            test_images=test.images,
            test_labels=other_labels,
            class_names=tuple(names),
            mean=MEAN,
            std=STD,
            source=(
                f"TinyImageNet-200 (Le & Yang 2015), {len(labels)} of {TRAIN_IMAGES} train and "
                f"{len(other_labels)} of {TEST_IMAGES} val pictures; {test_pictures.recipe}"
            ),
            digest=whole_digest(train, test, labels, other_labels),
        )
        return checked(data, where)

    def _folder(self) -> Path:
        inner = self.root / FOLDER
        return inner if os.path.isdir(inner / "train") else self.root

    def _parts(self) -> tuple[tuple[Pictures, list[int]], tuple[Pictures, list[int]], list[str]]:
        check_shorter_side(self.test_resize, self.size)
        folder = self._folder()
        for part in ("train", "val"):
            if not os.path.isdir(folder / part):
                raise DataError(
                    f"{folder / part}: no such folder; unpack {FOLDER}.zip ({URL}) into {self.root}"
                )
        inside = Path(os.path.realpath(folder))
        names = class_folders(folder / "train", inside)
        if len(names) != NUM_CLASSES:
            raise DataError(
                f"{folder / 'train'}: has {len(names)} class folders, and TinyImageNet has {NUM_CLASSES}; "
                f"unpack {FOLDER}.zip ({URL}) again"
            )
        train, train_labels = class_pictures(folder, "train", names, inside)
        test, test_labels = _test_pictures(folder, names, inside)
        decoder, test_decoder = (
            Decoder(size=self.size),
            Decoder(size=self.size, shorter_side=self.test_resize),
        )
        return (
            (decoder.of("train", folder, train), train_labels),
            (test_decoder.of("test", folder, test), test_labels),
            names,
        )


def _test_pictures(folder: Path, names: Sequence[str], inside: Path) -> tuple[list[str], list[int]]:
    """Return the val pictures, class by class and sorted by name, whatever layout they are in."""
    flat = folder / "val" / "images"
    if os.path.isdir(flat) and os.path.isfile(folder / "val" / ANNOTATIONS):
        there = flat_pictures(flat, inside)
        if there:
            return _annotated(folder / "val" / ANNOTATIONS, there, names)
    nested = os.path.isdir(flat / names[0])
    return class_pictures(folder, "val/images" if nested else "val", names, inside)


def _annotated(annotations: Path, there: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[int]]:
    classes = _read_annotations(annotations)
    if missing := sorted(set(classes) - set(there)):
        raise DataError(
            f"{annotations.parent / 'images' / missing[0]}: no such file, though {annotations.name} "
            "names it; unpack the zip again"
        )
    if unknown := sorted(set(there) - set(classes)):
        raise DataError(f"{annotations}: has no class for {unknown[0]}; unpack the zip again")
    numbers = {name: label for label, name in enumerate(names)}
    if strange := sorted(set(classes.values()) - set(names)):
        raise DataError(f"{annotations}: names the class {strange[0]!r}, which train/ has not")
    ordered = sorted((numbers[wnid], file) for file, wnid in classes.items())
    return [f"val/images/{file}" for _, file in ordered], [label for label, _ in ordered]


def _read_annotations(path: Path) -> Mapping[str, str]:
    """Return file name -> WordNet id, the first two of the columns; the others are a box."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {brief(error)}") from error
    classes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if len(columns) < 2 or columns[0] in classes:
            raise DataError(
                f"{path}:{number}: must be a file name that stands on no other line, a tab and a class"
            )
        classes[columns[0]] = columns[1]
    return classes
