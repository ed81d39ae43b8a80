"""The store as people use it: trials are searched, read, and deleted where they are no longer wanted."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.errors import ConfigError, DataError, RunFailed
from ddrank_core.store.claims import Owners
from ddrank_core.store.database import Database
from ddrank_core.store.trial import ABOUT_FIELDS, about_of, unpack

FIELDS = (
    "digest",
    "created",
    "used",
    *ABOUT_FIELDS[:-1],
    "validation_accuracy",
    "test_accuracy",
    "epoch",
    "diverged",
    "seconds",
    "how",
    "attempts",
    "error",
)
"""What a row of a search says of a trial, finished or failed. Times are UTC, accuracies fractions."""

_IN_OUTCOME = ("validation_accuracy", "epoch", "diverged", "seconds", "how")
_READ = {
    "trials": (*FIELDS[:3], *ABOUT_FIELDS[:-1], "outcome", "test_accuracy", "NULL", "NULL"),
    "failed": (*FIELDS[:2], "NULL", *ABOUT_FIELDS[:-1], "'{}'", "NULL", "attempts", "error"),
}
_SIZES = {
    "trials": "length(outcome) + coalesce(length(determinants), 0) + coalesce(length(predictions), 0)",
    "failed": "length(error) + coalesce(length(determinants), 0)",
}
_ROW_BYTES = 300
"""About what a row takes beside those, with its digest in the index."""

Row = dict[str, Any]


@attrs.frozen(kw_only=True)
class Filter:
    """Which trials are meant: those for which all that is given holds. Names may have * and ?."""

    run: str | None = None
    dataset: str | None = None
    student: str | None = None
    arm: str | None = None
    phase: str | None = None
    learning_rate: float | None = None
    since: str | None = None
    """Trained at or after this time, UTC, as `YYYY-MM-DD hh:mm:ss`."""
    before: str | None = None
    """Trained before this time."""
    unused_since: str | None = None
    """Not used by any run since this time, which is known to the day."""
    diverged: bool = False
    failed: bool = False
    """Those that could not be trained, and no finished ones."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that may hold such trials."""
        if self.failed:
            return ("failed",)
        return ("trials",) if self.diverged else ("trials", "failed")

    @property
    def is_about_age(self) -> bool:
        """Whether it also means what nothing but its age is known of."""
        return attrs.evolve(self, before=None, unused_since=None) == Filter()

    def condition(self, table: str) -> tuple[str, list[Any]]:
        """Return an SQL condition on the rows of a table, and its values."""
        parts: list[str] = ["1"]
        values: list[Any] = []
        for name in ("run", "dataset", "student", "arm", "phase"):
            if (wanted := getattr(self, name)) is not None:
                # The first for a name that has a bracket in it.
                parts.append(f"({name} = ? OR {name} GLOB ?)")
                values += [wanted, wanted]
        for test, limit in (
            ("learning_rate = ?", self.learning_rate),
            ("created >= ?", self.since),
            ("created < ?", self.before),
            ("used < ?" if table == "trials" else "created < ?", self.unused_since),
        ):
            if limit is not None:
                parts.append(test)
                values.append(limit)
        if self.diverged:
            parts.append("json_extract(outcome, '$.diverged')")
        return " AND ".join(parts), values


@attrs.frozen(kw_only=True)
class Shown:
    """All that is known of one trial."""

    row: Row
    outcome: dict[str, Any]
    predictions: int | None
    """How many test images it predicted; None where it never did."""
    determinants: dict[str, Any] | None
    """None for a trial that was stored by a version that did not keep them."""


@attrs.frozen(kw_only=True)
class Pruned:
    """What was deleted, or would be."""

    trials: int
    unfinished: int
    """Files of trainings that were interrupted."""
    size_bytes: int
    shrunk: bool = True
    """Whether the room is the disk's again, and not only the store's own."""


class TrialSearch:
    """The trials of one cache folder, for people. What is found counts as not used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = Database(folder)
        self.path = self._database.path

    def close(self) -> None:
        self._database.close()

    def size_bytes(self) -> int:
        """Return what the store takes on the disk."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def count(self, wanted: Filter) -> int:
        """Return how many trials the filter means: failed ones if it says so, else finished ones."""
        table = wanted.tables[0]
        condition, values = wanted.condition(table)
        return int(self._database.read(f"SELECT COUNT(*) FROM {table} WHERE {condition}", values)[0][0])

    def find(self, wanted: Filter, limit: int = -1) -> list[Row]:
        """Return these trials, newest first."""
        table = wanted.tables[0]
        condition, values = wanted.condition(table)
        # A trial that is put again gets a new rowid: the order of rowids is that of time.
        rows = self._database.read(
            f"SELECT {', '.join(_READ[table])} FROM {table} WHERE {condition} ORDER BY rowid DESC LIMIT ?",
            [*values, limit],
        )
        return [_row(row) for row in rows]

    def predictions(self, digest: str) -> bytes | None:
        """Return a trial's predictions, little-endian uint16; None where there are none."""
        found = self._database.read("SELECT predictions FROM trials WHERE digest = ?", [digest])
        with self._sound(digest):
            return unpack(found[0][0]) if found else None

    @contextmanager
    def _sound(self, digest: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise DataError(
                f"{self.path}: what is kept of trial {digest[:12]} is damaged; 'ddrank trials prune' deletes "
                "trials, and a run that needs them trains them anew"
            ) from error

    def show(self, prefix: str) -> Shown:
        """Return all that is known of the one trial whose digest starts so.

        Raises:
            ConfigError: one line, if there is none or more than one.
        """
        digest, failed = self._resolve(prefix)
        table = "failed" if failed else "trials"
        with self._sound(digest):
            row = _row(self._of(digest, table, ", ".join(_READ[table])))
            about = about_of(self._of(digest, table, ", ".join(ABOUT_FIELDS)))
            outcome, packed = ("{}", None) if failed else self._of(digest, table, "outcome, predictions")
            predictions = unpack(packed)
            return Shown(
                row=row,
                outcome=json.loads(outcome),
                predictions=None if predictions is None else len(predictions) // 2,
                determinants=None if about is None else dict(about.determinants),
            )

    def _of(self, digest: str, table: str, columns: str) -> tuple[Any, ...]:
        found = self._database.read(f"SELECT {columns} FROM {table} WHERE digest = ?", [digest])
        return tuple(found[0])

    def _resolve(self, prefix: str) -> tuple[str, bool]:
        """Return the digest that starts so, and whether it failed."""
        starts = "substr(digest, 1, ?) = ?"
        found = self._database.read(
            f"SELECT digest, 0 FROM trials WHERE {starts} UNION ALL "
            f"SELECT digest, 1 FROM failed WHERE {starts} LIMIT 3",
            [len(prefix), prefix] * 2,
        )
        if not found:
            raise ConfigError(f"no trial's digest starts with '{prefix}'; 'ddrank trials' lists them")
        if len(found) > 1:
            some = ", ".join(digest[: len(prefix) + 4] for digest, _ in found[:2])
            raise ConfigError(
                f"the digests of several trials start with '{prefix}': {some}, ...; give more of it"
            )
        return found[0][0], bool(found[0][1])

    # -- deleting ----------------------------------------------------------------------------

    def prune(self, wanted: Filter, rehearse: bool = False) -> Pruned:
        """Delete trials and what interrupted trainings left; what a live run trains just now stays.

        With `rehearse`, only say about what would go.
        """
        before = self.size_bytes()
        with self._database.writing() as db:
            kept = self._claimed(db)
            found = [_delete(db, wanted, table, kept, rehearse) for table in wanted.tables]
            files = self._unfinished(wanted, kept)
            if not rehearse:
                for file in files:
                    file.unlink(missing_ok=True)
        trials, taken = sum(count for count, _ in found), sum(size for _, size in found)
        whole = True
        if trials and not rehearse:
            # To rewrite a large file takes minutes, in which a live run could not store what it has trained.
            whole = not kept and self._shrink()
            taken = before - self.size_bytes()
        return Pruned(
            trials=trials, unfinished=len(files), size_bytes=taken + sum(files.values()), shrunk=whole
        )

    def _claimed(self, db: sqlite3.Connection) -> set[str]:
        """Return the trials that live runs train just now."""
        claims = db.execute("SELECT digest, owner FROM claims").fetchall()
        owners = Owners(self._folder / "claims")
        alive = {owner for owner in {owner for _, owner in claims} if owners.is_alive(owner)}
        return {digest for digest, owner in claims if owner in alive}

    def _unfinished(self, wanted: Filter, kept: set[str]) -> dict[Path, int]:
        """Return the files of interrupted trainings that are meant, and their sizes."""
        folder = self._folder / "unfinished"
        if not wanted.is_about_age or not folder.is_dir():
            return {}
        limits = [limit for limit in (wanted.before, wanted.unused_since) if limit is not None]
        found = {}
        for file in os.scandir(folder):
            try:
                about = file.stat()
            except FileNotFoundError:
                # A run has just finished what it kept.
                continue
            changed = datetime.fromtimestamp(about.st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S")
            if file.name.partition(".")[0] not in kept and all(changed < limit for limit in limits):
                found[Path(file.path)] = about.st_size
        return found

    def _shrink(self) -> bool:
        try:
            self._database.shrink()
        except RunFailed:
            # It takes as much room again while it works.
            return False
        return True


def _delete(
    db: sqlite3.Connection, wanted: Filter, table: str, kept: set[str], rehearse: bool
) -> tuple[int, int]:
    """Delete rows; return how many, and about how many bytes they take."""
    condition, values = wanted.condition(table)
    condition += " AND digest NOT IN (SELECT value FROM json_each(?))"
    values.append(json.dumps(sorted(kept)))
    count, size = db.execute(
        f"SELECT COUNT(*), TOTAL({_SIZES[table]}) FROM {table} WHERE {condition}", values
    ).fetchone()
    if not rehearse:
        db.execute(f"DELETE FROM {table} WHERE {condition}", values)
    return count, int(size) + count * _ROW_BYTES


def _row(values: Sequence[Any]) -> Row:
    """Return one row of _READ by the names of FIELDS."""
    head = 3 + len(ABOUT_FIELDS) - 1
    outcome, test_accuracy, attempts, error = values[head:]
    told = json.loads(outcome)
    named = dict(zip(FIELDS[:head], values[:head], strict=True))
    named |= {name: told.get(name) for name in _IN_OUTCOME}
    named |= {"test_accuracy": test_accuracy, "attempts": attempts, "error": error}
    return {name: named[name] for name in FIELDS}
