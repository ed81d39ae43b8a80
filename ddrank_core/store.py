"""Finished trials, kept in SQLite under a digest of everything that determines them.

A run looks here first, so that a rerun trains only what is missing. One small table; a trial is
committed the moment it is done.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.errors import DataError, RunFailed, one_line

SCHEMA_VERSION = 1


@attrs.frozen(kw_only=True)
class StoredTrial:
    """What is kept of a finished trial: its outcome, and its predictions where it was tested."""

    outcome: Mapping[str, Any]
    """Plain JSON values."""
    predictions: bytes | None
    """Predicted class of each test image, little-endian uint16, in test-set order."""


def cache_folder() -> Path:
    """Return where trained things are kept: $DDRANK_CACHE, else the user's cache folder."""
    if explicit := os.environ.get("DDRANK_CACHE"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ddrank"


class TrialStore:
    """The trials of one cache folder. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"{self.path}: the store of finished trials cannot be opened ({one_line(error)}); "
                "if no other process holds it, set DDRANK_CACHE to another folder"
            ) from error

    def _open(self) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA_VERSION:
            raise DataError(
                f"{self.path}: written by a newer version of ddrank (schema {found}, this one knows "
                f"{SCHEMA_VERSION}); update ddrank, or set DDRANK_CACHE to another folder"
            )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS trials ("
            "digest TEXT PRIMARY KEY, outcome TEXT NOT NULL, predictions BLOB, "
            "created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) WITHOUT ROWID"
        )
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def get(self, digest: str) -> StoredTrial | None:
        """Return the trial of that digest, or None."""
        row = self._run("SELECT outcome, predictions FROM trials WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else StoredTrial(outcome=json.loads(row[0]), predictions=row[1])

    def put(self, digest: str, trial: StoredTrial) -> None:
        """Keep a trial; what was there under its digest is replaced."""
        values = (digest, json.dumps(dict(trial.outcome), allow_nan=False), trial.predictions)
        self._run("INSERT OR REPLACE INTO trials (digest, outcome, predictions) VALUES (?, ?, ?)", values)

    def _run(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            locked = "locked" in str(error)
            advice = "another process holds it" if locked else "finished trials are safe, run again"
            raise RunFailed(f"{self.path}: {one_line(error)}; {advice}") from error

    def close(self) -> None:
        self._db.close()
