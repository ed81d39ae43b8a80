"""Seeds: every draw of a trial comes from its own seed, whatever ran before it and where."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ddrank_core.types import Randomness

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: str | int) -> int:
    """Return a seed in [0, 2**53) for one purpose, independent of those for other purposes.

    53 bits, so that a record's seeds survive every JSON reader.

    >>> derive(0, "trial", 0) == derive(0, "trial", 0)
    True
    """
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator on `device`, seeded."""
    import torch

    return torch.Generator(device=device).manual_seed(seed)


def randomness(seed: int, device: torch.device) -> Randomness:
    """Return the source of random draws that a trial's augmentation gets."""
    return Randomness(
        device=generator(derive(seed, "augmentation", "device"), device),
        host=generator(derive(seed, "augmentation", "host")),
    )
