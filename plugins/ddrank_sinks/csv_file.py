"""A run's trials as a table, for spreadsheets and data frames, while the run goes on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddrank_core import (
    ConfigError,
    Event,
    RunStarted,
    SinkWriter,
    TrialFailed,
    TrialFinished,
    component,
    parameter,
)
from ddrank_sinks import values
from ddrank_sinks.files import Appended, check_file, first_line, place

_RUN = ("run", "folder")
_TRIAL = ("arm", "phase", "repeat", "learning_rate", "seed")

COLUMNS = (
    "time",
    *_RUN,
    *_TRIAL,
    "subset_seed",
    "status",
    "accuracy",
    "validation_accuracy",
    "epoch",
    "seconds",
    "reused",
    "how",
    "attempt",
    "error",
    "done",
    "total",
)


@component
class CSV:
    """Write a row for each trial as it ends: finished, diverged, or failed for good.

    Accuracies are fractions. That on the test set is empty where the run has not looked at it yet, which
    by the strict protocol is until its last choice is made; `trials.csv` has it when the run is over. A run
    that goes on after it was stopped adds to the file, and does not repeat the trials that it reads back.
    Several runs may share one file.
    """

    path: Path | None = parameter(
        "the file; trials-live.csv in the run folder if it is not given", default=None
    )

    def check(self) -> None:
        """Refuse a path that cannot be written."""
        check_file(self.path)

    def open(self, event: RunStarted) -> SinkWriter:
        """Write the header, where there is none."""
        path = place(self.path, event, "trials-live.csv")
        begins, header = first_line(path), _line(COLUMNS)
        if begins and not header.startswith(begins):
            raise ConfigError(f"{path}: has other columns than these; give another path")
        return _Writer(path, header, event)


class _Writer:
    def __init__(self, path: Path, header: str, event: RunStarted) -> None:
        self._run = {"run": event.name, "folder": "" if event.folder is None else str(event.folder)}
        self._file = Appended(path)
        self._written = set(_keys(path))
        if self._file.is_empty:
            self._file.add(header)

    def write(self, event: Event) -> None:
        """Add a row, if the event is the end of a trial."""
        if isinstance(event, TrialFinished):
            status = "diverged" if event.result.diverged else "finished"
            row = {**values.fields(event.result), "status": status}
            if event.result.reused and _key({**self._run, **row}) in self._written:
                return
        elif isinstance(event, TrialFailed) and event.final:
            row = {**values.fields(event), "status": "failed"}
        else:
            return
        known = {"time": values.now(), **self._run, "done": event.done, "total": event.total, **row}
        self._file.add(_line([known.get(name) for name in COLUMNS]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _keys(path: Path) -> list[tuple[str, ...]]:
    """Return which finished trials of which runs are in a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_key(row) for row in csv.DictReader(file) if row["status"] != "failed"]


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a row has of one trial alone, as the text that the file has of it."""
    return tuple(str(_cell(row[name])) for name in (*_RUN, *_TRIAL))


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(map(_cell, cells))
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if not isinstance(value, str):
        return value
    # A spreadsheet runs a text that starts like a formula; an apostrophe makes it text again.
    guard = "'" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else ""
    # A row is a line: what is cut off of a last one is then known to be no row.
    return guard + value.replace("\r", " ").replace("\n", " ")
