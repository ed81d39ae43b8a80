"""Cross-entropy with hard labels, mixed where images were mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ddrank_core import Targets


def hard_cross_entropy(logits: Tensor, targets: Targets, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of `logits` [B, K] with the hard labels, a scalar.

    Where images were mixed: `weight` parts of the cross-entropy with an image's own label and
    `1 - weight` parts of that with its partner's, which is the cross-entropy with the mixed one-hot
    labels. Mean over the batch.

    Source: Zhang et al. 2018 (mixup); Yun et al. 2019 (CutMix), equation 1.
    """
    from torch.nn.functional import cross_entropy

    if targets.partner_hard is None or targets.weight is None:
        return cross_entropy(logits, targets.hard, label_smoothing=label_smoothing)
    own = cross_entropy(logits, targets.hard, reduction="none", label_smoothing=label_smoothing)
    partner = cross_entropy(logits, targets.partner_hard, reduction="none", label_smoothing=label_smoothing)
    return (targets.weight * own + (1 - targets.weight) * partner).mean()
