"""The loss `kl`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ddrank_core import Targets, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class KLDivergence:
    """Train with the KL divergence from softened soft labels to softened student outputs.

    With student logits s, soft-label logits t, temperature T and a batch of B:
    sum(p * (log p - log_softmax(s / T))) / B, p = softmax(t / T). A class whose label is exactly
    zero adds nothing.

    Source: Hinton, Vinyals & Dean 2015, section 2, who scale by T^2; VILA-Lab/SRe2L,
    SRe2L/validate/train_FKD.py (CDA trains with it too), LINs-lab/RDED, validation/main.py, and G-VBSM's and
    EDC's `--loss-type kl`, which all do not: batchmean, one temperature for both sides, 20 in SRe2L's and
    RDED's recipes with CutMix. ddranking 0.2, ddranking/loss/kl.py, has the default temperature 1.2.
    """

    needs_soft: ClassVar[bool] = True

    temperature: float = parameter("softens labels and student alike", default=1.0, above=0)
    scale_loss: bool = parameter(
        "multiply by temperature squared, which keeps the gradient's size", default=False
    )

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the divergence of `logits` [B, K], summed over classes, mean over the batch, a scalar.

        Raises:
            ValueError: if the targets carry no soft labels.
        """
        from torch import xlogy

        labels = targets.soft_probabilities(self.temperature)
        student = (logits / self.temperature).log_softmax(dim=1)
        # Not torch's kl_div: under vmap it falls back to a loop over the models.
        loss = (xlogy(labels, labels) - labels * student).sum(dim=1).mean()
        return loss * self.temperature**2 if self.scale_loss else loss
