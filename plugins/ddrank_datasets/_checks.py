"""What every data set is held to before the engine gets it, and the statistics of those that bring none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddrank_core import DataError, RealData

if TYPE_CHECKING:
    from torch import Tensor

    from ddrank_core import Decoded

GIB = 2**30
MAX_BYTES = 16 * GIB
"""The most that the images of a data set may take in memory: they all live on the device at once."""

_CHUNK = 2048


def brief(error: BaseException) -> str:
    """Return an error's type and text on one line of at most 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def checked(data: RealData, where: str) -> RealData:
    """Return `data` if images, labels, classes and statistics fit together.

    Test labels are held to their number and range only.

    Raises:
        DataError: one line that starts with `where`.
    """
    if data.train_images.shape[1:] != data.test_images.shape[1:]:
        raise DataError(
            f"{where}: train images are {_dims(data.train_images.shape[1:])} (CxHxW) and test images "
            f"{_dims(data.test_images.shape[1:])}; they must be of one shape"
        )
    _check_labels(data.train_images, data.train_labels, data.num_classes, f"{where}: train")
    _check_labels(data.test_images, data.test_labels, data.num_classes, f"{where}: test")
    counts = data.train_labels.bincount(minlength=data.num_classes).tolist()
    empty = [name for name, count in zip(data.class_names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(f"{where}: class '{empty[0]}' has no train images; every class needs some")
    if len(set(data.class_names)) != data.num_classes:
        raise DataError(f"{where}: two classes have the same name; give every class its own")
    return data


def statistics(
    images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None, where: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std per channel: what is given, and the pixels' own where nothing is.

    Raises:
        DataError: if their length is not the number of channels, or a std is not above zero.
    """
    if mean is None or std is None:
        own_mean, own_std = pixel_statistics(images)
        mean, std = own_mean if mean is None else mean, own_std if std is None else std
    return sound_statistics(mean, std, images.shape[1], where)


def sound_statistics(
    mean: Sequence[float], std: Sequence[float], channels: int, where: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std per channel, once they are found fit to normalise with.

    Raises:
        DataError: if their length is not the number of channels, or a std is not above zero.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise DataError(f"{where}: {name} has {len(values)} values for {channels} channel(s)")
    for channel, value in enumerate(std):
        if not value > 0:
            raise DataError(
                f"{where}: std of channel {channel} is {value:g}, and images are divided by it; "
                "give a std above zero"
            )
    return tuple(mean), tuple(std)


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (over n) of each channel's pixels in the unit range.

    `images` is uint8 [N, C, H, W] in 0..255 or float32 in [0, 1]; sums are float64. The deviations
    are taken from the mean in a second pass, since the difference of two large sums loses digits.
    """
    import torch

    scale = 1.0 if images.is_floating_point() else 255.0
    pixels = images.numel() // images.shape[1]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    for chunk in chunks:
        total += chunk.double().sum(dim=(0, 2, 3))
    mean = total / pixels
    squares = torch.zeros_like(total)
    for chunk in chunks:
        squares += (chunk.double() - mean.view(-1, 1, 1)).square().sum(dim=(0, 2, 3))
    std = (squares / pixels).sqrt()
    return tuple((mean / scale).tolist()), tuple((std / scale).tolist())


def whole_digest(train: Decoded, test: Decoded, train_labels: Tensor, test_labels: Tensor) -> str:
    """Return the SHA-256 that stands for all pixels and labels of decoded pictures."""
    whole = hashlib.sha256(f"{train.digest} {test.digest}".encode())
    for labels in (train_labels, test_labels):
        whole.update(labels.numpy().data)
    return whole.hexdigest()


def say_licence(name: str, licence: str) -> None:
    """Say, on stderr unless logging is set up otherwise, what is fetched and under which terms."""
    logging.getLogger("ddrank.datasets").warning("fetching %s; licence: %s", name, licence)


def positive(values: Sequence[float] | None) -> str | None:
    """Say what is wrong with a std parameter, or return None."""
    if values is not None and any(not value > 0 for value in values):
        return f"every value must be greater than 0, got {list(values)}"
    return None


def check_size(image_bytes: int, where: str) -> None:
    """Refuse images that will not fit.

    Raises:
        DataError: if they take more than `MAX_BYTES`.
    """
    if image_bytes > MAX_BYTES:
        raise DataError(
            f"{where}: the images would take {image_bytes / GIB:.1f} GiB of memory, and at most "
            f"{MAX_BYTES / GIB:g} are allowed; use fewer or smaller images"
        )


def _check_labels(images: Tensor, labels: Tensor, num_classes: int, where: str) -> None:
    if len(images) == 0:
        raise DataError(f"{where}: there are no images")
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images and {len(labels)} labels; there must be one each")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise DataError(
            f"{where}: label {wrong} is out of range, there are {num_classes} classes (0..{num_classes - 1})"
        )


def _dims(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
