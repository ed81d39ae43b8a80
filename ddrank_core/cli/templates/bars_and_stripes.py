"""Bars and stripes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import RealData, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class BarsAndStripes:
    """Noisy grey pictures of two classes: bright columns, or bright rows. Nothing to read or to download.

    Every pattern is there once, but those without a dark or without a bright line. A fifth of them, drawn
    once and for all, are the test images.

    Source: MacKay, "Information Theory, Inference, and Learning Algorithms", 2003, chapter 43. Deviation: the
    noise, without which a single row of pixels tells the classes apart.
    """

    side: int = parameter("pixels along each side", default=8, minimum=4, maximum=12)
    noise: float = parameter("standard deviation added to pixels of 0 and 1", default=0.5, minimum=0)

    def load(self) -> RealData:
        """Return images float32 [N, 1, side, side], clipped to [0, 1]."""
        import torch

        clean = patterns(self.side)
        source = torch.Generator().manual_seed(0)
        clean = clean[:, torch.randperm(clean.shape[1], generator=source)]
        noise = self.noise * torch.randn(clean.shape, generator=source)
        images = (clean + noise).clamp(0, 1).unsqueeze(2)
        tested = images.shape[1] // 5
        test, train = images[:, :tested].flatten(0, 1), images[:, tested:].flatten(0, 1)
        return RealData(
            train_images=train,
            train_labels=torch.arange(2).repeat_interleave(len(train) // 2),
            test_images=test,
            test_labels=torch.arange(2).repeat_interleave(tested),
            class_names=("bars", "stripes"),
            mean=(float(train.mean()),),
            std=(float(train.std()),),
            source="bars and stripes, made here",
        )


def patterns(side: int) -> Tensor:
    """Return every pattern of bright lines as columns and as rows: 0 or 1, float32 [2, P, side, side]."""
    import torch

    numbers = torch.arange(1, 2**side - 1)
    lines = (numbers.unsqueeze(1) >> torch.arange(side)) & 1
    columns = lines.float().unsqueeze(1).expand(-1, side, -1)
    return torch.stack([columns, columns.transpose(1, 2)])
