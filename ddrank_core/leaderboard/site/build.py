"""Write the site: every page or none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import attrs

from ddrank_core.errors import DataError
from ddrank_core.leaderboard.site import pictures
from ddrank_core.leaderboard.site.markup import Shell, asset, embedded, page
from ddrank_core.leaderboard.site.rows import board, in_order, page_of
from ddrank_core.leaderboard.site.submission import Picture, submission_main
from ddrank_core.leaderboard.types import Entry, Submission
from ddrank_core.report.folder import staging

INDEX, PAGES = "index.html", "submissions"
SCRIPTS = ("scores", "chart", "rows", "detail", "board")
MARK = '<meta name="generator" content="ddrank leaderboard">'
"""By which a folder is known to hold a site that may be replaced."""

# Ends in a digit: the folder of one submission's pictures is then never another one's page.
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*-ipc[0-9]+")


@attrs.frozen(kw_only=True)
class Built:
    """What was written."""

    submissions: int
    rows: int
    bytes: int
    """Of all files together."""
    left_out: tuple[tuple[str, str], ...]
    """(slug, why) of each submission that cannot be shown."""


def build(entries: Sequence[Entry], folder: Path) -> Built:
    """Write the site into a folder, over a site that is there, and leave other files of the folder alone.

    Raises:
        DataError: one line, if nothing can be shown or the folder cannot be written; it is then as it was.
    """
    _check_target(folder)
    try:
        with staging(folder) as unfinished:
            built = _write_all(in_order(entries), unfinished)
            # The table last: it leads to pages that are there.
            if (folder / PAGES).exists():
                shutil.rmtree(folder / PAGES)
            os.replace(unfinished / PAGES, folder / PAGES)
            os.replace(unfinished / INDEX, folder / INDEX)
    except OSError as error:
        raise DataError(f"{folder}: the site cannot be written: {error.strerror or error}") from error
    return built


def _write_all(entries: Sequence[Entry], folder: Path) -> Built:
    kept: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    # No slug starts with an underscore.
    written = _write(folder / PAGES / "_page.css", (asset("site.css") + asset("submission.css")).encode())
    places: set[str] = set()
    for slug, group in _by_slug(entries):
        try:
            _check_slug(slug, places)
            files = list(_submission_files(group))
        except DataError as error:
            left_out.append((slug, str(error)))
            continue
        kept += group
        written += sum(_write(folder / name, content) for name, content in files)
    if not kept:
        raise DataError(
            f"no submission can be shown: {'; '.join(why for _, why in left_out) or 'there is none'}"
        )
    written += _write(folder / INDEX, index(in_order(kept)).encode())
    return Built(
        submissions=len({entry.submission.slug for entry in kept}),
        rows=len(kept),
        bytes=written,
        left_out=tuple(left_out),
    )


def _by_slug(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    def slug(entry: Entry) -> str:
        return entry.submission.slug

    for name, group in groupby(sorted(entries, key=slug), key=slug):
        yield name, list(group)


def index(entries: Sequence[Entry]) -> str:
    """Return the table's page: everything that it shows or computes with stands in it."""
    return page(
        Shell(
            title="DD-Ranking leaderboard",
            heading="<h1>DD-Ranking</h1>",
            target="table",
            main=asset("board.html"),
            styles=(asset("site.css"), asset("board.css")),
            scripts=(asset("page.js"), _library(), *(asset(f"{name}.js") for name in SCRIPTS)),
            data=embedded(board(entries)),
        )
    )


def _submission_files(entries: Sequence[Entry]) -> Iterator[tuple[str, bytes]]:
    about = entries[0].submission
    taken = list(_pictures(about, entries))
    folder = f"{PAGES}/{about.slug}"
    for picture, content in taken:
        yield f"{folder}/{picture.name}", content
    shell = Shell(
        title=f"{about.method} on {about.dataset}, IPC {about.ipc}",
        heading='<p class="site"><a href="../../index.html">DD-Ranking</a></p>',
        target="submission",
        main=submission_main(entries, tuple(picture for picture, _ in taken)),
        sheet="../_page.css",
        scripts=(asset("page.js"),),
    )
    yield page_of(about.slug), page(shell).encode()


def _pictures(about: Submission, entries: Iterable[Entry]) -> Iterator[tuple[Picture, bytes]]:
    """Yield the pictures of a submission under names of our own."""
    images = pictures.images_of(about)
    if images is not None:
        yield Picture(name="images.png", shows=None, size=pictures.size(images)), images
    named = {f.picture: None for entry in entries for f in entry.findings if f.picture is not None}
    for number, original in enumerate(named, start=1):
        content = pictures.read(about.folder, original)
        yield Picture(name=f"finding-{number}.png", shows=original, size=pictures.size(content)), content


def _library() -> str:
    """Return the chart library as it was published, less the pointer to a file that the site lacks."""
    return re.sub(r"\n//# sourceMappingURL=.*", "", asset("chart.umd.min.js"))


def _write(path: Path, content: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return len(content)


def _check_slug(slug: str, places: set[str]) -> None:
    """Refuse a slug that is no safe path, and one that a file system without case puts where another is."""
    if not _SLUG.fullmatch(slug):
        raise DataError(f"{slug}: must be <method>/<data set>-ipc<n>, of letters, digits and . _ - only")
    if slug.lower() in places:
        raise DataError(f"{slug}: another submission's name differs in case only; rename one of them")
    places.add(slug.lower())


def _check_target(folder: Path) -> None:
    """Refuse a folder with an index page or submissions that this command has not written."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder for the site")
    if not any((folder / name).exists() for name in (INDEX, PAGES)):
        return
    try:
        head = (folder / INDEX).read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError:
        head = ""
    if MARK not in head:
        raise DataError(f"{folder}: holds {INDEX} or {PAGES} that are no leaderboard; choose another folder")
