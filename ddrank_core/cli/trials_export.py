"""Trials as files: CSV for spreadsheets, JSON lines, and Parquet for data frames."""

from __future__ import annotations

import csv
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddrank_core.errors import ConfigError, RunFailed
from ddrank_core.report.folder import staging, sync
from ddrank_core.report.tables import cell
from ddrank_core.store.search import FIELDS, Filter, Row, TrialSearch

_BATCH = 500
"""Rows in memory at once, with their predictions: 20 MB of 10,000 test images."""
_INTEGERS = ("repeat", "seed", "subset_seed", "epoch", "attempts")
_NUMBERS = ("learning_rate", "validation_accuracy", "test_accuracy", "seconds")
_TIMES = ("created", "used")


def write(store: TrialSearch, wanted: Filter, file: Path, predictions: bool) -> int:
    """Write the trials that the filter means to a file, all of them or none; return how many.

    Raises:
        ConfigError: one line, if the file's name or what is asked for fits no format.
        RunFailed: one line, if the file cannot be written.
    """
    writer = _WRITERS.get(file.suffix.lower())
    if writer is None:
        raise ConfigError(f"{file}: must end in {', '.join(_WRITERS)}")
    if predictions and writer is _write_csv:
        raise ConfigError(
            f"--predictions: a table of text holds none; export to {file.stem}.parquet or .jsonl"
        )
    if file.is_dir():
        raise ConfigError(f"{file}: is a folder; name a file in it")
    rows = store.find(wanted)
    try:
        with staging(file.parent) as folder:
            unfinished = folder / "trials"
            writer(_with_predictions(store, rows) if predictions else iter(rows), unfinished, predictions)
            sync(unfinished)
            os.replace(unfinished, file)
    except OSError as error:
        why = error.strerror or str(error)
        raise RunFailed(f"{file}: cannot be written: {why}; nothing was exported") from error
    return len(rows)


def _with_predictions(store: TrialSearch, rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        packed = store.predictions(row["digest"])
        yield {**row, "predictions": None if packed is None else _classes(packed)}


def _classes(predictions: bytes) -> array[int]:
    classes = array("H", predictions)
    if sys.byteorder == "big":
        classes.byteswap()
    return classes


def _write_csv(rows: Iterator[Row], file: Path, predictions: bool) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows([cell(value) for value in row.values()] for row in rows)


def _write_jsonl(rows: Iterator[Row], file: Path, predictions: bool) -> None:
    with file.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, allow_nan=False, default=list) + "\n")


def _write_parquet(rows: Iterator[Row], file: Path, predictions: bool) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "a Parquet file needs pyarrow, which is not installed: pip install pyarrow, or export to .csv"
        ) from error

    types = {name: pa.string() for name in FIELDS}
    types |= {name: pa.int64() for name in _INTEGERS} | {name: pa.float64() for name in _NUMBERS}
    types |= {name: pa.timestamp("s", "UTC") for name in _TIMES} | {"diverged": pa.bool_()}
    if predictions:
        types["predictions"] = pa.list_(pa.uint16())
    schema = pa.schema(types)
    with parquet.ParquetWriter(file, schema) as out:
        for batch in _batches(rows):
            columns = {name: [_value(name, row[name]) for row in batch] for name in types}
            out.write_table(pa.table(columns, schema=schema))


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _value(name: str, value: Any) -> Any:
    if name in _TIMES and value is not None:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value


_WRITERS: dict[str, Callable[[Iterator[Row], Path, bool], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
