"""What kornia's 2-D augmentations are called and take, read from its source files.

Nothing of kornia is executed: importing it brings torch, and listing components must not.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

_PACKAGE = "kornia.augmentation"
_OFFERED = (f"{_PACKAGE}._2d.geometric.", f"{_PACKAGE}._2d.intensity.")
# Of the augmentations that kornia counts as mixing, the one that stays within each image.
_WITHIN_IMAGES = ("RandomJigsaw",)
# Its constructor downloads a diffusion model.
_LEFT_OUT = ("RandomDissolving",)
# Of use only for single images, or for masks, boxes and labels beside them.
_DROPPED = ("self", "keepdim", "data_keys", "return_transform", "p_batch")


@attrs.frozen
class Argument:
    """One argument of a constructor, as it is written."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    """None where the argument has to be given."""
    doc: str


@attrs.frozen
class Augmentation:
    """One augmentation of kornia, as its source describes it."""

    name: str
    summary: str
    arguments: tuple[Argument, ...]


@functools.cache
def names() -> tuple[str, ...]:
    """Return the class names of kornia's 2-D image augmentations, sorted; none without kornia."""
    if _file("kornia") is None:
        return ()
    exported = {alias for alias, _, _ in _imports(_PACKAGE)}
    offered = {name for name, home in _homes().items() if _is_offered(name, home)}
    return tuple(sorted(offered & exported))


def augmentation(name: str) -> Augmentation:
    """Return what kornia's source says about the augmentation `name`, one of `names()`."""
    definition = _definition(_homes()[name], name)
    text = ast.get_docstring(definition) or ""
    arguments = _arguments(_constructor(_homes()[name], name), _argument_docs(text))
    return Augmentation(name, _first_sentence(text.partition("\n\n")[0]), tuple(arguments))


def _is_offered(name: str, home: str) -> bool:
    return (home.startswith(_OFFERED) and name not in _LEFT_OUT) or name in _WITHIN_IMAGES


@functools.cache
def _homes() -> Mapping[str, str]:
    """Return class name -> module, for everything that kornia.augmentation._2d gathers."""
    stars = [module for alias, module, _ in _imports(f"{_PACKAGE}._2d") if alias == "*"]
    return {alias: home for star in stars for alias, home, _ in _imports(star)}


def _file(module: str) -> Path | None:
    """Return a kornia module's source file, without importing it or the packages it is in."""
    spec = importlib.util.find_spec("kornia")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _syntax(module: str) -> ast.Module:
    path = _file(module)
    if path is None or not path.is_file():
        raise ValueError(f"kornia has no source of {module}; 'kornia/*' does not know this version of kornia")
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(module: str) -> Iterator[tuple[str, str, str]]:
    """Yield (name here, module, name there) for every `from MODULE import NAME` of a kornia module."""
    for node in _syntax(module).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                yield alias.asname or alias.name, node.module, alias.name


def _definition(module: str, name: str) -> ast.ClassDef:
    for node in _syntax(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise ValueError(f"kornia's {module} does not define {name}")


def _constructor(module: str, name: str) -> ast.FunctionDef:
    """Return the class's `__init__`, or the one that it inherits from its last base."""
    definition = _definition(module, name)
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return node
    # kornia writes mixins first, and its augmentation base last.
    base = definition.bases[-1]
    if not isinstance(base, ast.Name):
        raise ValueError(f"kornia's {name} has no constructor that can be read")
    for alias, home, original in _imports(module):
        if alias == base.id:
            return _constructor(home, original)
    return _constructor(module, base.id)


def _arguments(constructor: ast.FunctionDef, docs: Mapping[str, str]) -> Iterator[Argument]:
    signature = constructor.args
    positional = [*signature.posonlyargs, *signature.args]
    missing = [None] * (len(positional) - len(signature.defaults))
    defaults = [*missing, *signature.defaults, *signature.kw_defaults]
    for argument, default in zip([*positional, *signature.kwonlyargs], defaults, strict=True):
        if argument.arg not in _DROPPED:
            doc = docs.get(argument.arg, "see kornia's documentation")
            yield Argument(argument.arg, argument.annotation, default, doc)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[\w)])\.(?:\s|$)", " ".join(text.split()))[0]


def _argument_docs(text: str) -> dict[str, str]:
    """Return argument -> first sentence, from the `Args:` section of a docstring."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n|\n)*)", text + "\n", re.MULTILINE)
    docs: dict[str, str] = {}
    if section:
        for name, words in re.findall(
            r"^ {4}(\w+)[^:\n]*:(.*(?:\n {5,}.*)*)", section.group(1), re.MULTILINE
        ):
            docs[name] = _first_sentence(words)
    return docs
