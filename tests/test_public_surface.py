"""The public surface of ddrank_core, pinned: what a plugin can see, and may rely on.

tests/public_surface.txt has every hook with its arguments, every public name, and the fields and methods of
every public type. A change of it is a change for plugin authors: docs/api-evolution.md says what is allowed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

from plugin_contract import ELSEWHERE, Definition, definition, signature

import ddrank_core
import ddrank_core.testing
from ddrank_core import hookspecs
from ddrank_core.hookspecs import ENTRY_POINT_GROUP, PROJECT
from ddrank_core.spec import HOOKS, KINDS

SNAPSHOT = Path(__file__).with_name("public_surface.txt")
HOW = (
    "the public surface has changed. If docs/api-evolution.md allows that, run "
    "'python tests/test_public_surface.py > tests/public_surface.txt', and say in CHANGELOG.md what it means "
    "for plugins"
)


def hook_names() -> list[str]:
    return sorted(name for name in vars(hookspecs) if name.startswith(f"{PROJECT}_"))


def surface() -> str:
    """Return the public surface, one line for each hook, name, field and method."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield f"hooks of {ENTRY_POINT_GROUP}\n"
    for name in hook_names():
        yield from _described("ddrank_core.hookspecs", name)
    yield "\n\nkinds and the hooks that bring them\n"
    for kind in KINDS:
        yield f"  {kind}: {HOOKS[kind]}"
    sections = {
        "ddrank_core": ddrank_core.__all__,
        "ddrank_core.testing": ddrank_core.testing.__all__,
        **ELSEWHERE,
    }
    for module, names in sections.items():
        yield f"\n\nnames of {module}\n"
        for name in sorted(names):
            yield from [f"  {name}"] if name == "__version__" else _described(module, name)
    yield ""


def _described(module: str, name: str) -> Iterator[str]:
    node, _ = definition(module, name)
    if isinstance(node, ast.ClassDef):
        made = "".join(f"@{ast.unparse(decorator)} " for decorator in node.decorator_list)
        bases = ", ".join(map(ast.unparse, node.bases))
        yield f"  {made}class {name}({bases})"
        yield from (f"    {line}" for member in node.body for line in _member(member))
    else:
        yield from (f"  {line}" for line in _member(node))


def _member(node: ast.stmt | Definition) -> Iterator[str]:
    """Yield the line of a field, class variable, function or method; private ones have none."""
    if isinstance(node, ast.FunctionDef):
        if not node.name.startswith("_") or node.name.endswith("__"):
            made = "".join(f"@{ast.unparse(decorator)} " for decorator in node.decorator_list)
            yield f"{made}{signature(node)}"
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        yield ast.unparse(node)


def test_the_public_surface_is_what_it_was():
    before = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    difference = "\n".join(unified_diff(before, surface().splitlines(), "before", "now", lineterm=""))
    assert not difference, f"{HOW}\n{difference}"


def test_the_reader_sees_fields_methods_and_properties_and_no_private_ones():
    source = """
@attrs.frozen(kw_only=True)
class Example(Base):
    one: int
    two: ClassVar[bool] = False

    @property
    def three(self) -> int: ...

    def four(self, x: int = 1, *, y: str) -> None: ...

    def _five(self) -> None: ...
"""
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    assert [line for member in node.body for line in _member(member)] == [
        "one: int",
        "two: ClassVar[bool] = False",
        "@property three(self) -> int",
        "four(self, x: int=1, *, y: str) -> None",
    ]


def test_every_hook_and_every_public_name_is_in_it():
    lines = [line.strip() for line in surface().splitlines()]
    assert len(hook_names()) == len(KINDS) + 7
    for name in hook_names():
        assert sum(line.startswith(f"@hookspec {name}(") for line in lines) == 1
    for name in ddrank_core.__all__:
        assert any(name in line.replace("(", " ").split() for line in lines), name


if __name__ == "__main__":
    print(surface(), end="")
