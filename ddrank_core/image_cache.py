"""Pictures decoded once and for all: arrays on disk that are mapped into memory, one folder for each.

A folder is named after the pictures' key, so that a picture that is added, changed or decoded in another
way is never served from what was prepared before. It is complete from the moment it is there.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.data.pictures import (
    Decoded,
    Pictures,
    PixelSums,
    Report,
    decode_in_memory,
    decode_in_order,
    default_workers,
    statistics_of,
)
from ddrank_core.errors import DataError, one_line
from ddrank_core.store import cache_folder

GIB = 2**30
MAX_UNPREPARED_BYTES = 2 * GIB
"""Up to here pictures are decoded at every load, which takes seconds to a minute."""

LAYOUT = 1
_ARRAY, _META, _UNFINISHED = "images.npy", "meta.json", ".part"
_ABANDONED_SECONDS = 3600


@attrs.frozen(kw_only=True)
class PreparedImages:
    """What is known of one prepared array, from the small file beside it."""

    folder: Path
    label: str
    root: str
    recipe: str
    count: int
    shape: tuple[int, ...]

    @property
    def pixel_bytes(self) -> int:
        return self.count * math.prod(self.shape)


def images_folder() -> Path:
    """Return the folder that holds everything prepared."""
    return cache_folder() / "images"


def decoded(parts: Sequence[Pictures], where: str) -> tuple[Decoded, ...]:
    """Return each part's images: memory-mapped where prepared, else decoded now in parallel.

    `where` starts the error's line.

    Raises:
        DataError: if what is not prepared would take more than 2 GiB, or a picture cannot be used.
    """
    found = [open_prepared(part) for part in parts]
    left = sum(part.pixel_bytes for part, ready in zip(parts, found, strict=True) if ready is None)
    if left > MAX_UNPREPARED_BYTES:
        raise DataError(
            f"{where}: the pictures take {left / GIB:.1f} GiB once decoded, too much to do at every run; "
            "decode them once with 'ddrank data prepare' and the same config"
        )
    return tuple(ready or decode_in_memory(part) for part, ready in zip(parts, found, strict=True))


def open_prepared(pictures: Pictures) -> Decoded | None:
    """Return the pictures' prepared images, memory-mapped, or None if there are none that are sound."""
    if not images_folder().is_dir():
        return None
    return _open(images_folder() / pictures.key(), pictures)


def prepare(pictures: Pictures, label: str, report: Report, workers: int | None = None) -> bool:
    """Decode the pictures into the cache; return False if they were there already.

    Either all of it is there afterwards or nothing is, whatever interrupts. `label` is shown by
    `ddrank data list`.

    Raises:
        DataError: if a picture cannot be used or changes meanwhile, or the disk does not take the result.
    """
    key, folder = pictures.key(), images_folder()
    if _open(folder / key, pictures) is not None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        _check_space(folder, pictures)
        with _unfinished(folder, key) as building:
            sums = _write(building / _ARRAY, pictures, report, workers or default_workers())
            if pictures.key() != key:
                raise DataError(f"{pictures.root}: pictures changed while they were read; prepare again")
            _write_meta(building, pictures, label, sums)
            _move(building, folder / key, pictures)
    except OSError as error:
        # EDQUOT is missing where there are no quotas.
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        advice = "free some space" if full else "see to its permissions"
        raise DataError(
            f"{folder}: cannot be written: {error.strerror or one_line(error)}; nothing half-written is "
            f"left; {advice}, or set DDRANK_CACHE to another folder"
        ) from error
    return True


def all_prepared() -> tuple[PreparedImages, ...]:
    """Return everything in the cache, by label."""
    folders = images_folder().glob(f"*/{_META}")
    read = (_read_meta(path.parent) for path in folders if path.parent.suffix != _UNFINISHED)
    described = (_described(meta, folder) for meta, folder in read if meta is not None)
    return tuple(sorted(filter(None, described), key=lambda one: (one.label, one.root, one.recipe)))


def _open(folder: Path, pictures: Pictures) -> Decoded | None:
    meta, _ = _read_meta(folder)
    if meta is None:
        return None
    count = len(pictures.files)
    try:
        if (folder / _ARRAY).stat().st_mtime_ns != meta["written_ns"]:
            return None
        array = _mapped(folder / _ARRAY)
        if array.dtype != "uint8" or array.shape != (count, *pictures.shape):
            return None
        pixels = count * math.prod(pictures.shape[1:])
        mean, std = statistics_of(meta["sums"], meta["squares"], max(1, pixels))
        return Decoded(images=_as_tensor(array), mean=mean, std=std, digest=str(meta["sha256"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        # Damaged: as good as not there, and `prepare` replaces it.
        return None


def _mapped(path: Path) -> Any:
    import numpy as np

    try:
        # Copy on write: a plugin that writes to the images changes its own memory, never the file.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        # A map that could be written to counts in full against what the system hands out.
        if error.errno != errno.ENOMEM:
            raise
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _as_tensor(array: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _read_meta(folder: Path) -> tuple[dict[str, Any] | None, Path]:
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, folder
    sound = isinstance(meta, dict) and meta.get("layout") == LAYOUT
    return (meta if sound else None), folder


def _described(meta: dict[str, Any], folder: Path) -> PreparedImages | None:
    try:
        return PreparedImages(
            folder=folder,
            label=str(meta["label"]),
            root=str(meta["root"]),
            recipe=str(meta["recipe"]),
            count=int(meta["count"]),
            shape=tuple(int(size) for size in meta["shape"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


@contextmanager
def _unfinished(folder: Path, key: str) -> Iterator[Path]:
    """Give a new folder to write in, which is gone afterwards unless it was moved away."""
    building = folder / f"{key[:16]}-{secrets.token_hex(4)}{_UNFINISHED}"
    building.mkdir()
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a process that was killed left: nothing writes for an hour without touching its file."""
    for building in folder.glob(f"*{_UNFINISHED}"):
        try:
            latest = max(path.stat().st_mtime for path in (building, *building.iterdir()))
        except OSError:
            continue
        if time.time() - latest > _ABANDONED_SECONDS:
            shutil.rmtree(building, ignore_errors=True)


def _check_space(folder: Path, pictures: Pictures) -> None:
    free = shutil.disk_usage(folder).free
    if pictures.pixel_bytes > free:
        raise DataError(
            f"{folder}: {pictures.pixel_bytes / GIB:.1f} GiB are needed for the {pictures.name} images and "
            f"{free / GIB:.1f} GiB are free; free some space, or set DDRANK_CACHE to another folder"
        )


def _write(path: Path, pictures: Pictures, report: Report, workers: int) -> PixelSums:
    """Write the images as one .npy file, in order, as they are decoded."""
    from numpy.lib import format as npy

    done, sums, total = 0, PixelSums(pictures.shape[0]), len(pictures.files)
    header = {"descr": "|u1", "fortran_order": False, "shape": (total, *pictures.shape)}
    # Plain writes: on a full disk, one to a memory map would kill the process without a word.
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        for chunk in decode_in_order(pictures, workers):
            file.write(chunk.pixels.data)
            sums.add(chunk)
            done += len(chunk.pixels)
            report(done, total)
        file.flush()
        os.fsync(file.fileno())
    return sums


def _write_meta(folder: Path, pictures: Pictures, label: str, sums: PixelSums) -> None:
    meta = {
        "layout": LAYOUT,
        "label": label,
        "root": str(pictures.root.absolute()),
        "recipe": pictures.recipe,
        "count": len(pictures.files),
        "shape": list(pictures.shape),
        "sha256": sums.digest,
        # Stands for the hash above at every later load: whoever writes to the array changes it.
        "written_ns": (folder / _ARRAY).stat().st_mtime_ns,
        "sums": sums.sums,
        "squares": sums.squares,
    }
    (folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _move(building: Path, final: Path, pictures: Pictures) -> None:
    try:
        os.rename(building, final)
    except OSError:
        # Somebody else was faster, or a damaged one is in the way.
        if _open(final, pictures) is not None:
            return
        shutil.rmtree(final)
        os.rename(building, final)
