"""Where the work is done, and how to make it repeat itself there bit for bit."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ddrank_core.errors import DeviceError

if TYPE_CHECKING:
    import torch


def resolve(text: str) -> torch.device:
    """Return the device that a text stands for; `auto` takes a GPU if there is one.

    Raises:
        DeviceError: if the text is none of these, or no such device is there.
    """
    import torch

    if text == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    kind, _, index = text.partition(":")
    if kind != "cuda" or not (index or "0").isdigit():
        raise DeviceError(f"--device {text}: must be auto, cpu, cuda or cuda:0, cuda:1, ...")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        there = f"this machine has {count} of them" if count else "this machine has none that torch can use"
        raise DeviceError(f"--device {text}: no such CUDA device; {there}; use --device cpu or auto")
    return torch.device("cuda", int(index or 0))


def describe(device: torch.device) -> str:
    """Return the device's name as people know it, for the record."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Make torch choose algorithms that repeat bit for bit, and put back what was set before.

    Convolutions in fp32 are computed in fp32: TF32 would change accuracies between GPU generations.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    # Read by cuBLAS when its handle is made, which is at the first matrix product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    mode, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
        torch.use_deterministic_algorithms(mode, warn_only=warn)
