"""Tell images that nothing was distilled into from images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ddrank_core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

CORRELATION = 0.1
"""Of neighbouring pixels. Published sets that were measured lie at 0.39 (DC, CIFAR-100, started from
noise) to 0.88; a published file of noise that training had hardly touched at 0.05."""
STANDARD_ERRORS = 3.0
"""Small sets of pure noise reach CORRELATION by chance; 3 standard errors of zero are added to it."""
MIN_VALUES = 200
"""Below this, 3 standard errors would reach the correlation of real images."""


def check_not_noise(images: Tensor, where: str) -> None:
    """Refuse images [N, C, H, W] whose neighbouring pixels have nothing to do with each other.

    Not for ZCA-whitened images: whitening takes out the very correlation that is looked for.

    Raises:
        DataError: if the images are noise, both along rows and along columns.
    """
    centred = images.double()
    centred = centred - centred.mean(dim=(2, 3), keepdim=True)
    along_rows = _correlation(centred[..., :, :-1], centred[..., :, 1:])
    along_columns = _correlation(centred[..., :-1, :], centred[..., 1:, :])
    limit = CORRELATION + STANDARD_ERRORS / math.sqrt(images.numel())
    if images.numel() >= MIN_VALUES and max(abs(along_rows), abs(along_columns)) < limit:
        raise DataError(
            f"{where}: images: noise, nothing was distilled into them: neighbouring pixels hardly correlate "
            f"({along_rows:.2f} along rows, {along_columns:.2f} along columns), and no accuracy is recorded"
        )


def _correlation(left: Tensor, right: Tensor) -> float:
    """Return the correlation of two centred tensors; 1 where one is all zeros, as in an even image."""
    scale = float(left.norm() * right.norm())
    return float((left * right).sum()) / scale if scale > 0 else 1.0
