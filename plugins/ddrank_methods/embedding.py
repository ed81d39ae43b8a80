"""What a network makes of an image just before it decides on a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Embedding:
    """Maps images to the input of a network's classifier, for any network that ends in a linear one.

    The classifier is the last `nn.Linear` with `num_classes` outputs. A hook on it reads its input, so
    that the network needs no method of its own for this. The network is frozen, and put in train mode, as
    the original of distribution matching has it, or not.

    Raises:
        ConfigError: if the network has no such layer.
    """

    def __init__(self, network: nn.Module, num_classes: int, *, training: bool = True) -> None:
        from torch import nn

        linear = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == num_classes]
        if not linear:
            raise ConfigError(
                f"student: the network has no nn.Linear with {num_classes} outputs, so its features before "
                "the classifier are unknown; use another student, such as convnet"
            )
        linear[-1].register_forward_pre_hook(self._keep)
        self._network = network.requires_grad_(False).train(training)
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
        self.mixes_batch = any(isinstance(module, norms) for module in network.modules())
        """An image's features depend on the other images of its batch."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features [B, F] of images [B, C, H, W], with gradients to the images."""
        self._network(images)
        return self._features

    def _keep(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0].flatten(start_dim=1)
