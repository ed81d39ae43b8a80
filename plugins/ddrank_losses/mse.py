"""The loss `mse`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ddrank_core import Targets, component

if TYPE_CHECKING:
    from torch import Tensor


@component
class MSE:
    """Train with the squared error between the student's logits and those of the soft labels.

    mean((s - t)^2), over batch and classes. The soft labels of mixed images are mixed as logits.

    Source: torch.nn.functional.mse_loss, as in the first term of `mse_gt` in
    shaoshitong/G_VBSM_Dataset_Condensation and shaoshitong/EDC; like there, without a temperature.
    """

    needs_soft: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean squared error of `logits` [B, K], a scalar.

        Raises:
            ValueError: if the targets carry no soft labels, or probabilities instead of logits.
        """
        return (logits - targets.soft_logits()).square().mean()
