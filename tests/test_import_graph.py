"""Imports point one way: down the list of layers, and from plugins only at the public names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddrank_core

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "ddrank_core"
PLUGINS = ROOT / "plugins"

LAYERS = (
    "errors",
    "spec",
    "results",
    "events",
    "types",
    "views",
    "protocols",
    "hookspecs",
    "manifest",
    "plugins",
    "plugin_choice",
    "registry",
    "sources",
    "structure",
    "yaml",
    "config",
    "schema",
    "provenance",
    "data",
    "store",
    "image_cache",
    "asked",
    "engine",
    "report",
    "leaderboard",
    "compat",
    "cli",
    "testing",
    "__main__",
)
"""The modules and packages of ddrank_core; each imports only from those before it, and its own."""


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import that runs, those inside functions too."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, "") for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            yield from ((child.module or "", alias.name) for alias in child.names)
        yield from imports(child)


def layers_imported(source: str) -> set[str]:
    """Return the layers of ddrank_core that a module's source imports from."""
    found = set()
    for module, name in imports(ast.parse(source)):
        package, _, rest = module.partition(".")
        if package != "ddrank_core":
            continue
        # `from ddrank_core import yaml` imports a layer, `from ddrank_core import __version__` none.
        layer = rest.partition(".")[0] or name
        if layer in LAYERS:
            found.add(layer)
    return found


def layer_of(file: Path) -> str:
    first = file.relative_to(CORE).parts[0]
    return first.removesuffix(".py")


MODULES = sorted(file for file in CORE.rglob("*.py") if file != CORE / "__init__.py")


def test_the_graph_reader_sees_imports_in_functions_and_skips_those_for_types():
    source = """
from typing import TYPE_CHECKING
from ddrank_core import yaml, __version__
if TYPE_CHECKING:
    from ddrank_core.config import RunConfig
def f():
    import ddrank_core.engine.plan
    from ddrank_core.store import Store
"""
    assert layers_imported(source) == {"yaml", "engine", "store"}


def test_every_module_of_the_core_has_its_place_in_the_list():
    assert {layer_of(file) for file in MODULES} == set(LAYERS)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(CORE)))
def test_a_module_imports_only_from_layers_below_its_own(file):
    own = LAYERS.index(layer_of(file))
    upward = {layer for layer in layers_imported(file.read_text()) if LAYERS.index(layer) > own}
    assert upward == set()


def test_importing_ddrank_core_imports_none_of_its_modules():
    statements = ast.parse((CORE / "__init__.py").read_text())
    at_import = {module for module, _ in imports(statements)}
    assert not any(module.startswith("ddrank_core") for module in at_import)


PLUGIN_MODULES = sorted(PLUGINS.rglob("*.py"))


def test_plugins_import_only_the_public_names_of_ddrank_core():
    assert PLUGIN_MODULES
    private = [
        f"{file.relative_to(PLUGINS)}: {module}.{name}"
        for file in PLUGIN_MODULES
        for module, name in imports(ast.parse(file.read_text()))
        if module.partition(".")[0] == "ddrank_core"
        and (module != "ddrank_core" or name not in ddrank_core.__all__)
    ]
    assert private == []


def test_public_names_are_exactly_those_that_can_be_imported():
    for name in ddrank_core.__all__:
        assert getattr(ddrank_core, name) is not None
    assert set(ddrank_core._MODULE_OF) | {"__version__"} == set(ddrank_core.__all__)
