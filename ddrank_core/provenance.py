"""Whose each component of a run is, from which source, with which parameters."""

from __future__ import annotations

import hashlib
import inspect
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
    """Return the SHA-256 of the source file of a class, or None where there is none to read."""
    try:
        file = inspect.getsourcefile(cls)
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except (OSError, TypeError):
        # A class made at run time, or one inside a zip or an extension module, has no source file.
        return None
