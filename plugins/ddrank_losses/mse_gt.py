"""The loss `mse_gt`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ddrank_core import Targets, component, parameter
from ddrank_losses.hard import hard_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


@component
class MSEGroundTruth:
    """Train with the squared error to the soft labels' logits, plus cross-entropy with the hard labels.

    mse_weight * mean((s - t)^2) + ce_weight * cross_entropy(s, hard), the first mean over batch and
    classes. The hard labels of mixed images are mixed.

    Source: shaoshitong/G_VBSM_Dataset_Condensation, train/train_FKD*.py, and shaoshitong/EDC,
    train/direct_train.py and train_FKD_parallel.py, `--loss-type mse_gt`: mse_weight 1, ce_weight 0.1 where
    not given. ddranking 0.2, ddranking/loss/mse_gt.py, has the defaults here. Deviation: those scripts take
    the cross-entropy of a mixed image with its own label alone.
    """

    needs_soft: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    mse_weight: float = parameter("weight of the squared error", default=1.0, minimum=0)
    ce_weight: float = parameter("weight of the cross-entropy with the hard labels", default=0.0, minimum=0)

    def __attrs_post_init__(self) -> None:
        if self.mse_weight == 0 and self.ce_weight == 0:
            raise ValueError("mse_weight and ce_weight are both 0, which trains nothing")

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the weighted sum of both losses of `logits` [B, K], a scalar.

        Raises:
            ValueError: if the targets carry no soft labels, or probabilities instead of logits.
        """
        loss = self.mse_weight * (logits - targets.soft_logits()).square().mean()
        if self.ce_weight == 0:
            return loss
        return loss + self.ce_weight * hard_cross_entropy(logits, targets)
