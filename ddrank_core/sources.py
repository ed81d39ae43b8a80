"""Which source a component's class is made from, as a digest."""

from __future__ import annotations

import hashlib
import inspect
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

_ENGINE = "ddrank_core"


def source_digest(cls: type) -> str | None:
    """Return the SHA-256 of the sources behind a class, or None where there are none to read.

    A class in a package counts every .py file of its top-level package, since components share helpers; of
    a namespace that distributions share, and of `ddrank_core`, the package below it. A class in a module of
    its own counts that file.
    """
    folders = list(getattr(_top_module(cls.__module__), "__path__", ()))
    try:
        if folders:
            return _digest_of_sources(tuple(folders))
        file = inspect.getsourcefile(cls)
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except (OSError, TypeError):
        # A class made at run time, or one inside a zip or an extension module, has no source file.
        return None


def _top_module(name: str) -> ModuleType | None:
    """Return the first module with a file of its own on the way to the module `name`."""
    parts = name.split(".")
    # What the launcher prints, or a page looks like, must not make a component another.
    first = 2 if parts[0] == _ENGINE else 1
    prefixes = (".".join(parts[:count]) for count in range(first, len(parts) + 1))
    modules = (sys.modules.get(prefix) for prefix in prefixes)
    return next((module for module in modules if getattr(module, "__file__", None)), None)


@cache
def _digest_of_sources(folders: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for folder in map(Path, folders):
        for file in sorted(folder.rglob("*.py")):
            whole.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            whole.update(file.read_bytes())
    return whole.hexdigest()
