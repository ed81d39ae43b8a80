"""Whose each component of a run is, from which source, with which parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from ddrank_core.sources import source_digest as source_digest
from ddrank_core.structure import Chosen, plain


def components(config: Any, field: str = "") -> Iterator[tuple[str, Chosen[Any]]]:
    """Yield every component of a config, those inside other components too, each with its field."""
    if isinstance(config, Chosen):
        yield field, config
        config = config.component
    if attrs.has(type(config)):
        for attribute in attrs.fields(type(config)):
            inner = f"{field}.{attribute.name}" if field else attribute.name
            yield from components(getattr(config, attribute.name), inner)
    elif isinstance(config, Mapping):
        for key, item in config.items():
            yield from components(item, f"{field}.{key}")
    elif isinstance(config, (list, tuple)):
        for index, item in enumerate(config):
            yield from components(item, f"{field}[{index}]")


def provenance(chosen: Chosen[Any]) -> dict[str, Any]:
    """Return whose a component is, from which source, and with which parameters.

    `version` is a distribution's, or the start of the file's SHA-256 where `from_file` says that it is a
    one-off file; `given` are the parameters that the config names, `parameters` all of them.
    """
    entry = chosen.entry
    return {
        "kind": entry.kind,
        "name": chosen.use,
        "distribution": entry.distribution,
        "version": entry.version,
        "from_file": entry.from_file,
        "target": entry.spec.target,
        "source_digest": source_digest(type(chosen.component)),
        "parameters": plain(chosen.component),
        "given": list(chosen.given),
    }
