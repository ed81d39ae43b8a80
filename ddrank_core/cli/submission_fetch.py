"""`ddrank submission fetch`: download a distilled set that a submission pins rather than holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ddrank_core.cli.evaluation import end_on_sigterm
from ddrank_core.cli.text import clean


@click.command("fetch")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(folder: Path, quiet: bool) -> None:
    """Download the distilled set that the submission in FOLDER pins by its address, SHA-256 and size.

    It is put where the recipe reads it, once it is whole and is the declared file. A file that is there
    already is left as it is: if it is another one, the exit code is 2. So it is where the set is made from
    what lies at the address (made_with): how is said, and left to you.
    """
    from ddrank_core.leaderboard.fetch import destination, fetch, is_here
    from ddrank_core.leaderboard.submission import load

    end_on_sigterm()
    submission = load(folder)
    if submission.distilled.url is None:
        click.echo(clean(f"{folder}: holds its distilled set; nothing is to be fetched"))
        return
    if is_here(submission):
        click.echo(clean(f"{destination(submission)}: is here already"))
        return
    with _shown(quiet) as report:
        path = fetch(submission, report)
    click.echo(clean(f"{path}: fetched, {submission.distilled.bytes} bytes"))


@contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how many bytes have come, and of how many."""
    from ddrank_core.cli.progress import progress

    if quiet:
        yield lambda done, total: None
        return
    with progress("distilled set", "KiB") as report:
        yield lambda done, total: report(-(-done >> 10), -(-total >> 10))
