"""`ddrank plugins`: what is installed, without importing any of it."""

from __future__ import annotations

import click

from ddrank_core.cli.text import table


@click.command("plugins")
def command() -> None:
    """List the installed plugins: distribution, version, entry point and the module it names.

    No plugin is imported; `ddrank list` imports them and says which do not work.
    """
    from ddrank_core.plugins import installed

    header = ("DISTRIBUTION", "VERSION", "PLUGIN", "MODULE")
    rows = ((p.distribution, p.version, p.name, p.value) for p in installed())
    click.echo(table([header, *rows]))
