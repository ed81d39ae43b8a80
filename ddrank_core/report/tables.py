"""The scores and the trials as CSV, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ddrank_core.report.record import TRIAL_FIELDS, RunReport

SCORE_FIELDS = ("score", "mean", "std", "ci95", "n", "reason")


def scores_csv(report: RunReport) -> str:
    """Return one line per asked score, as fractions; the numbers are empty where it is undefined."""
    scores = [(name, report.scores[name]) for name in report.config.scores]
    return _csv(SCORE_FIELDS, ((name, s.mean, s.std, s.ci95, s.n, s.reason) for name, s in scores))


def trials_csv(report: RunReport) -> str:
    """Return one line per trial, accuracies as fractions."""
    return _csv(TRIAL_FIELDS, ([getattr(trial, name) for name in TRIAL_FIELDS] for trial in report.trials))


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()


def cell(value: object) -> object:
    """Return a value as it may stand in a CSV file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    # A spreadsheet runs a text that starts like a formula; an apostrophe makes it text again.
    guard = "'" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else ""
    # Before Python 3.13, csv writes a carriage return unquoted, which readers take for the row's end.
    return guard + value.replace("\r", " ")
