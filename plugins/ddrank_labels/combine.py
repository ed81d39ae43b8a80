"""The soft label of an ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


def combined(answers: tuple[Tensor, ...], over: Literal["logits", "probabilities"]) -> Tensor:
    """Return the mean of several teachers' logits [B, K], or of their softmax probabilities, float32."""
    import torch

    logits = torch.stack(answers).float()
    return (logits if over == "logits" else logits.softmax(dim=2)).mean(dim=0)
