"""What is wrong with installed plugins, said on stderr without stopping anything."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ddrank_core.cli.text import clean


def warn(problems: Iterable[str]) -> None:
    """Print one line on stderr for each problem."""
    for problem in problems:
        click.echo(f"warning: {clean(problem)}", err=True)
