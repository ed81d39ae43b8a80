"""Pictures in one folder per class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ddrank_core import DataError, RealData, component, parameter
from ddrank_datasets._checks import brief, check_size, checked, positive, statistics

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# Decoders that read pixels and nothing else; PIL would also open formats that run a program (EPS).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_WORKERS = 8
_BATCH = 64
_MAX_ASPECT = 100


@component
class ImageFolder:
    """Pictures in `root/train/<class>/` and `root/test/<class>/` (`val` where there is no `test`).

    Classes are numbered by sorted folder name; pictures are taken in sorted order, from subfolders of a
    class too. Hidden files, and files that are not pictures by their ending, are left aside. A picture whose
    sides are not `size` is resized (bilinear, antialiased) so that its shorter side is, and its
    centre is cut out, as torchvision's Resize and CenterCrop do. The first frame of an animation
    counts; orientation tags are not applied. Symbolic links that lead out of root are refused.
    """

    root: Path = parameter("the folder that has train/ and test/ (or val/)")
    size: int = parameter("height and width of the images", minimum=1, maximum=4096)
    channels: Literal[1, 3] = parameter("1 for grey, 3 for colour", default=3)
    mean: tuple[float, ...] | None = parameter(
        "per channel, of pixels in [0, 1]; the train images' own where not given", default=None
    )
    std: tuple[float, ...] | None = parameter(
        "per channel, of pixels in [0, 1]; the train images' own where not given",
        default=None,
        check=positive,
    )

    def load(self) -> RealData:
        """Return images uint8 [N, channels, size, size].

        Raises:
            DataError: naming the folder or picture, what is wrong with it and what to do.
        """
        train, test, names = self._scan()
        where = str(self.root)
        check_size((len(train) + len(test)) * self.channels * self.size**2, where)
        train_images = _decode([path for path, _ in train], self.size, self.channels)
        test_images = _decode([path for path, _ in test], self.size, self.channels)
        mean, std = statistics(train_images, self.mean, self.std, where)
        data = RealData(
            train_images=train_images,
            train_labels=_labels(train),
            test_images=test_images,
            test_labels=_labels(test),
            class_names=names,
            mean=mean,
            std=std,
            source=f"pictures in {self.root}, size {self.size}",
        )
        return checked(data, where)

    def _scan(self) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]], tuple[str, ...]]:
        train_folder = self.root / "train"
        test_folder = self.root / "test"
        if not os.path.isdir(test_folder) and os.path.isdir(self.root / "val"):
            test_folder = self.root / "val"
        for folder in (train_folder, test_folder):
            if not os.path.isdir(folder):
                raise DataError(
                    f"{folder}: no such folder; image-folder needs train/<class>/ and test/<class>/ in root"
                )
        inside = Path(os.path.realpath(self.root))
        classes = _class_names(train_folder, inside)
        _check_same_classes(train_folder, classes, test_folder, _class_names(test_folder, inside))
        train = _pictures(train_folder, classes, inside)
        test = _pictures(test_folder, classes, inside)
        return train, test, tuple(classes)


def _class_names(folder: Path, inside: Path) -> list[str]:
    _check_inside(folder, inside)
    names = [name for name in _listed(folder) if os.path.isdir(folder / name)]
    if not names:
        raise DataError(f"{folder}: has no class folders; make one folder of pictures per class")
    for name in names:
        _check_inside(folder / name, inside)
    return names


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


def _pictures(folder: Path, classes: Sequence[str], inside: Path) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        paths = list(_pictures_below(folder / name, inside))
        if not paths:
            raise DataError(
                f"{folder / name}: has no pictures ({', '.join(sorted(_SUFFIXES))}); add some or remove it"
            )
        found.extend((path, label) for path in paths)
    return found


def _pictures_below(folder: Path, inside: Path) -> list[Path]:
    found: list[Path] = []
    for name in _listed(folder):
        path = folder / name
        if os.path.isdir(path):
            if path.is_symlink():
                raise DataError(
                    f"{path}: is a symbolic link to a folder, inside a class; put the pictures there"
                )
            found.extend(_pictures_below(path, inside))
        elif path.suffix.lower() in _SUFFIXES:
            _check_picture_file(path, inside)
            found.append(path)
    return found


def _check_picture_file(path: Path, inside: Path) -> None:
    if path.is_symlink():
        _check_inside(path, inside)
    # Opening a pipe would wait for ever.
    if not os.path.isfile(path):
        raise DataError(f"{path}: is not a file, or a broken link; remove it")


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _check_inside(path: Path, inside: Path) -> None:
    # Path.resolve of Python 3.11 raises on a loop of links; realpath does not.
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(inside):
        raise DataError(f"{path}: leads out of the data set, to {target}; put the pictures themselves there")


def _labels(pictures: Sequence[tuple[Path, int]]) -> Tensor:
    import torch

    return torch.tensor([label for _, label in pictures], dtype=torch.int64)


def _decode(paths: Sequence[Path], size: int, channels: int) -> Tensor:
    """Return uint8 [N, channels, size, size]; decoders run without Python's lock, hence threads."""
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from PIL import Image

    images = torch.empty(len(paths), channels, size, size, dtype=torch.uint8)
    pixels = images.numpy()

    def decode(start: int) -> None:
        for index in range(start, min(start + _BATCH, len(paths))):
            pixels[index] = _picture(paths[index], size, channels)

    pool = ThreadPoolExecutor(max_workers=min(_WORKERS, os.cpu_count() or 1))
    with warnings.catch_warnings():
        # What decoders remark on metadata says nothing about the pixels.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            # list() lets the first error out, in the order of the files.
            list(pool.map(decode, range(0, len(paths), _BATCH)))
        finally:
            pool.shutdown(cancel_futures=True)
    return images


def _picture(path: Path, size: int, channels: int) -> object:
    """Return one picture as a uint8 array [channels, size, size]."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as file:
            if file.mode.startswith(("I", "F")):
                raise DataError(
                    f"{path}: has more than 8 bits per channel (mode {file.mode}); save it with 8"
                )
            if max(file.size) > _MAX_ASPECT * min(file.size):
                raise DataError(
                    f"{path}: is {file.width}x{file.height}, too long and narrow to be resized; remove it"
                )
            picture = file.convert("L" if channels == 1 else "RGB")
        array = np.asarray(_fitted(picture, size))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: is too large a picture: {brief(error)}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not a picture of a known format; replace or remove it") from error
    except Exception as error:  # decoders raise almost any type on a broken file
        raise DataError(
            f"{path}: cannot be read as a picture: {brief(error)}; replace or remove it"
        ) from error
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _fitted(picture: Image.Image, size: int) -> Image.Image:
    from PIL import Image

    if picture.size == (size, size):
        return picture
    width, height = picture.size
    short = min(width, height)
    # Exact integer division, as torchvision: the longer side is rounded down.
    width, height = size * width // short, size * height // short
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))
