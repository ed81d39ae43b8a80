"""The run folder: the record, the tables and the pictures, all of them or none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrank_core.config import RunConfig
from ddrank_core.errors import DataError, RunFailed
from ddrank_core.report.record import RunReport, build_record, strict_json
from ddrank_core.report.tables import scores_csv, trials_csv
from ddrank_core.results import ScoreResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD = "record.json"
FILES = ("scores.csv", "trials.csv", "distilled.png", "arms.png", RECORD)
"""What a run folder holds; the record is put there last."""
_STAGING = ".unfinished-"
_OLD = 3600.0
"""Seconds after which nobody writes to a hidden folder any more."""


def prepare(folder: Path, config: RunConfig) -> None:
    """Make the run folder, and prove before anything is trained that it can be written.

    Raises:
        DataError: one line that names the folder, if it cannot be written or holds another config's run.
    """
    if _holds_another(folder / RECORD, config):
        raise DataError(f"--out {folder}: holds the record of another config; choose another folder")
    try:
        _tidy(folder)
        with staging(folder) as unfinished:
            (unfinished / RECORD).write_bytes(b"{}")
    except OSError as error:
        raise DataError(f"--out {folder}: cannot be a run folder: {error.strerror or error}") from error


def _tidy(folder: Path) -> None:
    """Take away what a run that was killed while it wrote has left."""
    for left in folder.glob(f"{_STAGING}*"):
        # A younger one may be of a run that writes just now.
        if time.time() - left.stat().st_mtime > _OLD:
            shutil.rmtree(left, ignore_errors=True)


def is_there(report: RunReport, folder: Path) -> bool:
    """Return whether the folder holds all files of a run that trained what this one has read back.

    Nothing needs to be written then: that record says when and where its trials were trained.
    """
    whole = all((folder / name).is_file() for name in FILES)
    return whole and says_the_same(folder / RECORD, report, json.loads(record_json(report)))


def says_the_same(path: Path, report: RunReport, record: Mapping[str, Any]) -> bool:
    """Return whether the file holds the run's record already, and the run has only read trials back."""
    if not all(trial.reused for trial in report.trials):
        return False
    try:
        return _lasting(json.loads(path.read_bytes())) == _lasting(record)
    except (OSError, ValueError, TypeError, AttributeError):
        # Gone, or edited into something that is no record.
        return False


def _lasting(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a record is the same whenever and on however many processes its trials are read back."""
    passing = ("device", "notes", "started", "seconds")
    return {
        **{name: value for name, value in record.items() if name not in passing},
        "trials": [_without(trial, "reused") for trial in record.get("trials", ())],
        "teachers": [_without(teacher, "source") for teacher in record.get("teachers", ())],
    }


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def discard(folder: Path) -> None:
    """Take away the folder of a run that failed, if nothing is in it."""
    # Not empty, or gone: then there is nothing to take away.
    with suppress(OSError):
        folder.rmdir()


def _holds_another(record: Path, config: RunConfig) -> bool:
    try:
        found = json.loads(record.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        # No record, or none of ours: a run that was cut off before records were written whole.
        return False
    return isinstance(found, dict) and found.get("config") != strict_json(config.resolved())


def write(
    report: RunReport,
    distilled_images_unit: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    folder: Path,
) -> None:
    """Write the run folder.

    `distilled_images_unit` is float [N, C, H, W], 0..1 after clipping; `labels` is integer [N].
    Everything is made in a hidden folder first, so that a full disk leaves the run folder as it was.
    A record is in the folder only while the files beside it are its own.

    Raises:
        RunFailed: one line that names the folder and what stopped the writing.
    """
    with worded(folder), staging(folder) as unfinished:
        _write_all(report, distilled_images_unit, labels, class_names, unfinished)
        for name in FILES:
            sync(unfinished / name)
        (folder / RECORD).unlink(missing_ok=True)
        for name in FILES:
            os.replace(unfinished / name, folder / name)


def record_json(report: RunReport) -> bytes:
    """Return the record as it is stored: strict JSON, UTF-8, indented, ending in a newline."""
    return as_json(build_record(report))


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return a record's values as they are stored."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    # A path can hold bytes that are not UTF-8; Python's escape for them, \udc80, is JSON's escape too.
    return f"{text}\n".encode(errors="backslashreplace")


def _write_all(
    report: RunReport,
    images_unit: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    unfinished: Path,
) -> None:
    # Matplotlib takes half a second to import; the record's readers need none of it.
    from ddrank_core.report.figures import arms_png, distilled_png

    (unfinished / "scores.csv").write_bytes(scores_csv(report).encode(errors="backslashreplace"))
    (unfinished / "trials.csv").write_bytes(trials_csv(report).encode(errors="backslashreplace"))
    distilled_png(images_unit, labels, class_names, unfinished / "distilled.png")
    asked: dict[str, ScoreResult] = {name: report.scores[name] for name in report.config.scores}
    arms_png(report.arms, asked, unfinished / "arms.png")
    (unfinished / RECORD).write_bytes(record_json(report))


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give a hidden folder inside `folder`, which is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=folder) as name:
        yield Path(name)


@contextmanager
def worded(folder: Path) -> Iterator[None]:
    """Turn what stops a file from being written into one line."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise RunFailed(
            f"{folder}: the run folder cannot be written: {why}; "
            "make room or choose another folder, and run again: finished trials are kept"
        ) from error


def sync(path: Path) -> None:
    """Bring a file to the disk, so that a power cut after the renaming cannot leave it empty."""
    # Windows refuses to sync a file that is open for reading only.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
