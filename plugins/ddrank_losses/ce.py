"""The loss `ce`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import Targets, component, parameter
from ddrank_losses.hard import hard_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


@component
class CrossEntropy:
    """Train with the cross-entropy of whatever labels the mapping gives.

    Soft labels, as probabilities at temperature 1, where there are any; else hard labels. Labels of
    mixed images are mixed with the images' weights.

    Source: torch.nn.functional.cross_entropy, whose label smoothing this is:
    (1 - s) * label + s / K (Szegedy et al. 2016, section 7).
    """

    label_smoothing: float = parameter(
        "the share of every label that is spread evenly over the classes", default=0.0, minimum=0, below=1
    )

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean cross-entropy of `logits` [B, K], a scalar."""
        if targets.soft is None:
            return hard_cross_entropy(logits, targets, self.label_smoothing)
        from torch.nn.functional import cross_entropy

        # torch refuses class probabilities of another dtype than the logits' (bf16 against float32).
        soft = targets.soft_probabilities().to(logits.dtype)
        return cross_entropy(logits, soft, label_smoothing=self.label_smoothing)
