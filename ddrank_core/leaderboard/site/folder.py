"""The folder that a site lies in: whose files it holds, and a new site in the place of an old one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ddrank_core.errors import DataError

INDEX, PAGES = "index.html", "submissions"
MARK = '<meta name="generator" content="ddrank leaderboard">'
"""By which a table's page is known to be one."""
# No submission's name starts with an underscore.
LIST = "_files.txt"
"""In the folder of pages: what was written there, and may be replaced."""

_HEAD = "written by ddrank leaderboard build, which replaces these files"
_UNFINISHED, _ALIVE = ".ddrank-site-", "alive.lock"


def check_apart(folder: Path, submissions: Path) -> None:
    """Refuse a site whose pages would lie among the submissions, or in their place.

    Raises:
        DataError: one line.
    """
    source, pages = submissions.resolve(), (folder / PAGES).resolve()
    mixed = pages.is_relative_to(source) or source.is_relative_to(pages)
    if mixed or folder.resolve().is_relative_to(source):
        raise DataError(
            f"{folder}: its pages, {folder / PAGES}, would mix with the submissions in {submissions}; "
            "choose another folder, such as site"
        )


def is_site(folder: Path) -> bool:
    """Return whether a folder holds a table's page that this package has written."""
    index = folder / INDEX
    try:
        if index.is_symlink():
            return False
        with index.open("rb") as file:
            return MARK.encode() in file.read(2000)
    except OSError:
        return False


def check_target(folder: Path) -> None:
    """Refuse a folder in which something would be replaced that this package has not written.

    Raises:
        DataError: one line.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder for the site")
    index, pages = folder / INDEX, folder / PAGES
    # A link is nothing that this package writes, and where it leads there may be anything.
    listed = pages.is_dir() and not pages.is_symlink() and (pages / LIST).is_file()
    if (os.path.lexists(index) and not is_site(folder)) or (os.path.lexists(pages) and not listed):
        raise DataError(f"{folder}: holds {INDEX} or {PAGES} that are no leaderboard; choose another folder")
    if listed and (name := next(_strangers(pages), None)):
        raise DataError(f"{pages / name}: is no file of the site that is there; move it elsewhere first")


def _strangers(pages: Path) -> Iterator[str]:
    """Yield what lies among the pages and is not in their list."""
    known = set((pages / LIST).read_text(encoding="utf-8", errors="replace").splitlines()[1:])
    for place, folders, files in os.walk(pages):
        links = (name for name in folders if Path(place, name).is_symlink())
        for name in sorted((*files, *links)):
            path = Path(place, name).relative_to(pages).as_posix()
            if path not in known:
                yield path


def listing(names: Iterable[str]) -> bytes:
    """Return the list of the pages' folder, itself included."""
    return "".join(f"{line}\n" for line in (_HEAD, *sorted({*names, LIST}))).encode()


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Give a hidden folder inside `folder`, which is gone afterwards, as is what killed builds have left."""
    from filelock import FileLock

    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    try:
        # The system takes the lock from a process that ends, however it ends.
        with TemporaryDirectory(prefix=_UNFINISHED, dir=folder) as name, FileLock(Path(name, _ALIVE)):
            yield Path(name)
    finally:
        if made:
            # Not empty where the site is there.
            with suppress(OSError):
                folder.rmdir()


def _tidy(folder: Path) -> None:
    """Take away what builds that were killed have left; one that is writing just now keeps its own."""
    from filelock import FileLock, Timeout

    for left in folder.glob(f"{_UNFINISHED}*"):
        if left.is_symlink() or not (left / _ALIVE).is_file():
            continue
        try:
            with FileLock(left / _ALIVE, timeout=0):
                pass
        except Timeout:
            continue
        shutil.rmtree(left, ignore_errors=True)


def put(new: Path, folder: Path) -> None:
    """Move the site that `unfinished` has given into its folder; on an error both are as they were.

    The old pages stand aside, to be deleted with `new`, until all that is new is there.
    """
    pages, aside = folder / PAGES, new / "replaced"
    if pages.exists():
        pages.rename(aside)
    try:
        (new / PAGES).rename(pages)
        # The table last: it leads to pages that are there.
        os.replace(new / INDEX, folder / INDEX)
    except BaseException:
        if not (new / PAGES).exists():
            pages.rename(new / PAGES)
        if aside.exists():
            aside.rename(pages)
        raise
