"""The focal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import Targets, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class FocalLoss:
    """Train with the cross-entropy, counting an image the less the surer the network is of its label.

    With the softmax p of the logits and the label q: -sum(q * (1 - p)^gamma * log(p)), mean over the batch.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4. Deviation: there a
    label is one class; a soft label, or one of a mixed image, counts every class by its share.
    """

    gamma: float = parameter("discounts sure images; 0 is cross-entropy", default=2.0, minimum=0)

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss of `logits` [B, K], a scalar."""
        log_p = logits.log_softmax(dim=1)
        # Not down to 0, where a power below 1 has no finite gradient.
        unsure = (-log_p.expm1()).clamp(min=1e-6)
        return -(shares(targets, logits) * unsure**self.gamma * log_p).sum(dim=1).mean()


def shares(targets: Targets, logits: Tensor) -> Tensor:
    """Return each class's share of each image's label: [B, K] like `logits`, in rows that sum to 1."""
    import torch

    if targets.soft is not None:
        return targets.soft_probabilities().to(logits.dtype)
    classes = torch.arange(logits.shape[1], device=logits.device)
    own = (targets.hard.unsqueeze(1) == classes).to(logits.dtype)
    if targets.partner_hard is None or targets.weight is None:
        return own
    partner = (targets.partner_hard.unsqueeze(1) == classes).to(logits.dtype)
    weight = targets.weight.unsqueeze(1).to(logits.dtype)
    return weight * own + (1 - weight) * partner
