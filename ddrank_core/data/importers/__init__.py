"""What distillation methods publish, turned into distilled sets; one module per kind of source."""

from __future__ import annotations

from pathlib import Path

from ddrank_core.data import distilled
from ddrank_core.data.importers.options import ImportOptions as ImportOptions
from ddrank_core.errors import DataError, nearest
from ddrank_core.types import DistilledSet

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_source(source: Path, options: ImportOptions) -> DistilledSet:
    """Read what a method published, whichever kind of file or folder it is.

    Raises:
        DataError: one line that names the file, what is wrong and what to do.
    """
    try:
        return _read(source, options)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from error


def _read(source: Path, options: ImportOptions) -> DistilledSet:
    if source.is_dir():
        return _read_folder(source, options)
    if not source.exists():
        beside = [item.name for item in source.parent.iterdir()] if source.parent.is_dir() else []
        raise DataError(f"{source}: no such file{nearest(source.name, beside)}")
    if source.suffix.lower() in PICTURE_SUFFIXES:
        raise DataError(
            f"{source}: one picture: its 8-bit pixels are rounded and clipped, and a grid says no labels; "
            "import the .pt file of the method, or a folder with one folder of pictures per class"
        )
    if source.suffix == ".safetensors":
        distilled.header(source)
        raise DataError(f"{source}: already is a distilled set of this project; use it as it is")
    from ddrank_core.data import unpickle
    from ddrank_core.data.importers import dc_family, separate_files

    content = unpickle.read(source)
    if isinstance(content, dict):
        return dc_family.read(content, source, options)
    return separate_files.read(content, source, options)


def _read_folder(folder: Path, options: ImportOptions) -> DistilledSet:
    from ddrank_core.data.importers import picture_folders, separate_files

    items = sorted(folder.iterdir())
    if any(item.name.startswith("images") and item.suffix == ".pt" for item in items):
        return separate_files.read_folder(folder, options)
    files = [item.name for item in items if item.suffix in (".pt", ".pth", ".safetensors")]
    if files:
        raise DataError(f"{folder}: a folder; give the file in it that is meant: {', '.join(files[:5])}")
    return picture_folders.read(folder, options)
