"""The run folder: the record, the tables and the pictures, all of them or none."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
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


def prepare(folder: Path, config: RunConfig) -> None:
    """Make the run folder, and prove before anything is trained that it can be written.

    Raises:
        DataError: one line that names the folder, if it cannot be written or holds another config's run.
    """
    if _holds_another(folder / RECORD, config):
        raise DataError(f"--out {folder}: holds the record of another config; choose another folder")
    try:
        with staging(folder) as unfinished:
            (unfinished / RECORD).write_bytes(b"{}")
    except OSError as error:
        raise DataError(f"--out {folder}: cannot be a run folder: {error.strerror or error}") from error


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
    text = json.dumps(build_record(report), indent=2, ensure_ascii=False, allow_nan=False)
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
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as name:
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
