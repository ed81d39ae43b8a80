"""Makes docs/plugin-contract.md from the hook specs, the protocols and the public types.

    python tests/plugin_contract.py > docs/plugin-contract.md

Everything is read from the sources, so what the document says is what an author's code meets.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddrank_core import hookspecs
from ddrank_core.spec import HOOKS, KINDS
from ddrank_core.structure import KIND_OF

ROOT = Path(__file__).parents[1]

Definition = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign

HEAD = """\
# The contract of plugins

Made from the sources by `python tests/plugin_contract.py > docs/plugin-contract.md`; a test holds it to them.
[Write a plugin](plugins.md) is the way in; [how it changes](api-evolution.md) says what may become of it.
Every class and function here is imported from `ddrank_core`, but for those of the last two sections.

B is the batch, N a whole set, K the number of classes, C x H x W an image.
"""

BESIDE = {
    "loss": ("Targets",),
    "label-mapping": ("View", "Mixing", "Teachers"),
    "augmentation": ("Augmented", "Randomness", "crop_and_resize"),
    "architecture": (),
    "dataset": ("RealData", "DatasetFacts", "Pictures", "Decoded", "decoded"),
    "method": ("DistilledSet", "ImageSpace"),
    "sink": ("SinkWriter", "Event"),
}
"""Kind -> the public names that its contract speaks of, each where it comes first."""

EVENTS = {
    "ddrank_run_started": "RunStarted",
    "ddrank_trial_started": "TrialStarted",
    "ddrank_epoch_finished": "EpochFinished",
    "ddrank_trial_finished": "TrialFinished",
    "ddrank_trial_failed": "TrialFailed",
    "ddrank_run_finished": "RunFinished",
    "ddrank_run_failed": "RunFailed",
}

ELSEWHERE = {
    "ddrank_core.types": ("SoftKind",),
    "ddrank_core.results": ("TrialResult", "ArmResult", "ScoreResult"),
}
"""What public types hold and nobody has to import: module -> names."""


def definition(module: str, name: str) -> tuple[Definition, Sequence[str]]:
    """Return the statement that defines a name and its module's lines, imports followed."""
    file = ROOT.joinpath(*module.split("."))
    text = (file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text(encoding="utf-8")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            assert node.module
            return definition(node.module, name)
    for node in tree.body:
        if name in _defined(node):
            assert isinstance(node, Definition)
            return node, text.splitlines()
    raise LookupError(f"{module} does not define {name}")


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def stub(module: str, name: str) -> str:
    """Return the source of a public name without the bodies of its functions and without private members."""
    node, lines = definition(module, name)
    kept = dict(enumerate(lines, start=1))
    for function in [node, *node.body] if isinstance(node, ast.ClassDef) else [node]:
        if isinstance(function, ast.FunctionDef):
            _shorten(function, kept)
    return "\n".join(line for number, line in kept.items() if _first(node) <= number <= _last(node, lines))


def _shorten(function: ast.FunctionDef, kept: dict[int, str]) -> None:
    """Take a function's body out of the lines, all of it if the function is private."""
    documented = ast.get_docstring(function) is not None
    if function.name.startswith("_") and not function.name.endswith("__"):
        # With the empty line in front of it.
        start = _first(function) - 1
    elif documented:
        start = (function.body[0].end_lineno or 0) + 1
    else:
        start = function.body[0].lineno
        kept[start - 1] += " ..."
    for number in range(start, (function.end_lineno or 0) + 1):
        kept.pop(number, None)


def _first(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _last(node: ast.stmt, lines: Sequence[str]) -> int:
    """Return a statement's last line, the text below an assignment that documents it included."""
    last = node.end_lineno or node.lineno
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and last < len(lines) and lines[last].startswith('"""'):
        while not lines[last].endswith('"""'):
            last += 1
        last += 1
    return last


def signature(function: ast.FunctionDef) -> str:
    """Return a function's name, arguments and result on one line."""
    result = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{function.name}({ast.unparse(function.args)}){result}"


def hook(name: str) -> str:
    node, _ = definition("ddrank_core.hookspecs", name)
    assert isinstance(node, ast.FunctionDef)
    return f"`{signature(node)}`\n\n{ast.get_docstring(node)}"


def contract() -> str:
    """Return the text of docs/plugin-contract.md."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    yield HEAD
    yield f"## How a plugin is found\n\n{_as_markdown(hookspecs.__doc__ or '')}"
    yield _block("ddrank_core", ["hookimpl", "ComponentSpec"])
    yield "## What a component is\n"
    yield _block("ddrank_core", ["component", "parameter"])
    protocols = {kind: protocol.__name__ for protocol, kind in KIND_OF.items()}
    for kind in KINDS:
        yield f"## Kind: {kind}\n\n{hook(HOOKS[kind])}\n"
        yield _block("ddrank_core", [protocols[kind], *BESIDE[kind]])
    yield "## Events of a run\n"
    for name, event in EVENTS.items():
        yield f"### {name}\n\n{hook(name)}\n"
        yield _block("ddrank_core", [event])
    yield "## Errors\n"
    yield _block("ddrank_core", ["DDRankError", "ConfigError", "DataError"])
    yield "## The conformance kit\n\nOf `ddrank_core.testing`:\n"
    yield _block("ddrank_core.testing", ["conformance_tests"])
    yield "## What these types hold\n\nIt is handed out and never has to be imported.\n"
    for module, names in ELSEWHERE.items():
        yield _block(module, names)


def _block(module: str, names: Sequence[str]) -> str:
    stubs = "\n\n\n".join(stub(module, name) for name in names)
    return f"```python\n{stubs}\n```\n"


def _as_markdown(docstring: str) -> str:
    """Return a docstring whose indented examples stand in fences."""
    paragraphs = docstring.strip().split("\n\n")
    found: list[str] = []
    for paragraph in paragraphs:
        if not paragraph.startswith("    "):
            found.append(paragraph)
        elif found and found[-1].endswith("```"):
            found[-1] = f"{found[-1][:-3].rstrip()}\n\n{_dedented(paragraph)}\n```"
        else:
            found.append(f"```python\n{_dedented(paragraph)}\n```")
    return "\n\n".join(found) + "\n"


def _dedented(paragraph: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in paragraph.splitlines())


if __name__ == "__main__":
    print(contract(), end="")
