"""SVHN."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrank_core import DataError, DatasetFacts, RealData, component, parameter
from ddrank_datasets._checks import brief, checked, say_licence

if TYPE_CHECKING:
    from torch import Tensor

MEAN = (0.4377, 0.4438, 0.4728)
STD = (0.1980, 0.2010, 0.1970)

SOURCE = "SVHN, cropped digits (Netzer et al. 2011), official files by md5"
LICENCE = "non-commercial use only"
FILES = ("train_32x32.mat", "test_32x32.mat")


@component
class SVHN:
    """House numbers from street photographs, 32x32 colour: 73,257 to train, 26,032 to test.

    Reads the official cropped digits through `torchvision.datasets.SVHN`, which compares every file with its
    official md5 before it opens it. The digit 0, which the files call 10, is class 0. The "extra" part is
    not used.

    Source: Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature Learning"
    (non-commercial use only). Mean and standard deviation are the train pixels', as the distillation papers
    have them (VICO-UoE/DatasetCondensation, utils.py).
    """

    root: Path = parameter(
        "the folder with train_32x32.mat and test_32x32.mat; "
        "the default is relative to the working directory, a path in a config to the config's folder",
        default=Path("datasets"),
    )
    download: bool = parameter("fetch the files into root if they are not there", default=False)

    def facts(self) -> DatasetFacts:
        """Return what is known without reading the files."""
        return DatasetFacts(
            source=SOURCE,
            licence=LICENCE,
            num_classes=10,
            class_names=tuple(str(digit) for digit in range(10)),
            class_order="the digits",
            train_images=73_257,
            test_images=26_032,
            image_shape=(3, 32, 32),
            mean=MEAN,
            std=STD,
            statistics="the train pixels' (VICO-UoE/DatasetCondensation, utils.py)",
            check="the official md5 of each file",
            found=None if self._absent() else self.root,
        )

    def load(self) -> RealData:
        """Return images uint8 [N, 3, 32, 32].

        Raises:
            DataError: naming the missing or damaged file and what to do.
        """
        if absent := self._absent():
            if not self.download:
                raise DataError(
                    f"{self.root}: has no {' and '.join(absent)}; put the files of "
                    "http://ufldl.stanford.edu/housenumbers there, or fetch them with "
                    "--set dataset.download=true"
                )
            say_licence("SVHN", LICENCE)
        train_images, train_labels = self._part("train")
        test_images, test_labels = self._part("test")
        data = RealData(
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            class_names=tuple(str(digit) for digit in range(10)),
            mean=MEAN,
            std=STD,
            source=SOURCE,
        )
        return checked(data, str(self.root))

    def _absent(self) -> list[str]:
        return [name for name in FILES if not os.path.isfile(self.root / name)]

    def _part(self, split: str) -> tuple[Tensor, Tensor]:
        import numpy as np
        import torch

        part = self._read(split)
        return torch.from_numpy(np.ascontiguousarray(part.data)), torch.from_numpy(part.labels)

    def _read(self, split: str) -> Any:
        from http.client import HTTPException

        from torchvision.datasets import SVHN as Reader
        from torchvision.datasets.utils import check_integrity

        _, name, md5 = Reader.split_list[split]
        path = self.root / name
        try:
            return Reader(root=str(self.root), split=split, download=self.download)
        except (RuntimeError, OSError, HTTPException) as error:
            if os.path.isfile(path) and os.access(path, os.R_OK) and not check_integrity(str(path), md5):
                raise DataError(
                    f"{path}: is damaged or not the official file (its md5 differs); "
                    "delete it and fetch it again with --set dataset.download=true"
                ) from error
            raise DataError(f"{path}: cannot be read or fetched: {brief(error)}") from error
