"""Give ddranking 0.2.0's losses, the published training scripts' and ours the same logits and labels.

Run it with the peer's Python (`benchmarks/peer/setup.sh` makes it), with the root and the plugins of this
project on the path:

    PYTHONPATH=.:plugins PEER/bin/python benchmarks/agreement/losses.py

Loss and gradient are compared. Ends with exit code 1 if what should agree differs by more than 1e-5, or if a
listed disagreement is none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version

import torch
from ddrank_losses.ce import CrossEntropy
from ddrank_losses.kl import KLDivergence
from ddrank_losses.mse import MSE
from ddrank_losses.mse_gt import MSEGroundTruth
from ddrank_losses.sce import SoftCrossEntropy
from ddranking.loss import KLDivergenceLoss, MSEGTLoss, SoftCrossEntropyLoss
from torch import Tensor
from torch.nn import functional as F

from ddrank_core import Targets

TOLERANCE = 1e-5
BATCH, CLASSES = 64, 100


def draw(seed: int) -> Tensor:
    return 3 * torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(seed))


LOGITS, TEACHER = draw(1), draw(2)
HARD = torch.randint(CLASSES, (BATCH,), generator=torch.Generator().manual_seed(3))
PARTNER = torch.randperm(BATCH, generator=torch.Generator().manual_seed(4))
WEIGHT = torch.rand(BATCH, generator=torch.Generator().manual_seed(5))
PLAIN = Targets(hard=HARD)
SOFT = Targets(hard=HARD, soft=TEACHER)
MIXED = Targets(hard=HARD, partner_hard=HARD[PARTNER], weight=WEIGHT)
# Of a teacher that saw the mixed images: its labels are not mixed again.
MIXED_SOFT = Targets(hard=HARD, partner_hard=HARD[PARTNER], weight=WEIGHT, soft=TEACHER)

Value = Callable[[Tensor], Tensor]


def scripts_kl(temperature: float) -> Value:
    """Return the loss of SRe2L, RDED, G-VBSM and EDC: batchmean, no temperature squared."""

    def value(logits: Tensor) -> Tensor:
        student = F.log_softmax(logits / temperature, dim=1)
        return F.kl_div(student, F.softmax(TEACHER / temperature, dim=1), reduction="batchmean")

    return value


def scripts_soft_cross_entropy(logits: Tensor) -> Tensor:
    """Return the loss of DATM and PAD: softmax of the stored logits, mean over the batch."""
    return -(F.softmax(TEACHER, dim=1) * F.log_softmax(logits, dim=1)).sum() / BATCH


def scripts_mse_gt(logits: Tensor) -> Tensor:
    """Return the loss of G-VBSM and EDC, with the default of their option --ce-weight."""
    return F.mse_loss(logits, TEACHER) + 0.1 * F.cross_entropy(logits, HARD)


def pairs() -> Iterator[tuple[str, Value, Value]]:
    """Yield what should agree: a label, the other's loss and ours."""
    for temperature in (1.0, 1.2, 4.0, 20.0):
        for scale in (False, True):
            setting = {"temperature": temperature, "scale_loss": scale}
            label = f"T {temperature:g}{', times T^2' if scale else ''}"
            kl, sce = KLDivergenceLoss(**setting), SoftCrossEntropyLoss(**setting)
            own_kl, own_sce = KLDivergence(**setting), SoftCrossEntropy(**setting)
            yield f"kl, {label}: peer", lambda s, f=kl: f(s, TEACHER), lambda s, f=own_kl: f(s, SOFT)
            yield f"sce, {label}: peer", lambda s, f=sce: f(s, TEACHER), lambda s, f=own_sce: f(s, SOFT)
    for mse, ce in ((1.0, 0.0), (0.5, 0.1), (0.0, 2.0)):
        peer, own = MSEGTLoss(mse_weight=mse, ce_weight=ce), MSEGroundTruth(mse_weight=mse, ce_weight=ce)
        label = f"mse_gt, mse_weight {mse:g}, ce_weight {ce:g}: peer"
        yield label, lambda s, f=peer: f(s, TEACHER, HARD), lambda s, f=own: f(s, SOFT)
    yield (
        "mse: peer's mse_gt with ce_weight 0",
        lambda s: MSEGTLoss()(s, TEACHER, HARD),
        lambda s: MSE()(s, SOFT),
    )
    yield "ce: torch's, as the peer's", lambda s: F.cross_entropy(s, HARD), lambda s: CrossEntropy()(s, PLAIN)
    yield (
        "kl, T 20: SRe2L (and CDA), RDED",
        scripts_kl(20.0),
        lambda s: KLDivergence(temperature=20.0)(s, SOFT),
    )
    yield "kl, T 3: G-VBSM, EDC", scripts_kl(3.0), lambda s: KLDivergence(temperature=3.0)(s, SOFT)
    yield (
        "sce, T 1: DATM, PAD",
        scripts_soft_cross_entropy,
        lambda s: SoftCrossEntropy(temperature=1.0)(s, SOFT),
    )
    yield "mse_gt, 0.1: G-VBSM, EDC", scripts_mse_gt, lambda s: MSEGroundTruth(ce_weight=0.1)(s, SOFT)


def disagreements() -> Iterator[tuple[str, Value, Value, str]]:
    """Yield what differs, both losses, and who is right."""
    own = MSEGroundTruth(ce_weight=0.1)
    yield (
        "mse_gt on mixed images: the peer and the scripts take the cross-entropy with the own label alone",
        lambda s: MSEGTLoss(ce_weight=0.1)(s, TEACHER, HARD),
        lambda s: own(s, MIXED_SOFT),
        "ours: what was pasted in or mixed in counts by its share (Yun et al. 2019, equation 1)",
    )
    yield (
        "hard labels on mixed images: the peer's mixup and cutmix return images and no labels",
        lambda s: F.cross_entropy(s, HARD),
        lambda s: CrossEntropy()(s, MIXED),
        "ours: both labels by weight are the definition of mixup and cutmix",
    )
    yield (
        "mse_gt with stored soft labels (soft_label_mode S): the peer takes them for the true labels too",
        lambda s: MSEGTLoss(ce_weight=0.1)(s, TEACHER, TEACHER),
        lambda s: own(s, SOFT),
        "ours: train_one_epoch hands the loss a copy of what the data set gives, which in this mode are "
        "logits, and torch reads them as class probabilities",
    )


def difference(theirs: Value, own: Value) -> float:
    """Return the larger of the differences of loss and gradient, relative to the size of each.

    A loss below 1 counts as 1.
    """
    values, gradients = [], []
    for loss in (theirs, own):
        logits = LOGITS.clone().requires_grad_()
        value = loss(logits)
        value.backward()
        values.append(value.item())
        gradients.append(logits.grad)
    gradient = (gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()
    return max(abs(values[0] - values[1]) / max(1.0, abs(values[0])), gradient.item())


def main() -> int:
    torch.set_num_threads(1)
    print(f"ddranking {version('ddranking')}, torch {torch.__version__}; differences of loss and gradient")
    worst, count, failed = 0.0, 0, 0
    for label, theirs, own in pairs():
        found = difference(theirs, own)
        worst, count = max(worst, found), count + 1
        failed += not found <= TOLERANCE
        print(f"{found:8.1e}  {label}{'' if found <= TOLERANCE else '  DISAGREES'}")
    print(
        f"{count} comparisons, largest difference {worst:.1e} (at most {TOLERANCE:g} wanted)\n\nDisagreements"
    )
    for label, theirs, own, verdict in disagreements():
        found = difference(theirs, own)
        failed += found <= TOLERANCE
        what = f"differs by {found:.2g}" if found > TOLERANCE else "NONE FOUND"
        print(f"- {label}: {what}. Right: {verdict}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
