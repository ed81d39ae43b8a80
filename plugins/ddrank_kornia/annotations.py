"""Turns the annotations and defaults of kornia's sources into the types of parameters."""

from __future__ import annotations

import ast
from types import GenericAlias
from typing import Any, Literal, Union

import attrs

_PLAIN: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "Any": Any}
_LISTS = ("List", "list", "Sequence", "Iterable")
NO_LITERAL = object()
"""Stands for a default that cannot be told without running kornia."""


@attrs.frozen
class Shape:
    """What a config may give for an argument, and what kornia wants for a list."""

    type: Any
    wants: Literal["tuple", "list", "tensor"] = "tuple"


def shape(annotation: ast.expr | None) -> Shape:
    """Return what an argument takes; `Any` where the annotation says nothing that YAML can hold.

    A tensor is a list of numbers in a config. Where a number or a tuple will do, nothing else is offered.
    """
    options = [_option(node) for node in _alternatives(annotation)] if annotation else []
    known = [option for option in options if option.type is not None]
    offered = [option for option in known if option.wants != "tensor"]
    if all(option.type is type(None) for option in offered):
        offered = known
    if not offered:
        return Shape(Any)
    # A tuple of fixed length beside a list of any length: kornia takes the list as a tuple too.
    wants = [option.wants for option in offered if _is_tuple(option.type)]
    types = tuple(option.type for option in offered)
    return Shape(Union[types], wants[0] if wants else "tuple")  # noqa: UP007


def literal(default: ast.expr) -> Any:
    """Return a default's value, lists as tuples; `NO_LITERAL` where it is not written out."""
    try:
        value = ast.literal_eval(default)
    except ValueError:
        return NO_LITERAL
    return tuple(value) if isinstance(value, list) else value


def _alternatives(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _alternatives(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(node.left), *_alternatives(node.right)]
    if isinstance(node, ast.Subscript) and _name(node.value) == "Union":
        return [inner for item in _items(node) for inner in _alternatives(item)]
    if isinstance(node, ast.Subscript) and _name(node.value) == "Optional":
        return [*_alternatives(node.slice), ast.Constant(None)]
    return [node]


def _option(node: ast.expr) -> Shape:
    """Return one alternative of a union; its type is None where a config cannot give such a value."""
    if isinstance(node, ast.Constant):
        return Shape(type(None) if node.value is None else None)
    name = _name(node.value) if isinstance(node, ast.Subscript) else _name(node)
    if name == "Tensor":
        return Shape(tuple[float, ...], "tensor")
    if not isinstance(node, ast.Subscript):
        return Shape(_PLAIN.get(name))
    if name == "Literal":
        values = tuple(literal(item) for item in _items(node))
        return Shape(None if NO_LITERAL in values else Literal[values])
    return _sequence(name, [shape(item).type for item in _items(node) if not _is_dots(item)])


def _sequence(name: str, items: list[Any]) -> Shape:
    if name in _LISTS:
        return Shape(GenericAlias(tuple, (items[0], ...)), "list")
    if name not in ("Tuple", "tuple"):
        return Shape(None)
    # kornia writes Tuple[float] for a tuple of any length.
    return Shape(GenericAlias(tuple, (items[0], ...) if len(items) == 1 else tuple(items)))


def _items(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _is_tuple(cls: Any) -> bool:
    return getattr(cls, "__origin__", None) is tuple


def _name(node: ast.expr) -> str:
    """Return the last name of `Tensor`, `torch.Tensor` or `typing.Optional`."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
