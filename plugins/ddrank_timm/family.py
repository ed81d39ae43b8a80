"""The family `timm/*`: one component class for each network of timm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from ddrank_core import ConfigError, component
from ddrank_timm import names
from ddrank_timm.network import TimmNetwork

# Stands for the dot before a tag in a class's qualified name, in which pickle takes a dot for a step inwards.
_DOT = ":"


class TimmFamily:
    """The members of `timm/*`: timm's own names, each with or without the tag of its weights."""

    @staticmethod
    def members() -> Sequence[str]:
        """Return the names of all networks, as `timm.list_models()` does, without importing timm."""
        return tuple(sorted(names.sources()))

    @staticmethod
    @cache
    def component(member: str) -> type[TimmNetwork]:
        """Return the component of `resnet18`, or of `resnet18.a1_in1k` with its weights' tag.

        Raises:
            ConfigError: if timm has no such network, or it has no weights of that tag.
        """
        name, dot, tag = member.partition(".")
        if name not in names.sources():
            raise ConfigError(f"timm has no network '{name}'; see 'ddrank list architecture'")
        # Where timm computes its tags, only timm itself can tell; it does when the network is built.
        known = names.tags(name)
        if dot and known and tag not in known:
            raise ConfigError(f"timm/{name} has no weights '{tag}'; it has {', '.join(known)}")
        return component(type(_class_name(name), (TimmNetwork,), _namespace(member)))


def __getattr__(name: str) -> Any:
    """Give out the members' classes as attributes of this module, where pickle looks for them."""
    member = name.replace(_DOT, ".")
    if not name.startswith("_") and member.partition(".")[0] in names.sources():
        return TimmFamily.component(member)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _namespace(member: str) -> dict[str, object]:
    name = member.partition(".")[0]
    words = names.docstring(name)
    module = names.sources()[name].name
    return {
        "name": member,
        "__module__": __name__,
        "__qualname__": member.replace(".", _DOT),
        "__doc__": (
            f"Build timm's {member}.\n\n"
            f"{f'In the words of timm: {words}' if words else 'timm does not describe it further.'}\n\n"
            f"Source: huggingface/pytorch-image-models, timm/models/{module}."
        ),
    }


def _class_name(name: str) -> str:
    """Return a network's name as a class name.

    >>> _class_name("vit_tiny_patch16_224")
    'VitTinyPatch16_224'
    """
    return re.sub(r"(?:^|_)([a-z])", lambda match: match[1].upper(), name)
