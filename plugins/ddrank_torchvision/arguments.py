"""Turns the annotations and defaults of torchvision's sources into the types of parameters."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from types import GenericAlias
from typing import Any, Literal, Union

from ddrank_torchvision import sources

NO_VALUE = object()
"""Stands for a default that cannot be told without running torchvision."""

_PLAIN: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "Number": float}
_OF_ANY_LENGTH = ("Sequence", "list", "List", "Iterable")
# torchvision's own name for what a pixel outside the image may be filled with.
_FILL = "_FillType"
_ENUMS = {"InterpolationMode": "functional.py", "AutoAugmentPolicy": "autoaugment.py"}
# Interpolations of Pillow, which torchvision refuses for tensors; lanczos it takes in `Resize` alone.
_NOT_FOR_TENSORS = ("BOX", "HAMMING", "LANCZOS")


@cache
def members_of(enum: str) -> Mapping[str, str]:
    """Return the names of an enum of torchvision and their values, which a config uses.

    Interpolations that work for Pillow's images only are left out.
    """
    text = sources.text(sources.folder("transforms") / _ENUMS[enum])
    body = re.search(rf"^class {enum}\(.*?(?=^\S|\Z)", text[text.index(f"class {enum}(") :], re.DOTALL | re.M)
    found = re.findall(r'^    ([A-Z_0-9]+) = "([\w-]+)"', body[0] if body else "", re.MULTILINE)
    return {name: value for name, value in found if name not in _NOT_FOR_TENSORS}


def enum_in(annotation: ast.expr | None) -> str | None:
    """Return the enum that an argument takes, if it takes one."""
    names = [_name(node) for node in _alternatives(annotation)]
    return next((name for name in names if name in _ENUMS), None)


def type_of(annotation: ast.expr | None, default: Any) -> Any:
    """Return what a config may give for an argument; `Any` where nothing is known.

    An enum is given by the text of its value, and by nothing else.
    """
    if enum := enum_in(annotation):
        return Literal[tuple(members_of(enum).values())]
    options = [option for node in _alternatives(annotation) for option in _options(node)]
    if not options:
        return type(default) if type(default) in (bool, int, float, str) else Any
    return Union[tuple(options)]  # noqa: UP007


def value_of(default: ast.expr) -> Any:
    """Return a default's value, lists as tuples and enums as text; `NO_VALUE` where it is not written out."""
    try:
        return _value(default)
    except (ValueError, KeyError):
        return NO_VALUE


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List():
            return tuple(_value(item) for item in node.elts)
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand)
        case ast.BinOp(op=ast.Div()):
            return _value(node.left) / _value(node.right)
        case ast.Attribute(value=ast.Name(id=enum)):
            return members_of(enum)[node.attr]
    raise ValueError(f"a default of the form {ast.unparse(node)}")


def _alternatives(node: ast.expr | None) -> list[ast.expr]:
    if node is None:
        return []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(node.left), *_alternatives(node.right)]
    if isinstance(node, ast.Subscript) and _name(node) == "Union":
        return [inner for item in _items(node) for inner in _alternatives(item)]
    if isinstance(node, ast.Subscript) and _name(node) == "Optional":
        return [*_alternatives(node.slice), ast.Constant(None)]
    return [node]


def _options(node: ast.expr) -> list[Any]:
    """Return what one alternative of a union allows in a config; nothing for dicts and the like."""
    name = _name(node)
    if isinstance(node, ast.Constant) and node.value is None:
        return [type(None)]
    if name == _FILL:
        return [float, GenericAlias(tuple, (float, ...)), type(None)]
    if name in _PLAIN:
        return [_PLAIN[name]]
    if name in _OF_ANY_LENGTH and not isinstance(node, ast.Subscript):
        return [GenericAlias(tuple, (float, ...))]
    return _subscripted(name, node) if isinstance(node, ast.Subscript) else []


def _subscripted(name: str, node: ast.Subscript) -> list[Any]:
    if name == "Literal":
        return [Literal[tuple(_value(item) for item in _items(node))]]
    if name not in (*_OF_ANY_LENGTH, "tuple", "Tuple"):
        return []
    items = [type_of(item, None) for item in _items(node)]
    any_length = name in _OF_ANY_LENGTH or len(items) == 1
    return [GenericAlias(tuple, (items[0], ...) if any_length else tuple(items))]


def _items(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _name(node: ast.expr) -> str:
    """Return the last name of `Sequence[int]`, `typing.Sequence` or `Sequence`."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
