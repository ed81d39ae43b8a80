"""Distribution matching: synthetic images whose features have the mean of the real ones'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from ddrank_augmentations.dsa import DSA, Strategy

from ddrank_core import (
    Architecture,
    DataError,
    DistilledSet,
    Randomness,
    RealData,
    component,
    parameter,
)
from ddrank_methods.embedding import Embedding
from ddrank_methods.real_classes import RealClasses
from ddrank_methods.selected import in_class_order

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

IMAGES_AT_ONCE = 4096
"""Real images per forward pass: many classes go through the network in groups, to bound its memory."""


@component
class DistributionMatching:
    """Match the mean features of synthetic and real images, class by class, in random networks.

    Every iteration builds a freshly initialised network, takes a batch of real images of each
    class, views it and the class's synthetic images through the same augmentation, and moves
    the synthetic images down the gradient of the squared distance between the two mean features,
    summed over classes.

    The same seed gives the same images, bit for bit, on one CPU. On CUDA the gradients of scaling
    and rotating are summed in no fixed order, and the last bits may differ.

    Source: Zhao & Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, equation 6;
        VICO-UoE/DatasetCondensation, main_DM.py. Deviations: exactly `iterations` updates, where the
        original makes one more; augmentations are seeded from `seed`, the original's from the clock.
    """

    iterations: int = parameter("updates of the images, each with a new network", default=20000, minimum=1)
    learning_rate: float = parameter("the images' learning rate", default=1.0, above=0)
    momentum: float = parameter("of the images' SGD", default=0.5, minimum=0, below=1)
    batch_real: int = parameter("real images per class and update", default=256, minimum=1)
    init: Literal["real", "noise"] = parameter(
        "start from random real images, or from normal noise", default="real"
    )
    augmentation: tuple[Strategy, ...] = parameter(
        "strategies of the siamese augmentation, of which each update draws one per class; none where "
        "empty. Leave out flip where a mirrored image is another thing, as with digits",
        default=("color", "crop", "cutout", "flip", "scale", "rotate"),
    )

    def distill(
        self,
        data: RealData,
        architecture: Architecture,
        ipc: int,
        device: str,
        seed: int,
        report: Callable[[int, int], None],
    ) -> DistilledSet:
        """Return `ipc` images per class, in class order, in normalised space.

        Raises:
            ConfigError: if the network does not end in a linear classifier.
            DataError: if a class has too few training images.
        """
        import torch

        place, draws = torch.device(device), torch.Generator().manual_seed(seed)
        real = RealClasses(data, place)
        images = self._initial_images(data, real, ipc, draws).to(place).requires_grad_()
        optimizer = torch.optim.SGD([images], lr=self.learning_rate, momentum=self.momentum)
        with _global_generators_put_back(place):
            for iteration in range(self.iterations):
                _seed_global_generators(place, _seed_from(draws))
                network = architecture.build(data.num_classes, data.image_shape).to(place)
                optimizer.zero_grad()
                self._backward(Embedding(network, data.num_classes), real, images, ipc, draws)
                optimizer.step()
                report(iteration + 1, self.iterations)
        return in_class_order(images.detach().cpu(), data, ipc, "distribution-matching", seed)

    def _initial_images(self, data: RealData, real: RealClasses, ipc: int, draws: Generator) -> Tensor:
        import torch

        if self.init == "noise":
            return torch.randn(data.num_classes * ipc, *data.image_shape, generator=draws)
        if real.smallest() < ipc:
            raise DataError(
                f"{data.source}: a class has only {real.smallest()} training images, too few to start "
                f"{ipc} images per class from; lower ipc or use the method's init: noise"
            )
        return torch.cat(real.draw(ipc, draws))

    def _backward(
        self, embed: Embedding, real: RealClasses, images: Tensor, ipc: int, draws: Generator
    ) -> None:
        """Add the gradient of one iteration's loss to `images`."""
        real_views, synthetic_views = [], []
        for real_images, synthetic_images in zip(
            real.draw(self.batch_real, draws), images.split(ipc), strict=True
        ):
            seeds = _seed_from(draws), _seed_from(draws)
            real_views.append(self._view(real_images, *seeds))
            synthetic_views.append(self._view(synthetic_images, *seeds))
        many = len(real_views) if embed.mixes_batch else max(1, IMAGES_AT_ONCE // max(self.batch_real, ipc))
        for start in range(0, len(real_views), many):
            group = slice(start, start + many)
            matching_loss(embed, real_views[group], synthetic_views[group]).backward()

    def _view(self, images: Tensor, device_seed: int, host_seed: int) -> Tensor:
        """Return the view of all images that the seeds stand for."""
        if not self.augmentation:
            return images
        import torch

        randomness = Randomness(
            device=torch.Generator(images.device).manual_seed(device_seed),
            host=torch.Generator().manual_seed(host_seed),
        )
        return DSA(strategies=self.augmentation, siamese=True)(images, randomness).images


def matching_loss(
    embed: Callable[[Tensor], Tensor], real: Sequence[Tensor], synthetic: Sequence[Tensor]
) -> Tensor:
    """Return the squared distance of real and synthetic mean features, summed over features and classes.

    `real` and `synthetic` hold one float32 [n, C, H, W] per class, n as it comes; `embed` takes all
    classes of a side at once and returns [B, F]. A scalar, with gradients to the synthetic images only.

    Source: Zhao & Bilen 2023, equation 6.
    """
    import torch

    with torch.no_grad():
        wanted = _class_means(embed, real)
    return (wanted - _class_means(embed, synthetic)).square().sum()


def _class_means(embed: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> Tensor:
    """Return the mean feature of each class, [K, F]."""
    import torch

    features = embed(torch.cat(list(images)))
    return torch.stack([part.mean(dim=0) for part in features.split([len(part) for part in images])])


def _seed_from(draws: Generator) -> int:
    import torch

    return int(torch.randint(2**62, (), generator=draws))


@contextmanager
def _global_generators_put_back(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were: networks draw weights and dropout from them."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _seed_global_generators(device: torch.device, seed: int) -> None:
    """Seed the CPU's global generator and the device's, and no other device's."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
