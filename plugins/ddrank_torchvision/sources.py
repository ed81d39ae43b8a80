"""What torchvision has, read from its source files: importing it takes seconds, and torch with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ddrank_core import DDRankError

# Decorators may stand in between, on lines of their own.
_REGISTERED = re.compile(r"^@register_model\(.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)


@cache
def networks() -> Mapping[str, Path]:
    """Return the name of every classifier and the module that defines it, without importing torchvision.

    Detection, segmentation, video, optical flow and quantised networks are in packages of their own.

    Raises:
        DDRankError: if torchvision is not installed.
    """
    modules = sorted(folder("models").glob("*.py"))
    return {name: module for module in modules for name in _REGISTERED.findall(text(module))}


def docstring(name: str) -> str:
    """Return the first paragraph of torchvision's own docstring of a classifier, on one line, or ''."""
    pattern = rf"^def {re.escape(name)}\(.*?(?=^[@\w]|\Z)"
    function = re.search(pattern, text(networks()[name]), re.MULTILINE | re.DOTALL)
    if function is None:
        return ""
    (definition,) = ast.parse(function[0]).body
    assert isinstance(definition, ast.FunctionDef)
    return first_paragraph(ast.get_docstring(definition) or "")


def first_paragraph(words: str) -> str:
    """Return a docstring's first paragraph on one line, without the marks of reStructuredText.

    >>> first_paragraph("VGG-11 from `Very Deep <http://a.org/1>`__.\\n\\nArgs: none")
    'VGG-11 from Very Deep (http://a.org/1).'
    """
    line = " ".join(words.partition("\n\n")[0].split())
    line = re.sub(r"`([^`<]+?)\s*<([^>`]+)>`_*", r"\1 (\2)", line)
    line = re.sub(r":\w+:`~?([^`<]+?)(?:\s*<[^>]*>)?`", r"\1", line)
    return line.replace("``", "'")


def folder(*package: str) -> Path:
    """Return the folder of torchvision, or of one of its packages.

    Raises:
        DDRankError: if torchvision is not installed.
    """
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise DDRankError("torchvision is not installed, though ddrank requires it; pip install torchvision")
    return Path(spec.submodule_search_locations[0], *package)


def text(module: Path) -> str:
    """Return a source file's text."""
    return module.read_text(encoding="utf-8")
