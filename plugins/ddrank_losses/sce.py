"""The loss `sce`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ddrank_core import Targets, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class SoftCrossEntropy:
    """Train with the cross-entropy between softened soft labels and softened student outputs.

    With student logits s, soft-label logits t, temperature T and a batch of B:
    -sum(softmax(t / T) * log_softmax(s / T)) / B. It has the gradient of `kl` at the same
    temperature, and differs from it by the entropy of the labels.

    Source: Hinton, Vinyals & Dean 2015, section 2; NUS-HPC-AI-Lab/DATM, distill/evaluation.py, and
    NUS-HPC-AI-Lab/PAD, distill/PAD.py, `SoftCrossEntropy`, which is this at temperature 1 (stored logits,
    softmax of both sides); ddranking 0.2, ddranking/loss/sce.py, whose default temperature is 1.2.
    """

    needs_soft: ClassVar[bool] = True

    temperature: float = parameter("softens labels and student alike", default=1.0, above=0)
    scale_loss: bool = parameter(
        "multiply by temperature squared, which keeps the gradient's size", default=False
    )

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean soft cross-entropy of `logits` [B, K], a scalar.

        Raises:
            ValueError: if the targets carry no soft labels.
        """
        labels = targets.soft_probabilities(self.temperature)
        student = (logits / self.temperature).log_softmax(dim=1)
        loss = -(labels * student).sum(dim=1).mean()
        return loss * self.temperature**2 if self.scale_loss else loss
