"""Images and labels in one .npz or .pt file."""

from __future__ import annotations

import math
import os
import pickle
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs

from ddrank_core import DataError, DatasetFacts, RealData, component, parameter
from ddrank_datasets._checks import brief, check_size, checked, positive, statistics

if TYPE_CHECKING:
    from torch import Tensor

_TORCH = (".pt", ".pth")
_NAMES = ("x_train", "y_train", "x_test", "y_test")
_LAYOUTS = "[N,H,W], [N,H,W,C] or [N,C,H,W] with 1 or 3 channels"


def _not_empty(names: tuple[str, ...] | None) -> str | None:
    return "must not be empty" if names == () else None


@component
class Arrays:
    """A `.npz` with the arrays `x_train`, `y_train`, `x_test`, `y_test`; others in it are left aside.

    A `.pt` holds a dict of tensors with the same names, as `torch.save` writes it.

    Images are uint8 in 0..255 or floats in [0, 1], as [N, H, W], [N, H, W, C] or [N, C, H, W]
    with 1 or 3 channels. Labels are integers [N] in 0..K-1; K is the number of class names, or without
    them one more than the largest train label. Nothing in the file is ever executed: arrays are not
    unpickled, and tensors only by `torch.load(weights_only=True)`.
    """

    path: Path = parameter(
        "the .npz file, as numpy.savez or savez_compressed writes it, or the .pt file of torch.save"
    )
    class_names: tuple[str, ...] | None = parameter(
        "in the order of the labels; '0', '1', ... by default", default=None, check=_not_empty
    )
    mean: tuple[float, ...] | None = parameter(
        "per channel, of pixels in [0, 1]; the train images' own where not given", default=None
    )
    std: tuple[float, ...] | None = parameter(
        "per channel, of pixels in [0, 1]; the train images' own where not given",
        default=None,
        check=positive,
    )

    def facts(self) -> DatasetFacts:
        """Return what is known without reading the file."""
        return DatasetFacts(
            source="arrays of your own",
            licence="that of the images",
            num_classes=None if self.class_names is None else len(self.class_names),
            class_names=self.class_names or (),
            class_order="the labels'",
            mean=self.mean or (),
            std=self.std or (),
            statistics="as given, else the train images' own",
            found=self.path if os.path.isfile(self.path) else None,
        )

    def load(self) -> RealData:
        """Return images uint8, or float32 in [0, 1], [N, C, H, W].

        Raises:
            DataError: naming the file and the array, what is wrong with it and what to do.
        """
        where = str(self.path)
        arrays = _read_pt(self.path) if self.path.suffix in _TORCH else _read(self.path)
        train_images, test_images = (_images(arrays, name, where) for name in ("x_train", "x_test"))
        train_labels, test_labels = (_labels(arrays, name, where) for name in ("y_train", "y_test"))
        if train_images.dtype != test_images.dtype:
            raise DataError(
                f"{where}: x_train and x_test differ in type; save both as uint8 or both as floats"
            )
        if len(train_images) == 0 or len(train_labels) == 0:
            raise DataError(f"{where}: x_train or y_train is empty")
        mean, std = statistics(train_images, self.mean, self.std, where)
        names = _numbered(train_labels, where) if self.class_names is None else self.class_names
        data = RealData(
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            class_names=names,
            mean=mean,
            std=std,
            source=f"arrays of {self.path.name}",
        )
        return checked(data, where)


def _numbered(labels: Tensor, where: str) -> tuple[str, ...]:
    """Return '0', '1', ... up to the largest label."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(labels):
        wrong = low if low < 0 else high
        raise DataError(
            f"{where}: y_train has the label {wrong} among {len(labels)}; labels must be 0..K-1, without gaps"
        )
    return tuple(str(label) for label in range(high + 1))


@attrs.frozen
class _Header:
    shape: tuple[int, ...]
    dtype: Any
    stored_bytes: int


def _read(path: Path) -> dict[str, Any]:
    """Return the four arrays, after every header has been found sound."""
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            headers = {name: _header(archive, name, path) for name in _NAMES}
            _check_headers(headers, str(path))
            arrays = {}
            for name in _NAMES:
                with archive.open(f"{name}.npy") as stream:
                    arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
            return arrays
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    # RuntimeError is an encrypted member, NotImplementedError an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{path}: is not a sound .npz file ({brief(error)}); save it again with numpy.savez"
        ) from error


def _read_pt(path: Path) -> dict[str, Any]:
    """Return the four tensors as arrays, after what they declare has been found sound."""
    import torch

    _check_pt_size(path)
    try:
        with warnings.catch_warnings():
            # torch remarks on files that are then refused here, or that are merely old.
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        # torch's own words are many lines, and advise to open the file unsafely.
        raise DataError(
            f"{path}: is not a sound .pt file of plain tensors, and was not opened; save a dict of tensors "
            "(numpy arrays by torch.from_numpy) with torch.save"
        ) from error
    except Exception as error:  # torch raises almost any type on a damaged file
        raise DataError(
            f"{path}: is not a sound .pt file of plain tensors ({brief(error)}); save a dict of tensors "
            "again with torch.save"
        ) from error
    if not isinstance(held, dict):
        raise DataError(f"{path}: holds {type(held).__name__}, not a dict of tensors")
    arrays = {name: _array_of(held, name, path) for name in _NAMES}
    headers = {name: _Header(a.shape, a.dtype, a.size * a.itemsize) for name, a in arrays.items()}
    _check_headers(headers, str(path))
    return arrays


def _check_pt_size(path: Path) -> None:
    """Refuse a file that would unpack to too much; files older than torch 1.6's are not packed."""
    try:
        size = os.path.getsize(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{path}: is not a sound .pt file ({brief(error)})") from error
    check_size(size, str(path))


def _array_of(held: dict[Any, Any], name: str, path: Path) -> Any:
    import torch

    if name not in held:
        have = ", ".join(sorted(map(str, held)))[:100] or "none"
        raise DataError(f"{path}: has no tensor '{name}'; it needs {', '.join(_NAMES)}, and has {have}")
    tensor = held[name]
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        raise DataError(f"{path}: {name} is not a plain tensor")
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16, quantised, meta
        raise DataError(
            f"{path}: {name} is {tensor.dtype}, which cannot be read; save uint8 or float32"
        ) from error


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> _Header:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        held = sorted(member.removesuffix(".npy") for member in archive.namelist())
        raise DataError(
            f"{path}: has no array '{name}'; it needs {', '.join(_NAMES)}, "
            f"and has {', '.join(held)[:100] or 'none'}"
        ) from error
    with archive.open(info) as stream:
        shape, dtype, header_bytes = _npy_header(stream)
    if dtype.hasobject:
        raise DataError(f"{path}: {name} holds Python objects, which are never unpickled; save plain numbers")
    # A zip member never gives more than its declared size, so this bounds what reading it can take.
    if header_bytes + math.prod(shape) * dtype.itemsize != info.file_size or any(size < 0 for size in shape):
        raise DataError(
            f"{path}: {name} declares {shape} of {dtype}, which is not what its {info.file_size} bytes hold"
        )
    return _Header(shape, dtype, info.file_size)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], Any, int]:
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy format {version[0]}.{version[1]}")
    shape, _, dtype = readers[version](stream)
    return shape, dtype, stream.tell()


def _check_headers(headers: dict[str, _Header], where: str) -> None:
    for name in ("x_train", "x_test"):
        shape, dtype = headers[name].shape, headers[name].dtype
        if len(shape) not in (3, 4):
            raise DataError(f"{where}: {name} has shape {list(shape)}; it must be {_LAYOUTS}")
        if dtype != "uint8" and dtype.kind != "f":
            raise DataError(f"{where}: {name} is {dtype}; it must be uint8 in 0..255, or floats in [0, 1]")
    for name in ("y_train", "y_test"):
        shape, dtype = headers[name].shape, headers[name].dtype
        if dtype.kind not in "iu":
            raise DataError(f"{where}: {name} is {dtype}; labels must be integers")
        if len(shape) != 1:
            raise DataError(f"{where}: {name} has shape {list(shape)}; labels must be [N]")
    for part in ("train", "test"):
        images, labels = headers[f"x_{part}"].shape[0], headers[f"y_{part}"].shape[0]
        if images != labels:
            raise DataError(
                f"{where}: x_{part} has {images} images and y_{part} {labels} labels; there must be one each"
            )
    check_size(sum(header.stored_bytes for header in headers.values()), where)


def _images(arrays: dict[str, Any], name: str, where: str) -> Tensor:
    import numpy as np
    import torch

    array = _channels_first(arrays.pop(name), name, where)
    if array.dtype.kind != "f":
        return torch.from_numpy(np.ascontiguousarray(array))
    images = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if not images.isfinite().all():
        raise DataError(f"{where}: {name} has NaN or infinite values")
    if images.numel() and (images.min() < 0 or images.max() > 1):
        raise DataError(
            f"{where}: {name} has values from {images.min():g} to {images.max():g}; "
            "floats must be in [0, 1], before any normalisation"
        )
    return images


def _channels_first(array: Any, name: str, where: str) -> Any:
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
    if first == last:
        fault = "can be read in two ways" if first else "has no axis of 1 or 3 channels"
        raise DataError(f"{where}: {name} of shape {list(array.shape)} {fault}; it must be {_LAYOUTS}")
    return array if first else array.transpose(0, 3, 1, 2)


def _labels(arrays: dict[str, Any], name: str, where: str) -> Tensor:
    import numpy as np
    import torch

    array = arrays.pop(name)
    if array.size and array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where}: {name} has the label {array.max()}, which is out of range")
    return torch.from_numpy(array.astype(np.int64))
