"""What every classifier of torchvision has in common as a component."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ddrank_core import DataError, component, parameter
from ddrank_torchvision import stem

if TYPE_CHECKING:
    from torch import Tensor, nn


@component
class TorchvisionNetwork:
    """Build a classifier of torchvision; each member of `torchvision/*` is a subclass that names one."""

    name: ClassVar[str]
    """torchvision's name of the network."""

    pretrained: bool = parameter(
        "start from torchvision's default ImageNet weights, downloaded and cached by torchvision",
        default=False,
    )
    dropout: float | None = parameter(
        "dropout, where the network has it; null leaves torchvision's", default=None, minimum=0, below=1
    )
    stem: Literal["standard", "small"] = parameter(
        "small: first convolution 3 x 3 with stride 1 and no max-pool, for images of 32 or 64 pixels",
        default="standard",
    )

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes].

        Vision transformers are built for `image_shape`'s size; Inception and GoogLeNet without their
        auxiliary classifiers. With pretrained weights, layers of another shape than torchvision's stay
        freshly initialised: the classifier unless there are 1000 classes, the first convolution where the
        channels or the stem differ. Position embeddings are interpolated to the images' size.

        Raises:
            ValueError: if the network does not take such images, or a parameter that was given.
            DataError: if the pretrained weights do not exist or cannot be fetched.
        """
        network = self._create(num_classes, image_shape)
        try:
            stem.set_channels(network, image_shape[0])
            if self.stem == "small":
                stem.shrink(network)
        except ValueError as error:
            raise ValueError(f"torchvision/{self.name} {error}") from error
        if self.pretrained:
            self._load_weights(network, image_shape)
        self._check_forward(network, num_classes, image_shape)
        return network

    def _create(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        from torchvision import models

        options = self._options(image_shape)
        try:
            network: nn.Module = models.get_model(self.name, weights=None, num_classes=num_classes, **options)
        # torchvision's constructors answer an argument that they do not take as they like.
        except Exception as error:
            shown = ", ".join(f"{key}={value}" for key, value in options.items()) or "these classes"
            raise ValueError(
                f"torchvision/{self.name} cannot be built with {shown}: {_first_line(error)}"
            ) from error
        return network

    def _options(self, image_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return what only some networks take."""
        height, width = image_shape[1:]
        options: dict[str, Any] = {}
        if self.dropout is not None:
            options["drop_rate" if self.name.startswith("densenet") else "dropout"] = self.dropout
        if self.name.startswith("vit_"):
            if height != width:
                raise ValueError(f"torchvision/{self.name} needs square images, got {height} x {width}")
            options["image_size"] = height
        if self.name.startswith("maxvit"):
            options["input_size"] = (height, width)
        if self.name in ("googlenet", "inception_v3"):
            # `init_weights` is the default, which torchvision warns about.
            options.update(aux_logits=False, init_weights=True)
        return options

    def _load_weights(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Copy the pretrained weights of every layer that has the same shape in `network`."""
        trained = self._pretrained()
        weights = trained.state_dict()
        if self.name.startswith("vit_"):
            from torchvision.models.vision_transformer import interpolate_embeddings

            interpolate_embeddings(image_shape[1], trained.patch_size, weights)
        own = network.state_dict()
        own.update({key: value for key, value in weights.items() if _fits(value, own.get(key))})
        network.load_state_dict(own)
        if image_shape[0] == 3 and hasattr(trained, "transform_input"):
            network.transform_input = trained.transform_input

    def _pretrained(self) -> nn.Module:
        from torchvision import models

        if not hasattr(models.get_model_weights(self.name), "DEFAULT"):
            raise DataError(
                f"torchvision/{self.name}: there are no pretrained weights for it; set pretrained: false"
            )
        try:
            trained: nn.Module = models.get_model(self.name, weights="DEFAULT")
        except Exception as error:  # a download fails in many ways
            raise DataError(
                f"torchvision/{self.name}: its pretrained weights cannot be loaded ({_first_line(error)}); "
                "check the network connection, or set pretrained: false"
            ) from error
        return trained

    def _check_forward(self, network: nn.Module, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        """Pass two empty images through the network; in evaluation mode that draws no random numbers."""
        import torch

        network.eval()
        try:
            with torch.no_grad():
                logits = network(torch.zeros(2, *image_shape))
        except Exception as error:  # whatever the network's own layers raise
            raise ValueError(
                f"torchvision/{self.name} does not take images of {_by(image_shape)}: {_first_line(error)}"
            ) from error
        network.train()
        shape = tuple(getattr(logits, "shape", ()))
        if shape != (2, num_classes):
            raise ValueError(
                f"torchvision/{self.name} is not a classifier: two images give {shape or type(logits)}"
            )


def _fits(value: Tensor, place: Tensor | None) -> bool:
    return place is not None and place.shape == value.shape


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
