"""`kornia/*`: every 2-D image augmentation of kornia as a component, with kornia's own parameters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ddrank_core import Augmented, Randomness, component, parameter
from ddrank_kornia import sources
from ddrank_kornia.annotations import NO_LITERAL, literal, shape

if TYPE_CHECKING:
    from torch import Tensor


@component
class KorniaAugmentation:
    """Run one augmentation of kornia; a subclass's fields are the arguments of its constructor."""

    space: ClassVar[Literal["unit"]] = "unit"
    kornia_name: ClassVar[str]
    kornia_arguments: ClassVar[tuple[sources.Argument, ...]]

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return another view of `images`, float [B, C, H, W] in [0, 1].

        kornia draws from torch's global generators, so they are lent for the call: seeded from the host's
        generator, and put back as they were.

        Raises:
            ValueError: if kornia refuses its arguments or the images, or changes the images' size.
        """
        import torch

        seed = int(torch.randint(2**63 - 1, (), generator=randomness.host))
        lent = [images.device] if images.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices=lent, device_type="cuda"):
            _seed(seed, lent)
            augmented = self._run(images)
        if augmented.shape != images.shape:
            raise ValueError(
                f"kornia/{self.kornia_name}: returns images of {_size(augmented)} "
                f"for images of {_size(images)}; an augmentation must keep the size"
            )
        return Augmented(augmented.to(images.dtype))

    def _run(self, images: Tensor) -> Tensor:
        import torch

        try:
            augmented: Tensor = self._module(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the boundary to kornia, whose errors are of many types
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"kornia/{self.kornia_name}: {reason}") from error
        return augmented

    # attrs resolves this annotation along with those of the fields, when torch may not be imported.
    @functools.cached_property
    def _module(self) -> Any:
        """Make kornia's module, once for each component."""
        import kornia.augmentation

        given = {a.name: self._given(a) for a in self.kornia_arguments if not self._is_left_out(a)}
        return getattr(kornia.augmentation, self.kornia_name)(**given)

    def _is_left_out(self, argument: sources.Argument) -> bool:
        """Say whether an argument is null because its default is: kornia's own default then holds."""
        if argument.default is None or getattr(self, argument.name) is not None:
            return False
        return literal(argument.default) in (None, NO_LITERAL)

    def _given(self, argument: sources.Argument) -> Any:
        """Return an argument as kornia wants it."""
        value, wants = getattr(self, argument.name), shape(argument.annotation).wants
        if not isinstance(value, tuple) or wants == "tuple":
            return value
        import torch

        return torch.tensor(value) if wants == "tensor" else list(value)


class KorniaFamily:
    """The augmentations of the installed kornia, by the names of their classes."""

    @staticmethod
    def members() -> Sequence[str]:
        """Return the names of kornia's 2-D augmentations that do not mix images."""
        return sources.names()

    @staticmethod
    @functools.cache
    def component(member: str) -> type[KorniaAugmentation]:
        """Return the component class of one member, with kornia's arguments as its parameters."""
        described = sources.augmentation(member)
        namespace: dict[str, Any] = {
            "__module__": __name__,
            "__qualname__": member,
            "__doc__": f"{described.summary}.\n\nSource: kornia.augmentation.{member}.",
            "__annotations__": {},
            "kornia_name": member,
            "kornia_arguments": described.arguments,
        }
        for argument in described.arguments:
            namespace["__annotations__"][argument.name], namespace[argument.name] = _field(argument)
        return component(type(member, (KorniaAugmentation,), namespace))


def __getattr__(name: str) -> Any:
    """Give out the members' classes as attributes of this module, where pickle looks for them."""
    if not name.startswith("_") and name in KorniaFamily.members():
        return KorniaFamily.component(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _field(argument: sources.Argument) -> tuple[Any, Any]:
    """Return the type and the attrs field of one argument."""
    kind = shape(argument.annotation).type
    if argument.default is None:
        return kind, parameter(argument.doc)
    default = literal(argument.default)
    if default is NO_LITERAL:
        return kind | None, parameter(f"{argument.doc}; null leaves it to kornia", default=None)
    return kind if default is not None else kind | None, parameter(argument.doc, default=default)


def _seed(seed: int, devices: list[Any]) -> None:
    """Seed torch's global generator on the CPU and on `devices`, and no other device's."""
    import torch

    torch.default_generator.manual_seed(seed)
    for device in devices:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _size(images: Tensor) -> str:
    return "x".join(str(side) for side in images.shape[1:])
