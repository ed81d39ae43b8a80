"""What every network of timm has in common as a component."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ddrank_core import DataError, component, parameter
from ddrank_timm import stem

if TYPE_CHECKING:
    from torch import nn


@component
class TimmNetwork:
    """Build a network of timm; each member of `timm/*` is a subclass that names one."""

    name: ClassVar[str]
    """timm's name of the network, with the tag of its weights where the config gives one."""

    pretrained: bool = parameter("start from timm's weights, downloaded and cached by timm", default=False)
    drop_rate: float = parameter("dropout before the classifier", default=0.0, minimum=0, below=1)
    drop_path_rate: float = parameter("stochastic depth", default=0.0, minimum=0, below=1)
    stem: Literal["standard", "small"] = parameter(
        "small: first convolution 3 x 3 with stride 1 and no max-pool, for images of 32 or 64 pixels",
        default="standard",
    )

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes].

        The classifier, and the first layer where the images' channels differ, are made anew even
        with pretrained weights. Networks that timm builds for one image size get `image_shape`'s.

        Raises:
            ValueError: if the network does not take such images, or a parameter that was given.
            DataError: if the pretrained weights do not exist or cannot be fetched.
        """
        options = self._options(image_shape)
        network = self._create(num_classes=num_classes, in_chans=image_shape[0], **options)
        self._check_patches(network, image_shape)
        if self.stem == "small":
            self._shrink_stem(network)
        self._check_forward(network, num_classes, image_shape)
        return network

    def _options(self, image_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return what only some networks take, where this one needs it or the config asks for it."""
        import timm

        try:
            about = timm.get_pretrained_cfg(self.name)
        except RuntimeError as error:  # timm's answer to an unknown tag
            raise ValueError(f"timm/{self.name}: {_first_line(error)}") from error
        if self.pretrained and not (about and about.has_weights):
            raise DataError(f"timm/{self.name}: timm has no pretrained weights for it; set pretrained: false")
        options: dict[str, Any] = {}
        # timm's own rule: a network of fixed input size, and no other for certain, takes `img_size`.
        if about and about.fixed_input_size:
            options["img_size"] = image_shape[1:]
        if self.drop_rate:
            options["drop_rate"] = self.drop_rate
        if self.drop_path_rate:
            options["drop_path_rate"] = self.drop_path_rate
        return options

    def _create(self, **options: Any) -> nn.Module:
        import timm

        try:
            network: nn.Module = timm.create_model(self.name, pretrained=self.pretrained, **options)
        # timm, its download and its thousand constructors raise what they like.
        except Exception as error:
            if self.pretrained and not isinstance(error, (TypeError, AssertionError)):
                raise DataError(
                    f"timm/{self.name}: its pretrained weights cannot be loaded ({_first_line(error)}); "
                    "check the network connection, or set pretrained: false"
                ) from error
            shown = ", ".join(f"{key}={value}" for key, value in options.items())
            raise ValueError(
                f"timm/{self.name} cannot be built with {shown}: {_first_line(error)}"
            ) from error
        return network

    def _shrink_stem(self, network: nn.Module) -> None:
        try:
            stem.shrink(network)
        except ValueError as error:
            raise ValueError(
                f"timm/{self.name} has no small stem, since {error}; use stem: standard"
            ) from error

    def _check_patches(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Refuse an image of which timm would silently leave out the last rows or columns."""
        from timm.layers import PatchEmbed

        for module in network.modules():
            if not isinstance(module, PatchEmbed) or module.dynamic_img_pad:
                continue
            sides = zip(image_shape[1:], module.patch_size, strict=True)
            if any(side % patch for side, patch in sides):
                size, patch = _by(image_shape[1:]), _by(module.patch_size)
                raise ValueError(
                    f"timm/{self.name} needs images that patches of {patch} tile, got {size} pixels"
                )

    def _check_forward(self, network: nn.Module, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        """Pass two empty images through the network; in evaluation mode that draws no random numbers."""
        import torch

        network.eval()
        try:
            with torch.no_grad():
                logits = network(torch.zeros(2, *image_shape))
        except Exception as error:  # whatever the network's own layers raise
            raise ValueError(
                f"timm/{self.name} does not take images of {_by(image_shape)}: {_first_line(error)}"
            ) from error
        network.train()
        shape = tuple(getattr(logits, "shape", ()))
        if shape != (2, num_classes):
            raise ValueError(f"timm/{self.name} is not a classifier: two images give {shape or type(logits)}")


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
