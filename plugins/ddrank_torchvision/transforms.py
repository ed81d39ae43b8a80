"""What torchvision's v2 transforms are called and take, read from its source files.

Nothing of torchvision is executed: importing it brings torch, and listing components must not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

import attrs

from ddrank_torchvision import sources
from ddrank_torchvision.arguments import enum_in, type_of, value_of

_MODULES = ("_augment", "_auto_augment", "_color", "_geometry", "_misc")
_LEFT_OUT = {
    # They mix images, which `mixup` and `cutmix` do with their labels.
    "MixUp",
    "CutMix",
    # They return several images, or want boxes beside the image.
    "FiveCrop",
    "TenCrop",
    "RandomIoUCrop",
    # They draw the size of what they return.
    "RandomResize",
    "RandomShortestSize",
    "RandomZoomOut",
    "ScaleJitter",
    # They convert, normalise, or need Python objects.
    "ConvertImageDtype",
    "Identity",
    "Lambda",
    "LinearTransformation",
    "Normalize",
    "SanitizeBoundingBoxes",
    "SanitizeKeyPoints",
    "ToDtype",
}
# An augmentation never edits its input.
_DROPPED = ("self", "inplace")
# Where the annotation says less than the docstring and the code.
_WIDER: Mapping[tuple[str, str], Any] = {
    ("RandomErasing", "value"): float | tuple[float, ...] | Literal["random"],
}


@attrs.frozen
class Argument:
    """One argument of a constructor."""

    name: str
    type: Any
    """What a config may give."""
    default: Any
    """`attrs.NOTHING` where it has to be given, `NO_VALUE` where torchvision alone knows it."""
    doc: str
    enum: str | None = None
    """The enum of torchvision that it has to be turned into."""


@attrs.frozen
class Transform:
    """One transform of torchvision, as its source describes it."""

    name: str
    summary: str
    arguments: tuple[Argument, ...]


@cache
def names() -> tuple[str, ...]:
    """Return the class names of the v2 transforms that turn one image into one image, sorted."""
    package = ast.parse(sources.text(sources.folder("transforms", "v2") / "__init__.py"))
    imported = (node for node in package.body if isinstance(node, ast.ImportFrom) and node.module in _MODULES)
    return tuple(sorted({alias.name for node in imported for alias in node.names} - _LEFT_OUT))


def transform(name: str) -> Transform:
    """Return what torchvision's source says about the transform `name`, one of `names()`."""
    words = ast.get_docstring(_classes()[name]) or ""
    docs = _argument_docs(words)
    constructor = _constructor(name)
    arguments = tuple(_arguments(name, constructor, docs)) if constructor else ()
    return Transform(name, _summary(words), arguments)


@cache
def _classes() -> Mapping[str, ast.ClassDef]:
    folder = sources.folder("transforms", "v2")
    trees = (ast.parse(sources.text(folder / f"{module}.py")) for module in ("_transform", *_MODULES))
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _constructor(name: str) -> ast.FunctionDef | None:
    """Return the class's `__init__`, or the one that it inherits from another transform."""
    definition = _classes().get(name)
    if definition is None:
        return None
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return node
    bases = [base.id for base in definition.bases if isinstance(base, ast.Name)]
    return _constructor(bases[-1]) if bases else None


def _arguments(owner: str, constructor: ast.FunctionDef, docs: Mapping[str, str]) -> Iterator[Argument]:
    signature = constructor.args
    positional = [*signature.posonlyargs, *signature.args]
    missing = [None] * (len(positional) - len(signature.defaults))
    defaults = [*missing, *signature.defaults, *signature.kw_defaults]
    for argument, default in zip([*positional, *signature.kwonlyargs], defaults, strict=True):
        if argument.arg in _DROPPED:
            continue
        value = attrs.NOTHING if default is None else value_of(default)
        kind = type_of(argument.annotation, value)
        yield Argument(
            argument.arg,
            _WIDER.get((owner, argument.arg), kind),
            value,
            docs.get(argument.arg, "see torchvision's documentation"),
            enum_in(argument.annotation),
        )


def _summary(words: str) -> str:
    return _first_sentence(sources.first_paragraph(words)).strip('" ') or "It has no docstring"


def _first_sentence(words: str) -> str:
    return re.split(r"(?<=[\w)\]'\"])\.(?:\s|$)", " ".join(words.split()))[0]


def _argument_docs(words: str) -> dict[str, str]:
    """Return argument -> first sentence, from the `Args:` section of a docstring."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n|\n)*)", words + "\n", re.MULTILINE)
    found = re.findall(
        r"^ {4}(\w+)[^:\n]*:(.*(?:\n {5,}.*)*)", section.group(1) if section else "", re.MULTILINE
    )
    return {name: _first_sentence(sources.first_paragraph(doc)).rstrip(":") for name, doc in found}
