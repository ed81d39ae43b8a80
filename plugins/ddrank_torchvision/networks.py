"""The family `torchvision/*` of networks: one component class for each classifier of torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ddrank_core import ConfigError, component
from ddrank_torchvision import sources
from ddrank_torchvision.network import TorchvisionNetwork


class TorchvisionNetworks:
    """The classifiers of the installed torchvision, by torchvision's own names."""

    @staticmethod
    def members() -> Sequence[str]:
        """Return the names of all classifiers, without importing torchvision."""
        return tuple(sorted(sources.networks()))

    @staticmethod
    @cache
    def component(member: str) -> type[TorchvisionNetwork]:
        """Return the component of one classifier, such as `resnet18`.

        Raises:
            ConfigError: if torchvision has no such classifier.
        """
        if member not in sources.networks():
            raise ConfigError(
                f"torchvision has no classifier '{member}'; see 'ddrank list architecture torchvision/*'"
            )
        return component(type(member, (TorchvisionNetwork,), _namespace(member)))


def __getattr__(name: str) -> Any:
    """Give out the members' classes as attributes of this module, where pickle looks for them."""
    if not name.startswith("_") and name in sources.networks():
        return TorchvisionNetworks.component(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _namespace(member: str) -> dict[str, object]:
    words = sources.docstring(member)
    described = f"In the words of torchvision: {words}" if words else "torchvision does not describe it."
    return {
        "name": member,
        "__module__": __name__,
        "__doc__": (
            f"Build torchvision's {member}.\n\n{described}\n\n"
            f"Source: pytorch/vision, torchvision/models/{sources.networks()[member].name}."
        ),
    }
