"""The store as a run uses it: what is finished, what is to be trained now, what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddrank_core.errors import DDRankError
from ddrank_core.store.claims import Owners
from ddrank_core.store.database import Database
from ddrank_core.store.trial import ABOUT_FIELDS, About, StoredTrial, about_of, about_row, pack, text, unpack

_ABOUT = ", ".join(ABOUT_FIELDS)
_SLOTS = ", ".join("?" for _ in ABOUT_FIELDS)
# One parameter, however many digests.
_THESE = "digest IN (SELECT value FROM json_each(?))"


class TrialStore:
    """The trials of one cache folder. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder)
        self.path = self._database.path
        self._owners = Owners(folder / "claims")
        self._used: set[str] = set()

    def get(self, digest: str) -> StoredTrial | None:
        """Return the trial of that digest with all that is known of it, or None."""
        found = self._found([digest], f", {_ABOUT}")
        return found.get(digest)

    def get_many(self, digests: Iterable[str]) -> dict[str, StoredTrial]:
        """Return those of the trials that are there, without what people search by."""
        return self._found(digests, "")

    def _found(self, digests: Iterable[str], more: str) -> dict[str, StoredTrial]:
        rows = self._database.read(
            f"SELECT digest, outcome, predictions{more} FROM trials WHERE {_THESE}", (_listed(digests),)
        )
        found, damaged = {}, []
        for digest, outcome, packed, *about in rows:
            try:
                found[digest] = StoredTrial(
                    outcome=json.loads(outcome),
                    predictions=unpack(packed),
                    about=about_of(about) if about else None,
                )
            except ValueError:
                damaged.append(digest)
        self._used.update(found)
        if damaged:
            self.discard(damaged)
        return found

    def which(self, digests: Iterable[str]) -> frozenset[str]:
        """Return which of the trials are there, without reading them."""
        rows = self._database.read(f"SELECT digest FROM trials WHERE {_THESE}", (_listed(digests),))
        return frozenset(digest for (digest,) in rows)

    def discard(self, digests: Iterable[str]) -> None:
        """Delete trials that turn out to be of no use, so that they can be claimed and trained again."""
        with self._database.writing() as db:
            db.execute(f"DELETE FROM trials WHERE {_THESE}", (_listed(digests),))

    def put(self, trials: Mapping[str, StoredTrial]) -> None:
        """Keep trials, all of them or none; they are on the disk when this returns.

        What was there under their digests is replaced. This run's claims on them end.
        """
        rows = [
            (
                digest,
                json.dumps(dict(trial.outcome), allow_nan=False),
                *about_row(trial.about),
                pack(trial.predictions),
            )
            for digest, trial in trials.items()
        ]
        these = _listed(trials)
        with self._database.writing() as db:
            db.executemany(
                f"INSERT OR REPLACE INTO trials (digest, used, outcome, {_ABOUT}, predictions) "
                f"VALUES (?, CURRENT_TIMESTAMP, ?, {_SLOTS}, ?)",
                rows,
            )
            db.execute(f"DELETE FROM failed WHERE {_THESE}", (these,))
            db.execute(f"DELETE FROM claims WHERE {_THESE} AND owner = ?", (these, self._owners.name))

    def claim(self, digests: Iterable[str]) -> frozenset[str]:
        """Return which of the trials are this run's to train: not stored, and no other live run's.

        They are this run's until it puts, fails or releases them, closes the store, or its process ends.
        """
        wanted = set(digests)
        these = (_listed(wanted),)
        with self._database.writing(lasting=False) as db:
            gone = self._owners.enter()
            stored = {digest for (digest,) in db.execute(f"SELECT digest FROM trials WHERE {_THESE}", these)}
            owners = dict(db.execute(f"SELECT digest, owner FROM claims WHERE {_THESE}", these).fetchall())
            gone |= {owner for owner in set(owners.values()) if not self._owners.is_alive(owner)}
            db.execute("DELETE FROM claims WHERE owner IN (SELECT value FROM json_each(?))", (_listed(gone),))
            free = {None, self._owners.name, *gone}
            ours = frozenset(digest for digest in wanted - stored if owners.get(digest) in free)
            rows = [(digest, self._owners.name) for digest in ours]
            db.executemany("INSERT OR REPLACE INTO claims (digest, owner) VALUES (?, ?)", rows)
        return ours

    def release(self, digests: Iterable[str]) -> None:
        """Give claims back, for another run to train."""
        with self._database.writing(lasting=False) as db:
            values = (_listed(digests), self._owners.name)
            db.execute(f"DELETE FROM claims WHERE {_THESE} AND owner = ?", values)

    def fail(self, digest: str, error: str, attempts: int, about: About | None) -> None:
        """Remember that a trial could not be trained, for people to read; the claim on it ends."""
        with self._database.writing() as db:
            db.execute(
                f"INSERT OR REPLACE INTO failed (digest, error, attempts, {_ABOUT}) "
                f"VALUES (?, ?, ?, {_SLOTS})",
                (digest, text(error), attempts, *about_row(about)),
            )
            db.execute("DELETE FROM claims WHERE digest = ? AND owner = ?", (digest, self._owners.name))

    def note_accuracy(self, accuracies: Mapping[str, float]) -> None:
        """Note test accuracies of trials that a run chose, for people to read; no run reads them."""
        rows = [(accuracy, digest) for digest, accuracy in accuracies.items()]
        with self._database.writing() as db:
            db.executemany("UPDATE trials SET test_accuracy = ? WHERE digest = ?", rows)

    def close(self) -> None:
        """End this run's claims, and note which trials it used."""
        try:
            self._leave()
        except DDRankError:
            # On a full disk too: without its lock, this run's claims hold nobody up.
            self._owners.leave()
        finally:
            self._database.close()

    def _leave(self) -> None:
        with self._database.writing() as db:
            # To the day: reruns write next to nothing.
            db.execute(
                f"UPDATE trials SET used = CURRENT_TIMESTAMP WHERE {_THESE} "
                "AND used < datetime('now', '-1 day')",
                (_listed(self._used),),
            )
            db.execute("DELETE FROM claims WHERE owner = ?", (self._owners.name,))
            self._owners.leave()


def _listed(digests: Iterable[Any]) -> str:
    return json.dumps(list(digests))
