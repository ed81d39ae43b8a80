"""`ddrank leaderboard`: the submissions as a static site, and a look at it on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from ddrank_core.cli.text import clean
from ddrank_core.errors import ConfigError


@click.group("leaderboard")
def command() -> None:
    """Write the submissions as a static site, and look at it."""


@command.command("build")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--submissions",
    type=click.Path(path_type=Path),
    default="submissions",
    show_default=True,
    metavar="FOLDER",
    help="What to show.",
)
def build_(folder: Path, submissions: Path) -> None:
    """Write the site into DIR: a table of all evaluated submissions, and a page for each.

    The pages ask for nothing from outside, so that they work from a file and from any static host. A site
    that is in DIR is replaced; other files there stay, and a folder with something else in its place is
    refused. A submission that is broken is named and left out.
    """
    from ddrank_core.leaderboard.entries import load_board
    from ddrank_core.leaderboard.site.build import build
    from ddrank_core.leaderboard.site.folder import INDEX, check_apart

    check_apart(folder, submissions)
    board = load_board(submissions)
    for problem in board.problems:
        click.echo(clean(f"left out: {problem.where}: {problem.what}"), err=True)
    if board.waiting:
        click.echo(clean(f"not evaluated yet: {', '.join(board.waiting)}"), err=True)
    if not board.entries:
        raise ConfigError(f"{submissions}: no evaluated submission; 'ddrank submission evaluate' makes one")
    built = build(board.entries, folder)
    for slug, why in built.left_out:
        click.echo(clean(f"left out: {slug}: {why}"), err=True)
    size = f"{built.bytes / 1e6:.1f} MB"
    click.echo(clean(f"{folder / INDEX}: {built.submissions} submissions, {built.rows} rows, {size}"))


@command.command("serve")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
def serve(folder: Path, port: int) -> None:
    """Show the site in DIR to browsers on this machine, until Ctrl+C.

    No other machine can reach it; to publish the site, copy DIR to any static host.
    """
    from ddrank_core.cli.leaderboard_serve import ADDRESS, server
    from ddrank_core.leaderboard.site.folder import INDEX, is_site

    if not is_site(folder):
        raise ConfigError(
            f"{folder}: holds no {INDEX} of a leaderboard; 'ddrank leaderboard build {folder}' makes the site"
        )
    try:
        listening = server(folder, port)
    except OSError as error:
        raise ConfigError(f"--port {port}: cannot be used: {error.strerror}; choose another") from error
    with listening:
        click.echo(f"http://{ADDRESS}:{listening.server_port}/  (Ctrl+C ends it)")
        listening.serve_forever()
