"""The scores and the trials as CSV, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
import re
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


_FORMULA = re.compile(
    # At the start, or behind what a spreadsheet of another locale splits at; full-width and small forms of
    # the characters too, which some take for the plain ones.
    r"(^|[;\t\n\v\f\x1c-\x1e\x85\u2028\u2029])"
    r"(?=[\s\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])"
)


def cell(value: object) -> object:
    """Return a value as it may stand in a CSV file: no part of it is a formula, wherever it is split.

    >>> cell("a;=1+1")
    "a;'=1+1"
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    # Before Python 3.13, csv writes a carriage return unquoted, which readers take for the row's end.
    text = value.replace("\r", " ")
    # A spreadsheet runs a text that starts like a formula; an apostrophe makes it text again.
    guarded = _FORMULA.sub(r"\1'", text)
    return f"'{guarded}" if guarded.startswith("\t") else guarded
