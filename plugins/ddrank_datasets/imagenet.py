"""ImageNet, whole or some classes of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ddrank_core import DataError, DatasetFacts, Pictures, RealData, component, decoded, parameter
from ddrank_datasets._checks import checked, whole_digest
from ddrank_datasets._imagenet import LICENCE, MEAN, NUM_CLASSES, STATISTICS, STD, wnids, words
from ddrank_datasets._pictures import (
    FIT,
    Decoder,
    Fit,
    check_shorter_side,
    class_pictures,
    label_tensor,
)

TRAIN_IMAGES = 1_281_167
TEST_IMAGES_PER_CLASS = 50


def _classes_fault(classes: Sequence[int] | None) -> str | None:
    if classes is None:
        return None
    wrong = next((index for index in classes if not 0 <= index < NUM_CLASSES), None)
    if wrong is not None:
        return f"{wrong} is not the index of a class, 0 to {NUM_CLASSES - 1}"
    if not classes or len(set(classes)) != len(classes):
        return "must hold at least one class, and none of them twice"
    return None


@component
class ImageNet:
    """ImageNet of ILSVRC 2012: `root/train/<wnid>/` and `root/val/<wnid>/`, folders named after WordNet ids.

    A class's index is its place among the 1,000 sorted ids, the order of `torchvision.datasets.ImageNet` and
    of every pretrained network. With `classes`, labels follow the list. Class names are the ids, since
    some words stand for two classes. The official val pictures come in one folder: sort them into class
    folders first.

    `imagenette`, `imagewoof`, `imagefruit`, `imageyellow`, `imagemeow` and `imagesquawk` are short names for
    ten classes each at 128 pixels, as MTT chose and numbered them. fast.ai's archive called Imagenette
    splits the same classes in another way, and is not what published numbers are about.

    Source: Russakovsky et al. 2015. No digest of the unpacked pictures is published; `source` in the record
    says how many there were. What would take more than 2 GiB has to be decoded beforehand, with
    `ddrank data prepare`.
    """

    root: Path = parameter(
        "the folder with train/ and val/; "
        "the default is relative to the working directory, a path in a config to the config's folder",
        default=Path("datasets/imagenet"),
    )
    size: int = parameter("height and width of the images", default=224, minimum=1, maximum=4096)
    classes: tuple[int, ...] | None = parameter(
        "indices of the classes, in the order of the labels; all 1,000 by default",
        default=None,
        check=_classes_fault,
    )
    fit: Fit = parameter(FIT, default="crop")
    test_resize: int | None = parameter(
        "what the shorter side of a test picture is resized to before its centre is cut out, such as 256 for "
        "the size 224 (SRe2L, RDED); the size by default",
        default=None,
        minimum=1,
        maximum=8192,
    )

    def facts(self) -> DatasetFacts:
        """Return what is known without reading a picture."""
        names = self._names()
        subset = "" if self.classes is None else f", {len(names)} of its classes"
        return DatasetFacts(
            source=f"ImageNet, ILSVRC 2012 (Russakovsky et al. 2015, image-net.org){subset}",
            licence=LICENCE,
            num_classes=len(names),
            class_names=names,
            class_words=tuple(words().get(name, "") for name in names),
            class_order="sorted WordNet ids" if self.classes is None else "as listed in `classes`",
            train_images=TRAIN_IMAGES if self.classes is None else None,
            test_images=TEST_IMAGES_PER_CLASS * len(names),
            image_shape=(3, self.size, self.size),
            mean=MEAN,
            std=STD,
            statistics=STATISTICS,
            check="class folders by name; no digest is published",
            found=self.root if os.path.isdir(self.root / "train" / names[0]) else None,
        )

    def pictures(self) -> tuple[Pictures, Pictures]:
        """Return the picture files that train and those that test, undecoded.

        Raises:
            DataError: naming the folder or file that cannot be used.
        """
        (train, _), (test, _) = self._parts()
        return train, test

    def load(self) -> RealData:
        """Return images uint8 [N, 3, size, size]; the memory map of a file where prepared.

        Raises:
            DataError: naming the folder or picture, what is wrong with it and what to do.
        """
        (train_pictures, train_labels), (test_pictures, test_labels) = self._parts()
        train, test = decoded((train_pictures, test_pictures), str(self.root))
        labels, other_labels = label_tensor(train_labels), label_tensor(test_labels)
        names = self._names()
        data = RealData(
            train_images=train.images,
            train_labels=labels,
            test_images=test.images,
            test_labels=other_labels,
            class_names=names,
            mean=MEAN,
            std=STD,
            source=(
                f"ImageNet, ILSVRC 2012 (Russakovsky et al. 2015), {len(names)} classes, {len(labels)} train "
                f"and {len(other_labels)} val pictures; {test_pictures.recipe}"
            ),
            digest=whole_digest(train, test, labels, other_labels),
        )
        return checked(data, str(self.root))

    def _names(self) -> tuple[str, ...]:
        every = wnids()
        return every if self.classes is None else tuple(every[index] for index in self.classes)

    def _parts(self) -> tuple[tuple[Pictures, list[int]], tuple[Pictures, list[int]]]:
        check_shorter_side(self.test_resize, self.size)
        names = self._names()
        for part in ("train", "val"):
            _check_folders(self.root / part, names)
        inside = Path(os.path.realpath(self.root))
        train, train_labels = class_pictures(self.root, "train", names, inside)
        test, test_labels = class_pictures(self.root, "val", names, inside)
        decoder = Decoder(size=self.size, fit=self.fit)
        test_decoder = Decoder(size=self.size, fit=self.fit, shorter_side=self.test_resize)
        return (
            (decoder.of("train", self.root, train), train_labels),
            (test_decoder.of("test", self.root, test), test_labels),
        )


def _check_folders(folder: Path, names: Sequence[str]) -> None:
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; imagenet needs train/<wnid>/ and val/<wnid>/ in root")
    missing = [name for name in names if not os.path.isdir(folder / name)]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        advice = (
            "sort the official val pictures into one folder per class"
            if len(missing) == len(names) and folder.name == "val"
            else "name the classes that are there with `classes`"
        )
        raise DataError(f"{folder}: has no class folder '{missing[0]}'{more}; {advice}")
