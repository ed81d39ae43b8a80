"""What a user says about a source, because the source does not say it itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from ddrank_core.data.checks import check_space
from ddrank_core.errors import DataError, nearest
from ddrank_core.types import ImageSpace, SoftKind

SpaceKind = Literal["unit", "normalised", "zca"]


@attrs.frozen
class Conventions:
    """What the code of the DC family, from which most methods descend, takes a data set to be."""

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATASETS = {
    "mnist": Conventions((1, 28, 28), 10, (0.1307,), (0.3081,)),
    "fashion-mnist": Conventions((1, 28, 28), 10, (0.2861,), (0.3530,)),
    "svhn": Conventions((3, 32, 32), 10, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": Conventions((3, 32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Conventions((3, 32, 32), 100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Source: VICO-UoE/DatasetCondensation, utils.py, get_dataset."""


@attrs.frozen(kw_only=True)
class ImportOptions:
    """The options of `ddrank import`; None and empty ones were not given."""

    dataset: str | None = None
    space: SpaceKind | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    num_classes: int | None = None
    soft_kind: SoftKind | None = None
    experiment: int | None = None
    labels: Path | None = None
    soft_labels: Path | None = None
    lr: Path | None = None
    info: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def conventions(self) -> Conventions | None:
        return DATASETS.get(self.dataset or "")

    def classes(self) -> int | None:
        """Return the number of classes, as far as it was said."""
        return self.num_classes or (self.conventions.num_classes if self.conventions else None)

    def refuse(self, names: tuple[str, ...], where: str) -> None:
        """Refuse options that have no meaning for a source, rather than ignore them.

        Raises:
            DataError: for the first of `names` that was given.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise DataError(f"{where}: --{name.replace('_', '-')} does not apply to this kind of source")

    def check_shape(self, shape: tuple[int, ...], where: str) -> None:
        """Check that images [C, H, W] can be of the data set that was named.

        Raises:
            DataError: if they cannot.
        """
        if self.conventions and shape != self.conventions.image_shape:
            ours, theirs = ("x".join(map(str, item)) for item in (shape, self.conventions.image_shape))
            raise DataError(f"{where}: images: {ours}, but those of --dataset {self.dataset} are {theirs}")

    def image_space(self, default: SpaceKind | None, channels: int, where: str) -> ImageSpace:
        """Return the space of the images: what was said, or else `default`.

        Raises:
            DataError: if something that cannot be known was not said.
        """
        kind = self.space or default
        if kind is None:
            raise DataError(
                f"{where}: space: the file does not say what its pixel values are; "
                "give --space unit, normalised or zca"
            )
        if kind != "normalised":
            if self.mean or self.std:
                raise DataError(
                    f"{where}: space: --mean and --std only go with normalised images, not {kind}"
                )
            return ImageSpace(kind=kind)
        mean, std = self._statistics(where)
        space = ImageSpace(kind="normalised", mean=mean, std=std)
        check_space(space, channels, where)
        return space

    def _statistics(self, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if bool(self.mean) != bool(self.std):
            raise DataError(f"{where}: space: --mean and --std go together; only one was given")
        if self.mean:
            return self.mean, self.std
        if self.conventions:
            return self.conventions.mean, self.conventions.std
        unknown = (
            f"--dataset {self.dataset} is not known{nearest(self.dataset, list(DATASETS))}; "
            if self.dataset
            else ""
        )
        raise DataError(
            f"{where}: space: {unknown}the images are normalised, and the file does not say how; "
            f"give --dataset ({', '.join(DATASETS)}), or --mean and --std"
        )
