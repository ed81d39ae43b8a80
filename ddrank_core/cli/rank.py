"""`ddrank rank`: the submissions of a folder in order, with what the order rests on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddrank_core.cli.text import clean
from ddrank_core.errors import ConfigError

if TYPE_CHECKING:
    from ddrank_core.leaderboard.rank import By

MAX_CHARACTERS = 600
"""Of a line about what is broken, which may quote it."""


@click.command("rank")
@click.argument("folder", type=click.Path(path_type=Path), default="submissions")
@click.option("--dataset", metavar="NAME", help="Of this data set only.")
@click.option("--ipc", type=click.IntRange(min=1), help="Of so many images per class only.")
@click.option(
    "--track",
    type=click.Choice(["own", "fixed"]),
    help="Only each method's own recipe, or only the one that is fixed for all.",
)
@click.option(
    "--by", type=click.Choice(["lrs", "ars"]), default="lrs", show_default=True, help="The score to rank by."
)
@click.option(
    "--weight",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="w of LRS, the share of IOR; g of ARS, the share of the augmented arms.",
)
@click.option("--csv", type=click.Path(path_type=Path), metavar="FILE", help="Write the rows to FILE too.")
@click.option(
    "--json", type=click.Path(path_type=Path), metavar="FILE", help="Write all figures to FILE too."
)
def command(
    folder: Path,
    dataset: str | None,
    ipc: int | None,
    track: str | None,
    by: By,
    weight: float,
    csv: Path | None,
    json: Path | None,
) -> None:
    """Rank the evaluated submissions in FOLDER, by default ./submissions.

    \b
        ddrank rank
        ddrank rank --dataset cifar10 --ipc 10 --by ars --weight 0.3 --csv rank.csv

    Only what can be compared shares a table: one data set, number of images, track, student and protocol. A
    rank with "=" is shared: the difference from the first of that rank is not significant (paired t-test over
    repeats, Holm-corrected, 5 %). A submission that is broken is named and left out.
    """
    from ddrank_core.cli.ranked import as_csv, as_json, as_text, notes, write
    from ddrank_core.leaderboard.entries import load_board
    from ddrank_core.leaderboard.rank import agreements, tables

    board = load_board(folder)
    for problem in board.problems:
        click.echo(_shortened(clean(f"left out: {problem.where}: {problem.what}")), err=True)
    if board.waiting:
        click.echo(clean(f"not evaluated yet: {', '.join(board.waiting)}"), err=True)
    wanted = [
        entry
        for entry in board.entries
        if dataset in (None, entry.submission.dataset)
        and ipc in (None, entry.submission.ipc)
        and track in (None, entry.track)
    ]
    if not wanted:
        raise ConfigError(f"{folder}: no evaluated submission{' of that kind' if board.entries else ''}")
    found = tables(wanted, by, weight)
    compared = agreements(found)
    write(csv, "--csv", as_csv(found))
    write(json, "--json", as_json(found, compared, board))
    encoding = sys.stdout.encoding or "utf-8"
    for table in found:
        click.echo(as_text(table, encoding))
    click.echo(notes(found, compared, encoding), nl=False)


def _shortened(line: str) -> str:
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 3]}..."
