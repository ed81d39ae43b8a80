"""CutMix (Yun et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ddrank_core import Augmented, Mixing, Randomness, component, parameter
from ddrank_kornia.draws import Per, partners, shares

if TYPE_CHECKING:
    from torch import Tensor


@component
class CutMix:
    """Paste a box of another image of the batch into every image, and mix the labels by area.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", ICCV 2019, algorithm A1; clovaai/CutMix-PyTorch, train.py. kornia's `RandomCutMixV2` places
    the box wholly inside the image, where the published one has a uniform centre and is clipped, and
    pastes through a boolean index, which makes a GPU wait; so box and pasting are computed here.
    """

    space: ClassVar[Literal["unit"]] = "unit"
    mixes: ClassVar[bool] = True

    beta: float = parameter("the share kept, before clipping, is Beta(beta, beta)", default=1.0, above=0)
    per: Per = parameter("batch: one box for all images, as published; image: one each", default="batch")

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images`, float [B, C, H, W], with boxes pasted, and the share of pixels each one kept."""
        import torch

        batch, _, height, width = images.shape
        count = 1 if self.per == "batch" else batch
        device = randomness.device
        partner = partners(batch, device)
        kept = shares(self.beta, count, device)
        row = torch.randint(height, (count,), generator=device, device=images.device)
        column = torch.randint(width, (count,), generator=device, device=images.device)
        box = boxes(kept, row, column, height, width)
        weight = 1 - box.float().mean(dim=(1, 2))
        mixed = torch.where(box.unsqueeze(1), images[partner], images)
        return Augmented(mixed, Mixing(partner, weight.expand(batch)))


def boxes(kept: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Return the pixels to paste, bool [n, H, W], for n boxes of a (1 - `kept`)-th of the image.

    `kept` float [n] in [0, 1]; the centres `row` and `column` int64 [n]. A box has the image's
    proportions, an even number of pixels per side, and is clipped at the border.
    """
    side = (1 - kept).sqrt()
    inside_rows = _around(row, side, height)
    inside_columns = _around(column, side, width)
    return inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1)


def _around(centre: Tensor, share: Tensor, side: int) -> Tensor:
    """Return bool [n, side]: positions from half a length before `centre` until half a length after."""
    import torch

    half = ((share * side).long() // 2).view(-1, 1)
    position = torch.arange(side, device=centre.device)
    centre = centre.view(-1, 1)
    return (position >= centre - half) & (position < centre + half)
