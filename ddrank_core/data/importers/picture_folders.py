"""A folder with one folder of pictures per class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ddrank_core.data.importers.assemble import MAX_VALUES, Parts, assemble
from ddrank_core.data.importers.options import ImportOptions
from ddrank_core.errors import DataError
from ddrank_core.types import DistilledSet

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MAX_PIXELS = 4096 * 4096
MAX_PICTURE_BYTES = 64 << 20
_GREY = ("1", "L")
_COLOUR = ("RGB", "P", "RGBA", "CMYK", "YCbCr", "LA")


def read(folder: Path, options: ImportOptions) -> DistilledSet:
    """Return the pictures in unit space; classes in the order of the folders' names.

    Names that are all numbers are ordered as numbers. Where some pictures are grey and some in
    colour, all become colour; transparency is dropped.

    Raises:
        DataError: naming the file, for anything that is not one picture of the common size.
    """
    import torch

    options.refuse(("experiment", "labels", "soft_labels", "lr"), str(folder))
    classes = _class_folders(folder)
    said = options.classes()
    if said is not None and said != len(classes):
        # Labels are the folders' positions: one folder short, and those after it are all wrong.
        raise DataError(f"{folder}: {len(classes)} class folders for {said} classes")
    files = [(label, file) for label, name in enumerate(classes) for file in _pictures(name, folder)]
    pictures: list[Tensor] = []
    for _, file in files:
        pictures.append(_pixels(file, len(files)))
        if pictures[-1].shape[1:] != pictures[0].shape[1:]:
            ours, first = ("x".join(map(str, item.shape[1:])) for item in (pictures[-1], pictures[0]))
            raise DataError(f"{file}: {ours} pixels, but {files[0][1].name} has {first}; all must agree")
    channels = max(len(picture) for picture in pictures)
    parts = Parts(
        images=torch.stack([picture.expand(channels, -1, -1) for picture in pictures]),
        labels=torch.tensor([label for label, _ in files]),
        info={"class_names": [name.name for name in classes]},
    )
    return assemble(parts, options, folder, str(folder))


def _class_folders(folder: Path) -> list[Path]:
    visible = [item for item in folder.iterdir() if not item.name.startswith(".")]
    classes = [item for item in visible if item.is_dir()]
    if not classes:
        raise DataError(
            f"{folder}: no class folders; give a folder with one folder of single pictures per class, or the "
            ".pt file of the method (a picture of a grid is rounded, clipped, and says no labels)"
        )
    loose = [item.name for item in visible if not item.is_dir()]
    if loose:
        raise DataError(f"{folder}: {min(loose)}: lies beside the class folders; only they may be there")
    if all(item.name.isdecimal() for item in classes):
        return sorted(classes, key=lambda item: (int(item.name), item.name))
    return sorted(classes, key=lambda item: item.name)


def _pictures(class_folder: Path, root: Path) -> list[Path]:
    _check_inside(class_folder, root)
    files = sorted(item for item in class_folder.iterdir() if not item.name.startswith("."))
    if not files:
        raise DataError(f"{class_folder}: no pictures")
    for file in files:
        _check_inside(file, root)
        if not file.is_file():
            raise DataError(f"{file}: not a file; a class folder may hold pictures only")
        if file.stat().st_size > MAX_PICTURE_BYTES:
            raise DataError(f"{file}: larger than {MAX_PICTURE_BYTES >> 20} MiB")
    return files


def _check_inside(path: Path, root: Path) -> None:
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise DataError(f"{path}: a link that leads out of {root}, refused")


def _pixels(path: Path, count: int) -> Tensor:
    """Return one picture as uint8 [1 or 3, H, W]; `count` is how many the set will hold."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > min(MAX_PIXELS, MAX_VALUES // (3 * count)):
                    raise DataError(f"{path}: {picture.width}x{picture.height} pixels, too large")
                if getattr(picture, "n_frames", 1) != 1:
                    raise DataError(f"{path}: moving pictures are no distilled images")
                picture.verify()
            # verify leaves a picture unusable.
            with Image.open(path, formats=FORMATS) as picture:
                return _as_tensor(picture, path)
    except DataError:
        raise
    except Exception as error:  # a hostile or damaged picture can make the decoder raise anything
        bomb = "DecompressionBomb" in type(error).__name__
        reason = "too many pixels" if bomb else f"damaged, or not a picture ({', '.join(FORMATS)})"
        raise DataError(f"{path}: {reason}") from error


def _as_tensor(picture: Image, path: Path) -> Tensor:
    import torch

    if picture.mode not in (*_GREY, *_COLOUR):
        raise DataError(f"{path}: pixels of kind {picture.mode}, but must be 8-bit grey or colour")
    converted = picture.convert("L" if picture.mode in _GREY else "RGB")
    flat = torch.frombuffer(bytearray(converted.tobytes()), dtype=torch.uint8)
    return flat.reshape(picture.height, picture.width, -1).permute(2, 0, 1)
