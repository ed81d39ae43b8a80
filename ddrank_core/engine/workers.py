"""How many processes train side by side on a CPU, and what makes a forked process one of them."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from typing import TYPE_CHECKING

from ddrank_core.engine.execution import compiled_here
from ddrank_core.engine.memory import BYTES_PER_ACTIVATION

if TYPE_CHECKING:
    import torch

_PR_SET_PDEATHSIG = 1
"""From Linux's prctl.h."""


def count_workers(asked: int | None, device: torch.device, step_activations: int) -> int:
    """Return how many processes train at once: as many as asked for, or a core each where that is safe.

    Processes are forked, so that they share the data. That is possible on Linux, and not beside a GPU that
    torch may have started threads for, nor after this process has compiled a network. Without a number, as
    many are used as fit into half the free memory.
    """
    import torch

    if device.type != "cpu" or not sys.platform.startswith("linux") or torch.cuda.is_available():
        return 1
    if compiled_here():
        return 1
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0))
    if "OMP_NUM_THREADS" in os.environ:
        # Who sets it has decided how to share the machine.
        return 1
    fit = _free_memory() // 2 // max(1, step_activations * BYTES_PER_ACTIVATION[device.type])
    return max(1, min(cores, fit))


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def become_worker(parent: int) -> None:
    """Make a forked process a worker of `parent`: one thread, no Ctrl-C of its own, no life after it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent was gone before it could be told of.
        os._exit(1)
    torch.set_num_threads(1)
