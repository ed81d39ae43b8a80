"""The database file of the store: opened, brought up to date, and every fault of it in one line."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddrank_core.errors import DataError, DDRankError, RunFailed, one_line
from ddrank_core.store.trial import pack

SCHEMA_VERSION = 2
BUSY_SECONDS = 60
"""How long another process may hold the file before this one gives up."""

_FULL_BYTES = 1 << 16
"""Where less is free, the disk is what failed: SQLite calls that an I/O error in some places."""

_ABOUT = (
    "run TEXT, dataset TEXT, student TEXT, distilled TEXT, arm TEXT, phase TEXT, repeat INTEGER, "
    "learning_rate REAL, seed INTEGER, subset_seed INTEGER, determinants BLOB"
)
# `used` has no default on purpose: a process of version 1 that is still running cannot write here any more.
# Predictions come last, so that a search reads none of their pages.
_TABLES = (
    "CREATE TABLE trials (digest TEXT PRIMARY KEY, created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, "
    f"used TEXT NOT NULL, outcome TEXT NOT NULL, test_accuracy REAL, {_ABOUT}, predictions BLOB)",
    "CREATE TABLE failed (digest TEXT PRIMARY KEY, created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, "
    f"error TEXT NOT NULL, attempts INTEGER NOT NULL, {_ABOUT})",
    "CREATE TABLE claims (digest TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID",
)


def cache_folder() -> Path:
    """Return where trained things are kept: $DDRANK_CACHE, else the user's cache folder."""
    if explicit := os.environ.get("DDRANK_CACHE"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ddrank"


class Database:
    """The file trials.sqlite of one cache folder, which several processes may have open.

    Not for several threads at once.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.sqlite"
        with self.faults():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self.faults():
                self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        if self._version() != SCHEMA_VERSION:
            # Of a new file only. Rows are a few kB; pages of 4096 bytes leave more of the room unused, up to
            # 1.5 kB for a trial with 10,000 predictions.
            self._db.execute("PRAGMA page_size=2048")
            self._use_log()
            with self.writing() as db:
                # Another process may have done it meanwhile.
                if self._version() != SCHEMA_VERSION:
                    _bring_up_to_date(db)

    def _version(self) -> int:
        found: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise DataError(
                f"{self.path}: written by a newer version of ddrank (schema {found}, this one knows "
                f"{SCHEMA_VERSION}); update ddrank, or set DDRANK_CACHE to another folder"
            )
        return found

    def _use_log(self) -> None:
        """Turn the write-ahead log on, which stays on.

        SQLite does not wait here by itself while another process does the same.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows that a query finds."""
        with self.faults():
            return self._db.execute(statement, values).fetchall()

    @contextmanager
    def writing(self, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """Give the connection, in a transaction that is alone in writing: all of it is kept, or nothing.

        What is written is on the disk afterwards, at the price of one sync; where it is not `lasting`, a
        power cut may undo it.
        """
        with self.faults():
            self._db.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk ends a transaction by itself, and a locked file begins none.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def shrink(self) -> None:
        """Give the room of what was deleted back to the disk."""
        with self.faults():
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what SQLite or the file system says into one line with what to do."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise _fault(self.path, error) from error

    def close(self) -> None:
        self._db.close()


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables, and move the trials of version 1 into them; inside one transaction."""
    # Not by the version's number: version 1 made its table before it wrote that.
    has_old = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone() is not None
    if has_old:
        db.execute("ALTER TABLE trials RENAME TO version_1")
    for table in _TABLES:
        db.execute(table)
    if has_old:
        db.create_function("pack", 1, pack, deterministic=True)
        db.execute(
            "INSERT INTO trials (digest, created, used, outcome, predictions) "
            "SELECT digest, created, created, outcome, pack(predictions) FROM version_1 "
            "ORDER BY created"
        )
        db.execute("DROP TABLE version_1")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _fault(path: Path, error: OSError | sqlite3.Error) -> DDRankError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return _full(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunFailed(
            f"{path}: another process has held it for {BUSY_SECONDS} s; finished trials are safe: run again "
            "when it has ended"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataError(
            f"{path}: the store of finished trials is damaged ({one_line(error)}); move it away, with "
            f"{path.name}-wal and {path.name}-shm where they exist, and its trials are trained anew"
        )
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _room(path) < _FULL_BYTES:
        return _full(path)
    return DataError(
        f"{path}: the store of finished trials cannot be used ({one_line(error)}); make its folder writable, "
        "or set DDRANK_CACHE to a folder on a local disk"
    )


def _full(path: Path) -> RunFailed:
    return RunFailed(f"{path}: the disk is full; finished trials are safe: make room and run again")


def _room(path: Path) -> int:
    """Return the free bytes of the disk, as far as that is known."""
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return _FULL_BYTES
