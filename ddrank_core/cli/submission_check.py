"""`ddrank submission check`: find what is wrong with a submission, without training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddrank_core.cli.json_file import check_output, json_option
from ddrank_core.cli.json_file import write as write_json
from ddrank_core.cli.text import clean

if TYPE_CHECKING:
    from ddrank_core.leaderboard.types import Finding

_LEVELS = (
    ("error", "errors: these refuse it"),
    ("warning", "warnings: shown beside its row"),
    ("info", "info"),
)


@click.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@click.option("--write", is_flag=True, help="Write check.json and the pictures into FOLDER.")
def command(folder: Path, output: Path | None, write: bool) -> None:
    """Check the submission in FOLDER: what it says, its distilled set, its records.

    Its images are compared with every real one. Nothing is trained, and nothing that is in FOLDER is
    executed. The exit code is 2 if there is an error. Without --write, a check.json that is there is held
    against what is found.
    """
    from ddrank_core.cli.problems import warn
    from ddrank_core.leaderboard.check import REPORT, check_folder, report
    from ddrank_core.leaderboard.check import write as write_check
    from ddrank_core.leaderboard.earlier import compared
    from ddrank_core.registry import default_registry

    check_output(output)
    registry = default_registry()
    warn(registry.problems)
    with tempfile.TemporaryDirectory(prefix="ddrank-check-") as name:
        pictures = Path(name)
        submission, real, findings = check_folder(folder, registry, pictures)
        if submission is not None:
            record = report(submission, real, findings)
            if write:
                write_check(record, pictures, submission.folder)
            else:
                findings += compared(record, submission.folder / REPORT)
            if output is not None:
                write_json(output, record)
    click.echo(_shown(folder, findings))
    if any(finding.level == "error" for finding in findings):
        raise click.exceptions.Exit(2)


def _shown(folder: Path, findings: list[Finding]) -> str:
    lines = []
    for level, title in _LEVELS:
        mine = [finding for finding in findings if finding.level == level]
        if mine:
            lines += [title, *(f"  {finding.check}: {finding.text}" for finding in mine)]
    count = sum(finding.level == "error" for finding in findings)
    done = any(folder.glob("results/*/method/record.json"))
    fine = "can be submitted" if done else "no error so far; 'ddrank submission evaluate' measures it"
    verdict = fine if not count else f"refused: {count} error{'s' * (count != 1)}"
    return "\n".join(clean_line(line) for line in [*lines, f"{folder}: {verdict}"])


def clean_line(line: str) -> str:
    """Return a line without control characters, indented as it was."""
    return f"{'  ' if line.startswith('  ') else ''}{clean(line)}"
