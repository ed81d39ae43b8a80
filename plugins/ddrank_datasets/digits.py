"""The handwritten digits that scikit-learn brings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ddrank_core import DataError, DatasetFacts, RealData, component

TRAIN_IMAGES = 1437
"""The first 1,437 images train, the last 360 (a fifth) test."""

MEAN, STD = (0.3054,), (0.3755,)


def _file() -> Path:
    """Return scikit-learn's own file of the digits, without importing scikit-learn, which takes a second.

    Raises:
        DataError: one line, if it is not there.
    """
    found = find_spec("sklearn")
    folders = [] if found is None else found.submodule_search_locations or []
    files = [Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders]
    there = next((file for file in files if file.is_file()), None)
    if there is None:
        raise DataError("dataset digits: the installed scikit-learn has no digits; install it anew")
    return there


@component
class Digits:
    """1,797 handwritten digits of 8x8 grey pixels, from the installed scikit-learn: nothing to download.

    The split is fixed, in file order: images 0..1436 train, 1437..1796 test. The file is not
    shuffled, so digits of one writer are mostly on one side, and the split is harder than a random
    one: a nearest neighbour gets 95.6 % of it right, and 98.6 to 99.2 % of five random splits.
    Both parts hold all ten classes, 141 to 146 and 33 to 37 images each.

    Source: UCI "Optical Recognition of Handwritten Digits", test part (Alpaydin & Kaynak 1998, CC BY 4.0),
    as `sklearn.datasets.load_digits` gives it. Pixel values 0..16 are divided by 16; mean and
    standard deviation are those of the train images.
    """

    def facts(self) -> DatasetFacts:
        """Return what is known without reading it."""
        return DatasetFacts(
            source='UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998)',
            licence="CC BY 4.0",
            num_classes=10,
            class_names=tuple(str(digit) for digit in range(10)),
            class_order="the digits",
            train_images=TRAIN_IMAGES,
            test_images=360,
            image_shape=(1, 8, 8),
            mean=MEAN,
            std=STD,
            statistics="the train pixels'",
            check="none: it comes with the installed scikit-learn",
            found=Path("(embedded)"),
        )

    def load(self) -> RealData:
        """Return images float32 [N, 1, 8, 8] in [0, 1]."""
        from importlib import metadata

        import numpy as np
        import torch

        from ddrank_datasets._checks import checked

        # Each line has the 64 pixels of a digit and its label.
        lines = np.loadtxt(_file(), delimiter=",", dtype=np.float32)
        images = torch.from_numpy(lines[:, :-1] / 16).reshape(-1, 1, 8, 8)
        labels = torch.from_numpy(lines[:, -1].astype(np.int64))
        data = RealData(
            train_images=images[:TRAIN_IMAGES].clone(),
            train_labels=labels[:TRAIN_IMAGES].clone(),
            test_images=images[TRAIN_IMAGES:].clone(),
            test_labels=labels[TRAIN_IMAGES:].clone(),
            class_names=tuple(str(digit) for digit in range(10)),
            mean=MEAN,
            std=STD,
            source=f"UCI handwritten digits, embedded in scikit-learn {metadata.version('scikit-learn')}",
        )
        return checked(data, "digits")
