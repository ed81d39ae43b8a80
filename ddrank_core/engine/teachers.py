"""Teachers: read from a checkpoint, brought by their library, or trained on the real data and cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ddrank_core.config import Teacher
from ddrank_core.engine.checkpoints import load_checkpoint as load_checkpoint
from ddrank_core.engine.checkpoints import save_checkpoint
from ddrank_core.engine.checkpoints import weights_digest as weights_digest
from ddrank_core.errors import DataError, RunFailed
from ddrank_core.protocols import Teachers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@attrs.frozen(eq=False, kw_only=True)
class ReadyTeacher:
    """A teacher that can be asked, and where its weights are from."""

    use: str
    network: nn.Module
    source: str
    """`trained here`, `cache`, `pretrained` or the checkpoint's path."""
    digest: str
    """SHA-256 of the weights."""


def asker(networks: Sequence[nn.Module]) -> Teachers:
    """Return a function: normalised images [B, C, H, W] -> each network's logits [B, K], no gradients."""
    import torch

    def ask(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(network(images).float() for network in networks)

    return ask


def freeze(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network on the device, in evaluation mode and without gradients."""
    return network.to(device).eval().requires_grad_(False)


def make_teacher(
    teacher: Teacher,
    index: int,
    network: nn.Module,
    device: torch.device,
    cached: Path,
    train_it: Callable[[nn.Module], bool],
) -> ReadyTeacher:
    """Return the teacher, from its checkpoint, from the cache, or trained now and cached.

    `network` is freshly built, with its library's weights if it is `pretrained`; `train_it` trains a network
    in place and returns whether it stayed finite.
    """
    if teacher.checkpoint is not None:
        load_checkpoint(network, teacher.checkpoint, f"teachers[{index}].checkpoint")
        return _ready(teacher, network, device, str(teacher.checkpoint))
    if not teacher.is_trained_here:
        return _ready(teacher, network, device, "pretrained")
    if from_cache(network, cached):
        return _ready(teacher, network, device, "cache")
    network.to(device)
    if not train_it(network):
        raise RunFailed(
            f"teachers[{index}]: {teacher.network.use} diverged in training; "
            "lower full_data.recipe.learning_rate"
        )
    save_checkpoint(network, cached)
    return _ready(teacher, network, device, "trained here")


def from_cache(network: nn.Module, cached: Path) -> bool:
    """Read a cached teacher into `network`; a damaged file counts as none, and is replaced."""
    if not cached.is_file():
        return False
    try:
        load_checkpoint(network, cached, "cached teacher")
    except DataError:
        return False
    return True


def _ready(teacher: Teacher, network: nn.Module, device: torch.device, source: str) -> ReadyTeacher:
    network = freeze(network, device)
    return ReadyTeacher(
        use=teacher.network.use, network=network, source=source, digest=weights_digest(network)
    )
