"""What mixup and cutmix draw: shares, and who is mixed with whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Generator, Tensor

Per = Literal["batch", "image"]


def shares(concentration: float, count: int, generator: Generator) -> Tensor:
    """Return draws of Beta(concentration, concentration): float32 [count] on the generator's device.

    `torch.distributions.Beta` takes no generator, so this calls the function that it calls.
    """
    import torch

    parameters = torch.full((count, 2), concentration, device=generator.device)
    return torch._sample_dirichlet(parameters, generator=generator)[:, 0]


def partners(count: int, generator: Generator) -> Tensor:
    """Return a random permutation of a batch: int64 [count] on the generator's device."""
    import torch

    return torch.randperm(count, generator=generator, device=generator.device)
