"""The loss `acme/focal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import Targets, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class FocalLoss:
    """Train with the focal loss, which counts an image less the surer the student is of its class.

    With the student's probabilities p: -sum(label * (1 - p)^gamma * log p) over the classes, mean over the
    batch. The labels are soft ones where there are any, else hard ones; those of mixed images are mixed.

    Source: Lin et al. 2017, equation 4, without its class weights; for labels of several classes, a sum.
    """

    gamma: float = parameter("how much less an easy image counts; 0 is cross-entropy", default=2.0, minimum=0)

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the focal loss of `logits` [B, K], a scalar."""
        import torch

        log_p = logits.log_softmax(dim=1)
        # At p = 1 and a gamma below 1 the gradient of (1 - p)^gamma is infinite.
        rest = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)
        by_class = -(rest**self.gamma) * log_p
        return self._of_labels(by_class, targets).mean()

    @staticmethod
    def _of_labels(by_class: Tensor, targets: Targets) -> Tensor:
        """Return the sum of label_k * by_class_k over the classes: [B]."""
        if targets.soft is not None:
            return (targets.soft_probabilities().to(by_class.dtype) * by_class).sum(dim=1)
        own = by_class.gather(1, targets.hard.unsqueeze(1)).squeeze(1)
        if targets.partner_hard is None or targets.weight is None:
            return own
        partner = by_class.gather(1, targets.partner_hard.unsqueeze(1)).squeeze(1)
        return targets.weight * own + (1 - targets.weight) * partner
