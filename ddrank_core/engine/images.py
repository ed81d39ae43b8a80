"""Images on the device, or streamed to it, handed out by index in the space that the run works in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from ddrank_core.types import SoftKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ddrank_core.data.stored_views import StoredViews


class WorkingSpace(Protocol):
    """The space that a run's networks see images in, and the way there from [0, 1] and back."""

    def normalise(self, unit: Tensor) -> Tensor:
        """Return images [B, C, H, W] of the working space."""
        ...

    def to_unit(self, normalised: Tensor) -> Tensor:
        """Return images [B, C, H, W] in [0, 1] units; not clipped, since distilled images leave it."""
        ...

    def to(self, device: torch.device) -> WorkingSpace:
        """Return the same space for images on `device`."""
        ...


@attrs.frozen(eq=False)
class Normaliser:
    """Between [0, 1] and the data set's normalised space, both [B, C, H, W] on one device."""

    mean: Tensor
    """float32 [1, C, 1, 1]."""
    std: Tensor

    def normalise(self, unit: Tensor) -> Tensor:
        """Return (unit - mean) / std."""
        return (unit - self.mean) / self.std

    def to_unit(self, normalised: Tensor) -> Tensor:
        """Return normalised * std + mean; not clipped, since distilled images leave [0, 1]."""
        return normalised * self.std + self.mean

    def to(self, device: torch.device) -> Normaliser:
        """Return the same normaliser on `device`."""
        return Normaliser(self.mean.to(device), self.std.to(device))


def normaliser(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Normaliser:
    """Return the normaliser of a data set's statistics."""
    import torch

    def shaped(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)

    return Normaliser(shaped(mean), shaped(std))


@attrs.frozen(eq=False, kw_only=True)
class ImageSet:
    """Labelled images. uint8 or unit-range images are normalised as they are handed out.

    The labels are on the device; so are the images where they fit, and else they stay on the host (in
    memory, or mapped from disk) and each batch is streamed.
    """

    images: Tensor
    """[N, C, H, W]: float32 in the working space, or uint8 / float32 in [0, 1] with `space` set."""
    labels: Tensor
    """int64 [N]."""
    soft: Tensor | None = None
    """float32 [N, K]."""
    soft_kind: SoftKind = "logits"
    soft_temperature: float = 1.0
    num_classes: int = 0
    views: StoredViews | None = None
    """What of these images is replayed."""
    views_are_labelled: bool = True
    """Whether the views' soft labels are of these images; they are not of random ones that stand in."""
    space: WorkingSpace | None = None
    rows: Tensor | None = None
    """int64 [M] on the device: the images that belong to the set, where it is a part of `images`."""

    def __len__(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    def batch(self, index: Tensor | slice) -> Tensor:
        """Return the images at `index`, float32 in the working space, on the device."""
        if self.rows is not None:
            index = self.rows[index]
        if self.images.device == self.labels.device:
            images = self.images[index]
        else:
            # The one place where a step waits for the host: the images do not fit the device.
            images = self.images[index if isinstance(index, slice) else index.cpu()].to(self.labels.device)
        if self.space is None:
            return images
        unit = images.float() / 255 if not images.is_floating_point() else images
        return self.space.normalise(unit)

    def part(self, index: Tensor) -> ImageSet:
        """Return the images at `index`, int64 [M] on the device, without copying a pixel."""
        rows = index if self.rows is None else self.rows[index]
        labels = self.labels[index] if len(self.labels) else self.labels
        return attrs.evolve(self, rows=rows, labels=labels)
