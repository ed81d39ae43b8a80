"""`ddrank list`: every component that a config can name."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from ddrank_core.cli.text import table

if TYPE_CHECKING:
    from ddrank_core.registry import Entry, Registry


@click.command("list")
@click.argument("kind", required=False)
@click.argument("pattern", required=False)
def command(kind: str | None, pattern: str | None) -> None:
    """List the components of KIND, or of every kind, with a summary of each.

    PATTERN keeps the names that match it, with * and ?. A name like timm/* stands for a whole
    family; a pattern with its vendor lists the members:

    \b
        ddrank list loss
        ddrank list architecture 'timm/resnet*'

    A plugin that cannot be used is named on stderr; the others are listed.
    """
    from ddrank_core.cli.kinds import kind_of
    from ddrank_core.cli.problems import warn
    from ddrank_core.registry import ALL_KINDS, default_registry

    kinds = [kind_of(kind)] if kind else list(ALL_KINDS)
    registry = default_registry()
    listed = {k: registry.entries(k) for k in kinds}
    warn(registry.problems)
    if pattern:
        click.echo(table(_matches(registry, kinds[0], pattern)))
    elif kind:
        click.echo(_listing(listed[kinds[0]], ""))
    else:
        sections = (f"{k}\n{_listing(entries, '  ')}" for k, entries in listed.items() if entries)
        click.echo("\n\n".join(sections))


def _listing(entries: Sequence[Entry], indent: str) -> str:
    """Return a table of the components; the short names of some of them fill a paragraph below."""
    import textwrap

    rows = [(entry.name, _summary(entry)) for entry in entries if not entry.spec.preset]
    short = ", ".join(entry.name for entry in entries if entry.spec.preset)
    if not short:
        return table(rows, indent)
    # Names like ConvNet-3-BN must not be broken at a hyphen.
    filled = textwrap.fill(
        f"short names: {short}",
        100,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )
    return f"{table(rows, indent)}\n{filled}"


def _summary(entry: Entry) -> str:
    from ddrank_core.plugins import FIRST_PARTY

    owner = "" if entry.distribution == FIRST_PARTY else f" ({entry.owner})"
    return f"{entry.spec.summary}{owner}"


def _matches(registry: Registry, kind: str, pattern: str) -> list[tuple[str, ...]]:
    from ddrank_core.errors import ConfigError

    plain = [entry for entry in registry.entries(kind) if not entry.spec.is_family]
    rows: list[tuple[str, ...]] = [
        (entry.name, _summary(entry)) for entry in plain if fnmatchcase(entry.name, pattern)
    ]
    for entry in registry.entries(kind):
        # Reading a family's members takes a moment, and a pattern without its vendor means none of them.
        if entry.spec.is_family and pattern.startswith(entry.name.removesuffix("*")):
            rows += [(name, "") for name in registry.members(entry) if fnmatchcase(name, pattern)]
    if not rows:
        raise ConfigError(f"no {kind} matches '{pattern}'; see 'ddrank list {kind}'")
    return rows
