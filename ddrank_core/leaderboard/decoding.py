"""Pictures beside a distilled set: whether they show it, and whether every decoder shows the same.

A submission may hold its images as pictures too, one folder per class in `images/`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ddrank_core.data.importers import ImportOptions
from ddrank_core.data.importers.picture_folders import read
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.findings import Findings, listed

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "images"
CHECK = "decoding"
_DECODED_BY_TORCHVISION = (".png", ".jpg", ".jpeg")
_ROUNDING = 1.001 / 255
"""How far an 8-bit pixel may be from the float that it stands for, whichever way it was rounded."""


def check_pictures(folder: Path, images_unit: Tensor, labels: Tensor, findings: Findings) -> None:
    """Compare the pictures in a submission's folder, if it has any, with the images of its distilled set.

    `images_unit` is float32 [N, C, H, W], `labels` int64 [N]; pictures show them clipped to [0, 1].
    """
    place = folder / FOLDER
    if not place.is_dir():
        return
    with findings.refusing(CHECK):
        shown = read(place, ImportOptions(space="unit"))
        if shown.images.shape != images_unit.shape:
            raise DataError(
                f"{place}: {_shape(shown.images)} pictures, but the distilled set has {_shape(images_unit)}"
            )
        _compare(place, shown.images, shown.labels, images_unit, labels, findings)
        _decode_again(place, findings)


def _shape(images: Tensor) -> str:
    return f"{len(images)} of {'x'.join(map(str, images.shape[1:]))}"


def _compare(
    place: Path, shown: Tensor, classes: Tensor, images_unit: Tensor, labels: Tensor, findings: Findings
) -> None:
    """Compare the pictures, by class and name, with the images of each class in their order."""
    order = labels.argsort(stable=True)
    if not labels[order].equal(classes):
        raise DataError(f"{place}: its classes hold other numbers of pictures than the distilled set")
    apart = (shown - images_unit[order].clamp(0, 1)).abs().flatten(1).amax(dim=1)
    other = (apart > _ROUNDING).nonzero().flatten().tolist()
    outside = float(((images_unit < 0) | (images_unit > 1)).float().mean())
    if other:
        findings.note(
            "warning",
            CHECK,
            f"{place}: {len(other)} of {len(shown)} pictures differ from the distilled set by up to "
            f"{255 * float(apart.max()):.0f} of 255, the first is number {other[0]}",
        )
    findings.note(
        "info", CHECK, f"{outside:.1%} of the pixels lie outside [0, 1], which no 8-bit picture can store"
    )


def _decode_again(place: Path, findings: Findings) -> None:
    """Decode each picture, which Pillow has decoded before, with Pillow and with torchvision."""
    files = sorted(
        path for path in place.rglob("*") if path.suffix.lower() in _DECODED_BY_TORCHVISION and path.is_file()
    )
    differing = [path.relative_to(place).as_posix() for path in files if not _same(path)]
    if differing:
        findings.note(
            "warning",
            CHECK,
            f"{place}: Pillow and torchvision disagree about the pixels of {len(differing)} of {len(files)} "
            f"pictures: {listed(differing)}; store them as PNG without a palette or a profile",
        )


def _same(path: Path) -> bool:
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_image

    with warnings.catch_warnings():
        # Both remark on things that say nothing about the pixels.
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB")))
        try:
            other = decode_image(str(path), mode=ImageReadMode.RGB)
        except RuntimeError:
            # torchvision cannot decode the file at all.
            return False
    return bool(other.permute(1, 2, 0).equal(pixels))
