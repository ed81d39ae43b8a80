"""Where the work is done, and how to make it repeat itself there bit for bit."""

from __future__ import annotations

import os
import platform
import re
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


def describe(device: torch.device) -> str:
    """Return the device's name as people know it, for the record."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def kind(device: torch.device) -> str:
    """Return what of a device can change a result's bits: its model, or instruction set and threads."""
    import torch

    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Make torch choose algorithms that repeat bit for bit, and put back what was set before.

    An operation on CUDA that has no such algorithm goes on with a warning, and may differ in its last bits.
    Convolutions in fp32 are computed in fp32: TF32 would change accuracies between GPU generations.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    mode, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    fill, torch.utils.deterministic.fill_uninitialized_memory = (  # type: ignore[attr-defined]
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        False,  # it would fill every new tensor, for programs that read what they never wrote
    )
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(mode, warn_only=warn)
