"""A component under test: one name with one set of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import attrs

from ddrank_core.errors import one_line
from ddrank_core.registry import Registry
from ddrank_core.spec import parameters_of
from ddrank_core.structure import Chosen, Structurer

Shape = tuple[int, int, int]

WORKS_BY = {
    "loss": "__call__",
    "label-mapping": "__call__",
    "augmentation": "__call__",
    "architecture": "build",
    "dataset": "load",
    "method": "distill",
    "sink": "open",
    "optimizer": "build",
    "schedule": "factor",
    "protocol": "select",
}
"""Kind -> the method that its protocol asks for."""


class ContractBroken(AssertionError):
    """What a component did, and what the contract of its kind asks."""


def hold(kept: bool, message: str) -> None:
    """Raise `ContractBroken` with the message unless the contract was kept."""
    if not kept:
        raise ContractBroken(message)


def call(what: str, action: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a component's code returns; what it raises breaks the contract."""
    try:
        return action(*arguments)
    except ContractBroken:
        raise
    except Exception as error:  # the plugin boundary: somebody's component runs in here
        raise ContractBroken(f"{what} raised {one_line(error)}") from error


def refusal(what: str, action: Callable[[], Any], *kinds: type[Exception]) -> tuple[Any, str | None]:
    """Return what an action returns, or the one line in which it refuses, by an error of `kinds`.

    Raises:
        ContractBroken: if it raises anything else, or more or less than one line.
    """
    named = " or ".join(kind.__name__ for kind in kinds)
    try:
        return action(), None
    except ContractBroken:
        raise
    except kinds as error:
        text = str(error)
    except Exception as error:  # the plugin boundary: somebody's component runs in here
        raise ContractBroken(
            f"{what} raised {one_line(error)}; to refuse is to raise {named}, in one line"
        ) from error
    hold(
        bool(text.strip()) and "\n" not in text,
        f"{what} raised {named} with the text {text!r}; a refusal says in one line why",
    )
    return None, text


@attrs.frozen(kw_only=True, eq=False)
class Case:
    """One component with one set of parameters, and what its author says of it."""

    kind: str
    name: str
    registry: Registry
    structurer: Structurer
    given: Mapping[str, Any] = attrs.field(factory=dict)
    """What a config gives, beside the name."""
    small: Mapping[str, Any] = attrs.field(factory=dict)
    """What makes the component small where its work is checked; `given` comes on top."""
    shapes: tuple[Shape, ...] = ()
    """The image shapes that it claims to take; none where nothing was claimed."""
    reference: Callable[..., Any] | None = None

    def __str__(self) -> str:
        parameters = ", ".join(f"{key}: {value}" for key, value in self.given.items())
        return f"{self.name} with {parameters}" if parameters else self.name

    @cached_property
    def cls(self) -> type:
        """The class behind the name."""
        return self.registry.load(self.kind, self.name)

    @cached_property
    def chosen(self) -> Chosen[Any]:
        """The component as a config chooses it."""
        return self.structurer.chosen(self.kind, {"use": self.name, **self.given})

    @cached_property
    def component(self) -> Any:
        """The component whose work is checked."""
        return self.structurer.chosen(self.kind, {"use": self.name, **self.small, **self.given}).component

    def flag(self, name: str) -> bool:
        """Return a class variable of the component's protocol, which may be left out."""
        return bool(getattr(self.component, name, False))

    def expected(self, *arguments: Any) -> Any:
        """Return what the reference gives; further arguments of it are parameters of the component."""
        assert self.reference is not None
        named = parameters_that(self.reference, self.kind, self.cls)
        return self.reference(*arguments, **{name: getattr(self.component, name) for name in named})


def parameters_that(reference: Callable[..., Any], kind: str, cls: type) -> list[str]:
    """Return the arguments of a reference that are parameters of the component class."""
    fields = {field.name for field in attrs.fields(cls)}
    own = set(inspect.signature(getattr(cls, WORKS_BY[kind])).parameters)
    return [name for name in inspect.signature(reference).parameters if name in fields - own]


def required(kind: str, name: str, registry: Registry) -> list[str]:
    """Return the parameters that a config must give."""
    preset = registry.find(kind, name).spec.preset
    fields = parameters_of(registry.load(kind, name))
    return [field.name for field in fields if field.default is attrs.NOTHING and field.name not in preset]
