"""Pictures in one folder per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ddrank_core import DataError, DatasetFacts, Pictures, RealData, component, decoded, parameter
from ddrank_datasets._checks import checked, positive, sound_statistics, whole_digest
from ddrank_datasets._pictures import (
    FIT,
    Decoder,
    Fit,
    check_shorter_side,
    class_folders,
    class_pictures,
    label_tensor,
)


@component
class ImageFolder:
    """Pictures in `root/train/<class>/` and `root/test/<class>/` (`val` where there is no `test`).

    Classes are numbered by sorted folder name; pictures are taken in sorted order, from subfolders of a
    class too. Hidden files, and files that are not pictures by their ending, are left aside. Resizing is
    bilinear with antialiasing, as torchvision's Resize and CenterCrop do it to a picture. The first frame
    of an animation counts; orientation tags are not applied. Symbolic links that lead out of root are
    refused. What would take more than 2 GiB has to be decoded beforehand, with `ddrank data prepare`.
    """

    root: Path = parameter("the folder that has train/ and test/ (or val/)")
    size: int = parameter("height and width of the images", minimum=1, maximum=4096)
    channels: Literal[1, 3] = parameter("1 for grey, 3 for colour", default=3)
    fit: Fit = parameter(FIT, default="crop")
    test_resize: int | None = parameter(
        "what the shorter side of a test picture is resized to before its centre is cut out; the size by "
        "default",
        default=None,
        minimum=1,
        maximum=8192,
    )
    mean: tuple[float, ...] | None = parameter(
        "per channel, of pixels in [0, 1]; the train images' own where not given", default=None
    )
    std: tuple[float, ...] | None = parameter(
        "per channel, of pixels in [0, 1]; the train images' own where not given",
        default=None,
        check=positive,
    )

    def facts(self) -> DatasetFacts:
        """Return what is known without reading a picture."""
        return DatasetFacts(
            source="pictures of your own",
            licence="that of the pictures",
            class_order="sorted by folder name",
            image_shape=(self.channels, self.size, self.size),
            mean=self.mean or (),
            std=self.std or (),
            statistics="as given, else the train images' own",
            found=self.root if os.path.isdir(self.root / "train") else None,
        )

    def pictures(self) -> tuple[Pictures, Pictures]:
        """Return the picture files that train and those that test, undecoded.

        Raises:
            DataError: naming the folder or file that cannot be used.
        """
        train, test, _, _, _ = self._scan()
        return train, test

    def load(self) -> RealData:
        """Return images uint8 [N, channels, size, size]; the memory map of a file where prepared.

        Raises:
            DataError: naming the folder or picture, what is wrong with it and what to do.
        """
        train_pictures, test_pictures, train_labels, test_labels, names = self._scan()
        where = str(self.root)
        train, test = decoded((train_pictures, test_pictures), where)
        mean = train.mean if self.mean is None else self.mean
        std = train.std if self.std is None else self.std
        mean, std = sound_statistics(mean, std, self.channels, where)
        labels, other_labels = label_tensor(train_labels), label_tensor(test_labels)
        data = RealData(
            train_images=train.images,
            train_labels=labels,
            test_images=test.images,
            test_labels=other_labels,
            class_names=tuple(names),
            mean=mean,
            std=std,
            source=f"pictures in {self.root}, size {self.size}",
            digest=whole_digest(train, test, labels, other_labels),
        )
        return checked(data, where)

    def _scan(self) -> tuple[Pictures, Pictures, list[int], list[int], list[str]]:
        check_shorter_side(self.test_resize, self.size)
        test_name = "test"
        if not os.path.isdir(self.root / "test") and os.path.isdir(self.root / "val"):
            test_name = "val"
        train_folder, test_folder = self.root / "train", self.root / test_name
        for folder in (train_folder, test_folder):
            if not os.path.isdir(folder):
                raise DataError(
                    f"{folder}: no such folder; image-folder needs train/<class>/ and test/<class>/ in root"
                )
        inside = Path(os.path.realpath(self.root))
        classes = class_folders(train_folder, inside)
        _check_same_classes(train_folder, classes, test_folder, class_folders(test_folder, inside))
        train_files, train_labels = class_pictures(self.root, "train", classes, inside)
        test_files, test_labels = class_pictures(self.root, test_name, classes, inside)
        train = Decoder(size=self.size, channels=self.channels, fit=self.fit)
        test = Decoder(size=self.size, channels=self.channels, fit=self.fit, shorter_side=self.test_resize)
        return (
            train.of("train", self.root, train_files),
            test.of("test", self.root, test_files),
            train_labels,
            test_labels,
            classes,
        )


def _check_same_classes(train: Path, train_names: list[str], test: Path, test_names: list[str]) -> None:
    for folder, missing in (
        (test, sorted(set(train_names) - set(test_names))),
        (train, sorted(set(test_names) - set(train_names))),
    ):
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            other = train.name if folder == test else test.name
            raise DataError(
                f"{folder}: has no class folder '{missing[0]}'{more}, and {other}/ has; "
                "both need the same classes"
            )
