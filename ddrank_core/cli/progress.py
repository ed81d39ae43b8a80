"""How far a long piece of work is: a bar on a terminal, a line every tenth elsewhere, both on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how much is done, and of how much."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(title: str, unit: str) -> Callable[[int, int], None]:
    started, said = time.monotonic(), 0

    def report(done: int, total: int) -> None:
        nonlocal said
        tenth = done * 10 // total
        if tenth == said:
            return
        said = tenth
        left = (time.monotonic() - started) / done * (total - done)
        click.echo(f"{title}: {done} of {total} {unit}, {left:.0f} s left", err=True)

    return report
