"""`ddrank submission`: a contributor's method, from a finished run to records that can be ranked."""

from __future__ import annotations

import click

from ddrank_core.cli.lazy import LazyGroup

COMMANDS = {
    "new": ("ddrank_core.cli.submission_new", "Start a submission from a finished run."),
    "fetch": ("ddrank_core.cli.submission_fetch", "Download a distilled set that a submission pins."),
    "check": ("ddrank_core.cli.submission_check", "Find what is wrong with a submission, without training."),
    "evaluate": ("ddrank_core.cli.submission_evaluate", "Train and score a submission and its controls."),
}
"""Command -> the module whose `command` it is, and its line in `ddrank submission --help`."""


@click.command("submission", cls=LazyGroup, table=COMMANDS)
def command() -> None:
    """Make, check and evaluate a submission to the leaderboard.

    A submission is a folder METHOD/DATASET-ipcN with what its author says of it (submission.yaml), the
    distilled set, its recipe (run.yaml) and the records of its evaluation.
    """
