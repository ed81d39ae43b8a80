"""Where the work is done, and how to make it repeat itself there bit for bit."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from ddrank_core.errors import DeviceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def resolve(text: str) -> torch.device:
    """Return the device that a text stands for; `auto` takes a GPU if there is one.

    Raises:
        DeviceError: if the text is none of these, or no such device is there.
    """
    # cuBLAS reads it when its handle is made, at the first matrix product; see `deterministic`.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    if text == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    kind, _, index = text.partition(":")
    if kind != "cuda" or not re.fullmatch("[0-9]{0,3}", index):
        raise DeviceError(f"--device {text}: must be auto, cpu, cuda or cuda:0, cuda:1, ...")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        there = f"this machine has {count} of them" if count else "this machine has none that torch can use"
        raise DeviceError(f"--device {text}: no such CUDA device; {there}; use --device cpu or auto")
    return torch.device("cuda", int(index or 0))


def describe(device: torch.device, workers: int = 1) -> str:
    """Return the device's name as people know it, for the record."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    at_once = f"{workers} processes of " if workers > 1 else ""
    return f"cpu ({platform.machine()}, {at_once}{threads} thread{'s' if threads > 1 else ''})"


def kind(device: torch.device) -> str:
    """Return what of a device can change a result's bits: its model, or instruction set and threads."""
    import torch

    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"


_RESIDENT_SHARE = 0.5
"""The share of a GPU's free memory that one part of a data set may take; training needs the rest."""


def fits(images: Tensor, device: torch.device) -> bool:
    """Return whether images can live on the device; on the CPU they are where they are."""
    import torch

    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * images.element_size() <= _RESIDENT_SHARE * free


def keep_freed_memory(device: torch.device) -> None:
    """Let glibc keep the memory that a training step frees for the next step, for the rest of the process.

    By default it hands large blocks back to the system, and every step faults its pages in anew: on two cores
    an epoch of ConvNet-3 on 100 32x32 images took 1.7 times as long, a test pass 2 times. Other C
    libraries and GPUs are left alone. Results are the same to the last bit.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


SMALL_STEP = 2_000_000
"""Activations of a training step up to which one thread is as fast as two, and much faster where the other
core is busy: measured with ConvNets on 8x8 and 28x28 images."""


@contextmanager
def threads_for(device: torch.device, step_activations: int, alone: bool = True) -> Iterator[None]:
    """Compute small steps on one CPU thread, and put back what was set before.

    Where trials are not trained `alone` but in several processes, each has one thread, and so has this one.

    A rule and not a measurement, since the number of threads decides how sums are split and so the last
    bits of a result. Where OMP_NUM_THREADS is set, it stands.
    """
    import torch

    before = torch.get_num_threads()
    small = step_activations <= SMALL_STEP and "OMP_NUM_THREADS" not in os.environ
    if device.type == "cpu" and (small or not alone):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Make torch choose algorithms that repeat bit for bit, and put back what was set before.

    An operation on CUDA that has no such algorithm goes on with a warning, and may differ in its last bits.
    Convolutions and matrix products in fp32 are computed in fp32, whatever torch's defaults and the
    environment say: TF32 would change accuracies between GPU generations. See `tf32` for the exception.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    mode, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    allowed = _allow_tf32((False, False))
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    fill, torch.utils.deterministic.fill_uninitialized_memory = (  # type: ignore[attr-defined]
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        False,  # it would fill every new tensor, for programs that read what they never wrote
    )
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
        _allow_tf32(allowed)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(mode, warn_only=warn)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Compute convolutions and matrix products of fp32 on CUDA in TF32, where `allowed`, and put it back.

    Meant for a training's forward and backward passes alone: coordinates of an augmentation, whitened images,
    teachers' labels and test passes take the 10 bits of TF32's mantissa badly.
    """
    if not allowed:
        yield
        return
    before = _allow_tf32((True, True))
    try:
        yield
    finally:
        _allow_tf32(before)


def _allow_tf32(allowed: tuple[bool, bool]) -> tuple[bool, bool]:
    """Allow TF32 in matrix products and in convolutions, or not; return what was set before.

    By torch's older settings: 2.8 knows no others, and who mixes them with the newer ones makes torch.compile
    and others fail that read the older.
    """
    import torch

    product, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    _hush_older_settings()
    before = bool(product.allow_tf32), bool(convolution.allow_tf32)
    product.allow_tf32, convolution.allow_tf32 = allowed
    return before


@cache
def _hush_older_settings() -> None:
    """Let torch 2.9, which warns of them once, do so unheard."""
    import torch

    product = torch.backends.cuda.matmul
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        product.allow_tf32 = product.allow_tf32
