"""Folders of pictures: which files belong to a data set, and how each becomes a square of pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from ddrank_core import DataError, Pictures
from ddrank_datasets._checks import brief

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# Decoders that read pixels and nothing else; PIL would also open formats that run a program (EPS).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_MAX_ASPECT = 100

Fit = Literal["crop", "squash"]

FIT = (
    "crop: the shorter side is resized and the centre cut out; "
    "squash: both sides are resized, whatever the aspect ratio, as MTT and its followers do"
)


@attrs.frozen(kw_only=True)
class Decoder:
    """Reads one picture as a uint8 array [channels, size, size].

    Resizing is Pillow's bilinear with antialiasing, which is what torchvision's Resize does to a picture.
    The first frame of an animation counts; orientation tags are not applied.
    """

    size: int
    channels: int = 3
    shorter_side: int | None = None
    """What the shorter side is resized to before the centre is cut out; `size` where not given."""
    fit: Fit = "crop"

    @property
    def recipe(self) -> str:
        """Return what decides the pixels, in words; to change what they are, change the words."""
        colour = "grey" if self.channels == 1 else "RGB"
        if self.fit == "squash":
            return f"{colour}, resized to {self.size}x{self.size} (bilinear, antialiased)"
        side = self.shorter_side or self.size
        return f"{colour}, shorter side {side} (bilinear, antialiased), centre {self.size}x{self.size}"

    def of(self, name: str, root: Path, files: Sequence[str]) -> Pictures:
        """Return the part of a data set that these files are."""
        return Pictures(
            name=name,
            root=root,
            files=files,
            shape=(self.channels, self.size, self.size),
            recipe=self.recipe,
            decode=self,
        )

    def __call__(self, path: Path) -> Any:
        """Return the picture.

        Raises:
            DataError: naming the picture and what is wrong with it.
        """
        import numpy as np
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path, formats=_FORMATS) as file:
                _check_header(file, path)
                picture = file.convert("L" if self.channels == 1 else "RGB")
            array = np.asarray(self._fitted(picture))
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(f"{path}: is too large a picture: {brief(error)}") from error
        except UnidentifiedImageError as error:
            raise DataError(f"{path}: is not a picture of a known format; replace or remove it") from error
        except Exception as error:  # decoders raise almost any type on a broken file
            raise DataError(
                f"{path}: cannot be read as a picture: {brief(error)}; replace or remove it"
            ) from error
        return array[None] if self.channels == 1 else array.transpose(2, 0, 1)

    def _fitted(self, picture: Image.Image) -> Image.Image:
        from PIL import Image

        size = self.size
        if self.fit == "squash":
            return picture.resize((size, size), Image.Resampling.BILINEAR)
        width, height = picture.size
        side, short = self.shorter_side or size, min(picture.size)
        # Exact integer division, as torchvision: the longer side is rounded down.
        width, height = side * width // short, side * height // short
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return picture.crop((left, top, left + size, top + size))


def check_shorter_side(shorter_side: int | None, size: int) -> None:
    """Refuse a shorter side that is shorter than what is cut out of it.

    Raises:
        DataError: one line.
    """
    if shorter_side is not None and shorter_side < size:
        raise DataError(f"test_resize: must be at least the size, {size}, got {shorter_side}")


def _check_header(file: Image.Image, path: Path) -> None:
    from PIL import Image

    if file.mode.startswith(("I", "F")):
        raise DataError(f"{path}: has more than 8 bits per channel (mode {file.mode}); save it with 8")
    if max(file.size) > _MAX_ASPECT * min(file.size):
        raise DataError(
            f"{path}: is {file.width}x{file.height}, too long and narrow to be resized; remove it"
        )
    limit = Image.MAX_IMAGE_PIXELS
    # Pillow itself only warns up to twice its limit.
    if limit is not None and file.width * file.height > limit:
        raise Image.DecompressionBombError(f"{file.width}x{file.height}, more than {limit} pixels")


def class_folders(folder: Path, inside: Path) -> list[str]:
    """Return the names of the class folders, sorted; none of them may lead out of `inside`.

    Raises:
        DataError: naming the folder.
    """
    _check_inside(folder, inside)
    names = [entry.name for entry in _listed(folder) if _is_folder(entry)]
    if not names:
        raise DataError(f"{folder}: has no class folders; make one folder of pictures per class")
    for name in names:
        _check_inside(folder / name, inside)
    return names


def class_pictures(
    root: Path, part: str, classes: Sequence[str], inside: Path
) -> tuple[list[str], list[int]]:
    """Return the pictures below `root/part/<class>`, relative to root in sorted order, and their labels.

    Hidden files, and files that are not pictures by their ending, are left aside.

    Raises:
        DataError: naming a class without pictures, or a link that leads out of `inside`.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = list(_below(root, f"{part}/{name}", inside))
        if not found:
            raise DataError(
                f"{root / part / name}: has no pictures ({', '.join(sorted(_SUFFIXES))}); "
                "add some or remove it"
            )
        files += found
        labels += [label] * len(found)
    return files, labels


def _below(root: Path, folder: str, inside: Path) -> Iterator[str]:
    for entry in _listed(root / folder):
        name = f"{folder}/{entry.name}"
        if _is_folder(entry):
            if entry.is_symlink():
                raise DataError(
                    f"{root / name}: is a symbolic link to a folder, inside a class; put the pictures there"
                )
            yield from _below(root, name, inside)
        elif os.path.splitext(entry.name)[1].lower() in _SUFFIXES:
            _check_file(entry, inside)
            yield name


def flat_pictures(folder: Path, inside: Path) -> list[str]:
    """Return the names of the pictures that lie in the folder itself, sorted.

    Raises:
        DataError: naming a link that leads out of `inside`.
    """
    found = [
        entry
        for entry in _listed(folder)
        if os.path.splitext(entry.name)[1].lower() in _SUFFIXES and not _is_folder(entry)
    ]
    for entry in found:
        _check_file(entry, inside)
    return [entry.name for entry in found]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir raises on a circle of links; without a link it costs no call to the system.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _check_file(entry: os.DirEntry[str], inside: Path) -> None:
    path = Path(entry.path)
    if entry.is_symlink():
        _check_inside(path, inside)
    # Opening a pipe would wait for ever.
    if not (os.path.isfile(path) if entry.is_symlink() else entry.is_file()):
        raise DataError(f"{path}: is not a file, or a broken link; remove it")


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = (entry for entry in entries if not entry.name.startswith("."))
            return sorted(shown, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _check_inside(path: Path, inside: Path) -> None:
    # Path.resolve of Python 3.11 raises on a loop of links; realpath does not.
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(inside):
        raise DataError(f"{path}: leads out of the data set, to {target}; put the pictures themselves there")


def label_tensor(labels: Sequence[int]) -> Tensor:
    """Return labels as int64 [N]."""
    import torch

    return torch.tensor(labels, dtype=torch.int64)
