"""The picture of an audit: each distilled image beside the real one that it is, or came of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddrank_core.leaderboard.audit import Pair
from ddrank_core.report.figures import FAINT, figure_of, tile, tile_size, write_text
from ddrank_core.types import RealData

if TYPE_CHECKING:
    from torch import Tensor

MAX_PAIRS = 24
_PER_ROW, _GAP, _MARGIN, _TITLE, _WORDS = 4, 4, 16, 52, 44
_LEAST_WIDTH = 290
"""Of a pair with its words."""


def pairs_png(pairs: Sequence[Pair], images_unit: Tensor, real: RealData, title: str, path: Path) -> None:
    """Draw the first pairs side by side, the distilled image left of the real one.

    `images_unit` is float32 [N, C, H, W], clipped to 0..1. The title says how many pairs are left out.
    """
    shown = pairs[:MAX_PAIRS]
    height, width = tile_size(int(images_unit.shape[2]), int(images_unit.shape[3]))
    cell = max(2 * width + _GAP, _LEAST_WIDTH) + 2 * _MARGIN
    rows = -(-len(shown) // _PER_ROW)
    whole = (_PER_ROW * cell + _MARGIN, _TITLE + rows * (height + _WORDS) + _MARGIN)
    with figure_of(*whole, path) as figure:
        first = f" (the first {MAX_PAIRS} of {len(pairs)})" if len(pairs) > MAX_PAIRS else ""
        write_text(figure, _MARGIN, whole[1] - 22, f"{title}{first}", size=10, weight="bold")
        for place, pair in enumerate(shown):
            left = _MARGIN + place % _PER_ROW * cell
            bottom = whole[1] - _TITLE - place // _PER_ROW * (height + _WORDS) - height
            theirs = real.train_images if pair.part == "train" else real.test_images
            unit = theirs[pair.real].float() / (1 if theirs.is_floating_point() else 255)
            figure.figimage(tile(images_unit[pair.index].numpy()), left, bottom, origin="upper")
            figure.figimage(tile(unit.numpy()), left + width + _GAP, bottom, origin="upper")
            write_text(figure, left, bottom - 12, f"number {pair.index}, {pair.part} {pair.real}")
            write_text(figure, left, bottom - 28, _how(pair), size=8, color=FAINT)


def _how(pair: Pair) -> str:
    down, right = pair.shift
    moved = f", moved {down:+d} down {right:+d} right" if pair.shift != (0, 0) else ""
    changed = f"{', flipped' if pair.flip else ''}{', negative' if pair.inverted else ''}"
    return f"alike {pair.correlation:.2f}{moved}{changed}"
