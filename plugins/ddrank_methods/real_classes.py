"""Real training images, to be drawn class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import DataError, RealData

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor


class RealClasses:
    """The training images of a data set on a device, drawn by class and returned normalised.

    The images stay as stored (uint8 takes a quarter of float32) and only a drawn batch is normalised.

    Raises:
        DataError: if a class has no images.
    """

    def __init__(self, data: RealData, device: torch.device) -> None:
        import torch

        self._source = data.source
        self._images = data.train_images.to(device)
        self._rows = [(data.train_labels == c).nonzero().flatten() for c in range(data.num_classes)]
        for name, rows in zip(data.class_names, self._rows, strict=True):
            if not len(rows):
                raise DataError(f"{data.source}: the class '{name}' has no training images")
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(data.mean, device=device).view(shape)
        self._std = torch.tensor(data.std, device=device).view(shape)

    def draw(self, many: int, generator: Generator) -> tuple[Tensor, ...]:
        """Return, per class, `many` different images (all, in a class with fewer), in random order.

        Each is float32 [n, C, H, W] on the device, normalised. `generator` lives on the CPU.
        """
        import torch

        chosen = [rows[torch.randperm(len(rows), generator=generator)[:many]] for rows in self._rows]
        # One transfer of all indices, rather than one per class.
        images = self._normalised(self._images[torch.cat(chosen).to(self._images.device)])
        return images.split([len(rows) for rows in chosen])

    def all_of(self, label: int) -> Tensor:
        """Return all images of a class in stored order, float32 [n, C, H, W] on the device, normalised."""
        return self._normalised(self._images[self._rows[label].to(self._images.device)])

    def check_enough(self, ipc: int) -> None:
        """Refuse to pick more different images of a class than it has.

        Raises:
            DataError: one line.
        """
        if self.smallest() < ipc:
            raise DataError(
                f"{self._source}: a class has only {self.smallest()} training images, too few to draw "
                f"{ipc} different ones; lower ipc"
            )

    def smallest(self) -> int:
        """Return the number of images of the class with the fewest."""
        return min(len(rows) for rows in self._rows)

    def _normalised(self, images: Tensor) -> Tensor:
        unit = images.float() if images.is_floating_point() else images.float() / 255
        return (unit - self._mean) / self._std
