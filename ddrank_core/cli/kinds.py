"""Kinds of components as a user types them."""

from __future__ import annotations

from ddrank_core.errors import ConfigError, nearest
from ddrank_core.registry import ALL_KINDS


def kind_of(word: str) -> str:
    """Return the kind that a word means; the plural and underscores will do.

    Raises:
        ConfigError: if there is no such kind, with the nearest or all of them.

    >>> kind_of("Label_Mappings"), kind_of("losses")
    ('label-mapping', 'loss')
    """
    meant = word.lower().replace("_", "-")
    for kind in ALL_KINDS:
        if meant in (kind, f"{kind}s", f"{kind}es"):
            return kind
    hint = nearest(meant, list(ALL_KINDS)) or f"; the kinds are {', '.join(ALL_KINDS)}"
    raise ConfigError(f"no kind '{word}'{hint}")
