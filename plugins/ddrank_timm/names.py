"""What timm has, read from its sources: importing timm takes seconds, and torch with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ddrank_core import DDRankError

_ENTRY_POINT = re.compile(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)", re.MULTILINE)


@cache
def sources() -> Mapping[str, Path]:
    """Return the name of every network and the module that defines it, without importing timm.

    Raises:
        DDRankError: if timm is not installed.
    """
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise DDRankError("timm is not installed, though ddrank requires it; pip install timm")
    modules = sorted(Path(spec.submodule_search_locations[0], "models").glob("*.py"))
    return {name: module for module in modules for name in _ENTRY_POINT.findall(_text(module))}


def tags(name: str) -> tuple[str, ...]:
    """Return the tags of the pretrained weights that the sources spell out for a network.

    A few modules compute their tags; for their networks this is empty.
    """
    found = re.findall(rf"""["']{re.escape(name)}\.([\w.\-]+)\*?["']""", _text(sources()[name]))
    return tuple(dict.fromkeys(found))


def docstring(name: str) -> str:
    """Return the first paragraph of timm's own docstring of a network, on one line, or ''."""
    # Only the function: parsing a whole module takes 50 ms.
    pattern = rf"^def {re.escape(name)}\(.*?(?=^[@\w]|\Z)"
    function = re.search(pattern, _text(sources()[name]), re.MULTILINE | re.DOTALL)
    if function is None:
        return ""
    (definition,) = ast.parse(function[0]).body
    assert isinstance(definition, ast.FunctionDef)
    return " ".join((ast.get_docstring(definition) or "").partition("\n\n")[0].split())


def _text(module: Path) -> str:
    return module.read_text(encoding="utf-8")
