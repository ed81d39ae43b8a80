"""The family `torchvision/*` of augmentations: torchvision's v2 transforms with their own parameters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from ddrank_core import Augmented, ConfigError, Randomness, component, parameter
from ddrank_torchvision import transforms
from ddrank_torchvision.arguments import NO_VALUE
from ddrank_torchvision.transforms import Argument

if TYPE_CHECKING:
    from torch import Tensor

# torchvision's kernel takes nothing but uint8 on the CPU.
_TAKES_BYTES = ("JPEG",)
# Hues and histograms have no meaning outside [0, 1], where distilled images may lie.
_CLAMPED = (
    *_TAKES_BYTES,
    "AugMix",
    "AutoAugment",
    "ColorJitter",
    "RandAugment",
    "RandomEqualize",
    "RandomPhotometricDistort",
    "TrivialAugmentWide",
)


@component
class TorchvisionAugmentation:
    """Run one of torchvision's v2 transforms; a subclass's fields are the arguments of its constructor."""

    space: ClassVar[Literal["unit"]] = "unit"
    torchvision_name: ClassVar[str]
    torchvision_arguments: ClassVar[tuple[Argument, ...]]

    per: Literal["image", "batch"] = parameter(
        "image: every image has draws of its own, one after the other; batch: one draw and one call for all",
        default="image",
    )

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return another view of `images`, float [B, C, H, W] in [0, 1].

        torchvision draws once per call, so `per: image`, which is what a DataLoader does, calls it for every
        image in turn; `per: batch` is faster. It draws from torch's global generators, which are lent for
        the call: seeded from the host's generator, and put back as they were.

        torchvision gets float images, in which `RandomPosterize` has 2^bits even levels and solarising has a
        threshold in [0, 1]. Only `JPEG` gets bytes, on the CPU, and its images are brought back. Those that
        change hues or equalise histograms get images clamped to [0, 1].

        Raises:
            ValueError: if torchvision refuses its arguments or the images, or changes the images' size.
        """
        import torch

        seed = int(torch.randint(2**63 - 1, (), generator=randomness.host))
        lent = [images.device] if images.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices=lent, device_type="cuda"):
            _seed(seed, lent)
            given = self._given(images)
            augmented = self._run(given) if self.per == "batch" else torch.stack([*map(self._run, given)])
        return Augmented(self._taken(augmented, images))

    def _given(self, images: Tensor) -> Tensor:
        """Return the images as torchvision takes them."""
        import torch
        from torchvision.transforms.v2 import functional

        if self.torchvision_name in _CLAMPED:
            images = images.clamp(0, 1)
        if self.torchvision_name in _TAKES_BYTES:
            images = functional.to_dtype(images.cpu(), torch.uint8, scale=True)
        return images

    def _taken(self, augmented: Tensor, images: Tensor) -> Tensor:
        """Return what torchvision made, in the dtype and on the device of the images handed in."""
        from torchvision.transforms.v2 import functional

        return functional.to_dtype(augmented.to(images.device), images.dtype, scale=True)

    def _run(self, images: Tensor) -> Tensor:
        """Return a batch [B, C, H, W], or one image [C, H, W], after one draw."""
        import torch

        try:
            augmented: Tensor = self._module(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the boundary to torchvision, whose errors are of many types
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"torchvision/{self.torchvision_name}: {reason}") from error
        if augmented.shape != images.shape:
            raise ValueError(
                f"torchvision/{self.torchvision_name}: returns images of {_size(augmented)} "
                f"for images of {_size(images)}; an augmentation must keep the size"
            )
        return augmented

    # attrs resolves this annotation along with those of the fields, when torch may not be imported.
    @functools.cached_property
    def _module(self) -> Any:
        """Make torchvision's transform, once for each component."""
        from torchvision.transforms import v2

        given = {a.name: self._argument(a) for a in self.torchvision_arguments if not self._is_left_out(a)}
        return getattr(v2, self.torchvision_name)(**given)

    def _is_left_out(self, argument: Argument) -> bool:
        """Say whether an argument is null because only torchvision knows its default."""
        return argument.default is NO_VALUE and getattr(self, argument.name) is None

    def _argument(self, argument: Argument) -> Any:
        value = getattr(self, argument.name)
        if argument.enum is None or value is None:
            return value
        from torchvision import transforms

        return getattr(transforms, argument.enum)(value)


class TorchvisionAugmentations:
    """The v2 transforms of the installed torchvision, by the names of their classes."""

    @staticmethod
    def members() -> Sequence[str]:
        """Return the names of the transforms that turn one image into one image of the same kind."""
        return transforms.names()

    @staticmethod
    @functools.cache
    def component(member: str) -> type[TorchvisionAugmentation]:
        """Return the component class of one member, with torchvision's arguments as its parameters.

        Raises:
            ConfigError: if torchvision has no such transform.
        """
        if member not in transforms.names():
            raise ConfigError(
                f"torchvision has no augmentation '{member}'; see 'ddrank list augmentation torchvision/*'"
            )
        described = transforms.transform(member)
        namespace: dict[str, Any] = {
            "__module__": __name__,
            "__qualname__": member,
            "__doc__": f"{described.summary}.\n\nSource: torchvision.transforms.v2.{member}.",
            "__annotations__": {},
            "torchvision_name": member,
            "torchvision_arguments": described.arguments,
        }
        for argument in described.arguments:
            namespace["__annotations__"][argument.name], namespace[argument.name] = _field(argument)
        return component(type(member, (TorchvisionAugmentation,), namespace))


def __getattr__(name: str) -> Any:
    """Give out the members' classes as attributes of this module, where pickle looks for them."""
    if not name.startswith("_") and name in transforms.names():
        return TorchvisionAugmentations.component(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _field(argument: Argument) -> tuple[Any, Any]:
    """Return the type and the attrs field of one argument."""
    if argument.default is attrs.NOTHING:
        return argument.type, parameter(argument.doc)
    if argument.default is NO_VALUE:
        doc = f"{argument.doc}; null leaves it to torchvision"
        return argument.type | None, parameter(doc, default=None)
    kind = argument.type | None if argument.default is None else argument.type
    return kind, parameter(argument.doc, default=argument.default)


def _seed(seed: int, devices: list[Any]) -> None:
    """Seed torch's global generator on the CPU and on `devices`, and no other device's."""
    import torch

    torch.default_generator.manual_seed(seed)
    for device in devices:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _size(images: Tensor) -> str:
    return "x".join(str(side) for side in images.shape[-3:])
