"""Picture files on their way into one array: what a data set says of them, and decoding in parallel."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.errors import DataError, one_line

if TYPE_CHECKING:
    from torch import Tensor

Report = Callable[[int, int], None]
"""Called with how many pictures are done, and of how many."""

_CHUNK_PICTURES = 64
_CHUNK_BYTES = 8 << 20
_MAX_WORKERS = 32


@attrs.frozen(kw_only=True, eq=False)
class Pictures:
    """The picture files of one part of a data set, and how each of them becomes pixels.

    A data set returns one for each part from its optional method `pictures()`, which is what
    `ddrank data prepare` asks for, and hands the same to `decoded` in its `load()`.

    Example:
        def pictures(self):
            shape = (3, self.size, self.size)
            train = Pictures(name="train", root=self.root, files=("train/0.jpg", ...), shape=shape,
                             recipe=f"resized to {self.size}, bicubic", decode=self._decode)
            ...

        def load(self):
            train, test = decoded(self.pictures(), str(self.root))
            return RealData(train_images=train.images, ...)
    """

    name: str
    """Which part: train, test."""
    root: Path
    files: Sequence[str]
    """Relative to `root`, in the order of the images."""
    shape: tuple[int, int, int]
    """C x H x W of every image."""
    recipe: str
    """All that decides the pixels besides the files, in words: what is prepared under another is not used."""
    decode: Callable[[Path], Any]
    """Path -> uint8 array of `shape`. Called from several threads at once; raises DataError."""

    @property
    def pixel_bytes(self) -> int:
        return len(self.files) * math.prod(self.shape)

    def key(self) -> str:
        """Return the SHA-256 of the recipe and of the files' names, sizes and times of change.

        Raises:
            DataError: naming a file that is gone.
        """
        whole = hashlib.sha256(json.dumps([self.recipe, self.shape]).encode())
        for name in self.files:
            path = self.root / name
            try:
                found = os.stat(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
            # No name holds a NUL, so no two lists of files give the same bytes.
            stamp = f"\0{name}\0{found.st_size}\0{found.st_mtime_ns}"
            whole.update(stamp.encode(errors="surrogateescape"))
        return whole.hexdigest()


@attrs.frozen(kw_only=True, eq=False)
class Decoded:
    """The images of one part, decoded."""

    images: Tensor
    """uint8 [N, C, H, W] in 0..255 on the CPU. It may be a file's memory map: read it, never write to it."""
    mean: tuple[float, ...]
    """Of each channel's pixels in the unit range."""
    std: tuple[float, ...]
    """Likewise, over n."""
    digest: str
    """SHA-256 of the pixels."""


class PixelSums:
    """Sums over every pixel of each channel, exact, and the digest of all pixels in order."""

    def __init__(self, channels: int) -> None:
        self.sums = [0] * channels
        self.squares = [0] * channels
        self._hash = hashlib.sha256()

    def add(self, chunk: Chunk) -> None:
        """Count in the images that come next."""
        self.sums = [a + b for a, b in zip(self.sums, chunk.sums, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, chunk.squares, strict=True)]
        self._hash.update(chunk.pixels.data)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all pixels so far."""
        return self._hash.hexdigest()


@attrs.frozen(eq=False)
class Chunk:
    """Some consecutive images: uint8 [n, C, H, W], with the sums of their pixels and of the squares."""

    pixels: Any
    sums: Sequence[int]
    squares: Sequence[int]


def statistics_of(
    sums: Sequence[int], squares: Sequence[int], pixels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (over n) in the unit range, from sums over 0..255.

    Whole numbers until the last division: nothing is lost where a difference of large sums is small.
    """
    mean = tuple(total / (255 * pixels) for total in sums)
    spread = (pixels * q - s * s for s, q in zip(sums, squares, strict=True))
    return mean, tuple(math.sqrt(value) / (255 * pixels) for value in spread)


def decode_in_memory(pictures: Pictures) -> Decoded:
    """Return the decoded pictures in memory of their own.

    Raises:
        DataError: naming the first picture, in their order, that cannot be used.
    """
    import torch

    images = torch.empty(len(pictures.files), *pictures.shape, dtype=torch.uint8)
    pixels, done, sums = images.numpy(), 0, PixelSums(pictures.shape[0])
    for chunk in decode_in_order(pictures, default_workers()):
        pixels[done : done + len(chunk.pixels)] = chunk.pixels
        done += len(chunk.pixels)
        sums.add(chunk)
    mean, std = statistics_of(sums.sums, sums.squares, max(1, done * math.prod(pictures.shape[1:])))
    return Decoded(images=images, mean=mean, std=std, digest=sums.digest)


def default_workers() -> int:
    """Return how many threads decode: as many as this process has processors, at most 32."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MAX_WORKERS)


def decode_in_order(pictures: Pictures, workers: int) -> Iterator[Chunk]:
    """Decode in threads, since Pillow decodes and resizes without Python's lock, and yield in order.

    No more than a few chunks are held at once, however slowly they are taken.

    Raises:
        DataError: naming the first picture, in their order, that cannot be used.
    """
    step = max(1, min(_CHUNK_PICTURES, _CHUNK_BYTES // math.prod(pictures.shape)))
    starts = iter(range(0, len(pictures.files), step))
    pool = ThreadPoolExecutor(max_workers=workers)
    waiting: deque[Future[Chunk]] = deque()
    try:
        with _quiet():
            waiting.extend(pool.submit(_decode, pictures, s, s + step) for s in islice(starts, 2 * workers))
            while waiting:
                chunk = waiting.popleft().result()
                waiting.extend(pool.submit(_decode, pictures, s, s + step) for s in islice(starts, 1))
                yield chunk
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # What decoders remark on metadata says nothing about the pixels.
        warnings.simplefilter("ignore")
        yield


def _decode(pictures: Pictures, start: int, stop: int) -> Chunk:
    import numpy as np

    names = pictures.files[start:stop]
    pixels = np.empty((len(names), *pictures.shape), dtype=np.uint8)
    sums = squares = np.zeros(pictures.shape[0], dtype=np.int64)
    for place, name in enumerate(names):
        pixels[place] = _picture(pictures, pictures.root / name)
        # 255 squared still fits into 16 bits.
        wide = pixels[place].astype(np.uint16)
        sums = sums + wide.sum(axis=(1, 2), dtype=np.int64)
        squares = squares + (wide * wide).sum(axis=(1, 2), dtype=np.int64)
    return Chunk(pixels, sums.tolist(), squares.tolist())


def _picture(pictures: Pictures, path: Path) -> Any:
    try:
        array = pictures.decode(path)
    except DataError:
        raise
    except Exception as error:  # the plugin boundary, and decoders raise almost any type on a broken file
        raise DataError(
            f"{path}: cannot be read as a picture: {one_line(error)}; replace or remove it"
        ) from error
    if str(array.dtype) != "uint8" or tuple(array.shape) != pictures.shape:
        raise DataError(
            f"{path}: was decoded to {array.dtype} {list(array.shape)}, but its data set declares "
            f"uint8 {list(pictures.shape)}"
        )
    return array
