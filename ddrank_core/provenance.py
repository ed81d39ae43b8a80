"""Whose each component of a run is, from which source, with which parameters."""

from __future__ import annotations

import hashlib
import inspect
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ddrank_core.structure import Chosen, plain


def provenance(chosen: Chosen[Any]) -> dict[str, Any]:
    """Return a component's kind, name, distribution, version, target, source digest and parameters."""
    entry = chosen.entry
    return {
        "kind": entry.kind,
        "name": chosen.use,
        "distribution": entry.distribution,
        "version": entry.version,
        "target": entry.spec.target,
        "source_digest": source_digest(type(chosen.component)),
        "parameters": plain(chosen.component),
        "given": list(chosen.given),
    }


def source_digest(cls: type) -> str | None:
    """Return the SHA-256 of the sources behind a class, or None where there are none to read.

    A class in a package counts every .py file of its top-level package, since components share helpers;
    a class in a module of its own counts that file.
    """
    module = sys.modules.get(cls.__module__.partition(".")[0])
    folders = list(getattr(module, "__path__", ()))
    try:
        if folders:
            return _digest_of_sources(tuple(folders))
        file = inspect.getsourcefile(cls)
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except (OSError, TypeError):
        # A class made at run time, or one inside a zip or an extension module, has no source file.
        return None


@cache
def _digest_of_sources(folders: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for folder in map(Path, folders):
        for file in sorted(folder.rglob("*.py")):
            whole.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            whole.update(file.read_bytes())
    return whole.hexdigest()
