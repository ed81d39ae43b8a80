"""Which runs are alive: each holds a lock on a file, which the system takes from a process that ends."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Owners:
    """The runs that share a folder of lock files, this process's one among them.

    Only to be asked inside a write transaction of the store, so that no two processes look at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: BaseFileLock | None = None
        self.name = secrets.token_hex(16)

    def enter(self) -> set[str]:
        """Be alive from now on; return the owners that had ended without cleaning up, where this is new."""
        if self._lock is not None:
            return set()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _try(self._file(self.name))
        others = (path.stem for path in self._folder.glob("*.lock") if path.stem != self.name)
        return {other for other in others if not self.is_alive(other)}

    def is_alive(self, owner: str) -> bool:
        """Return whether the owner's process still runs. The lock file of one that ended is removed."""
        if owner == self.name:
            return True
        file = self._file(owner)
        # Asking makes the file.
        if not file.exists():
            return False
        lock = _try(file)
        if lock is None:
            return True
        _remove(file, lock)
        return False

    def leave(self) -> None:
        """Be alive no longer."""
        if self._lock is not None:
            _remove(self._file(self.name), self._lock)
            self._lock = None

    def _file(self, owner: str) -> Path:
        return self._folder / f"{owner}.lock"


def _try(file: Path) -> BaseFileLock | None:
    """Return the lock on a file, or None where another holds it."""
    # Costs 60 ms to import, and a run that finds everything in the store claims nothing.
    from filelock import FileLock, Timeout

    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except NotImplementedError as error:
        # Refused rather than done without: SQLite needs locks of the file system too.
        raise OSError(f"{file.parent}: a file system without locks") from error
    return lock


def _remove(file: Path, lock: BaseFileLock) -> None:
    # While it is held, or another could hold a file that is gone. Windows removes no open file: then after.
    with suppress(OSError):
        file.unlink()
    lock.release()
    with suppress(OSError):
        file.unlink()
