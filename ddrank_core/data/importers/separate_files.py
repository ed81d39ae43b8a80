"""Images, labels and learning rate in files of their own, as MTT and its descendants save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddrank_core.data import unpickle
from ddrank_core.data.importers.assemble import Parts, assemble
from ddrank_core.data.importers.options import ImportOptions
from ddrank_core.errors import DataError
from ddrank_core.types import DistilledSet


def read_folder(folder: Path, options: ImportOptions) -> DistilledSet:
    """Return the set in a folder with one `images*.pt`, one `labels*.pt`, and perhaps one `lr*.pt`.

    Raises:
        DataError: if there is more than one candidate: which belongs to which cannot be known.
    """
    images = _only(folder, "images", "give the images file as SOURCE, and its labels with --labels")
    if images is None:
        raise DataError(f"{folder}: images*.pt: missing")
    return read(unpickle.read(images), images, options, folder)


def read(images: Any, path: Path, options: ImportOptions, folder: Path | None = None) -> DistilledSet:
    """Return the set whose images are the content of the file `path`.

    The other files are those that the options name; in a `folder`, those that are found there.

    Raises:
        DataError: naming the files and the field.
    """
    options.refuse(("experiment",), str(path))
    labels = options.labels or (folder and _only(folder, "labels", "say which with --labels"))
    soft = options.soft_labels or (folder and _only(folder, "soft", "say which with --soft-labels"))
    rate = options.lr or (folder and _only(folder, "lr", "say which with --lr"))
    if labels is None and soft is None and getattr(images, "ndim", 0) == 4:
        raise DataError(f"{path}: labels: the file holds only images; give the labels file with --labels")
    files = tuple(file for file in (path, labels, soft, rate) if file)
    parts = Parts(
        images=images,
        labels=None if labels is None else unpickle.read(labels),
        soft_labels=None if soft is None else unpickle.read(soft),
        learning_rate=None if rate is None else _rate(unpickle.read(rate), rate),
        files=files,
    )
    where = " with ".join([str(path), *(file.name for file in files[1:])])
    return assemble(parts, options, path, where)


def _only(folder: Path, prefix: str, advice: str) -> Path | None:
    found = sorted(folder.glob(f"{prefix}*.pt"))
    if len(found) > 1:
        raise DataError(
            f"{folder}: {' and '.join(file.name for file in found[:4])} could each be meant; {advice}"
        )
    return found[0] if found else None


def _rate(value: Any, path: Path) -> float:
    import torch

    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{path}: learning_rate: must hold one number")
    return float(value)
