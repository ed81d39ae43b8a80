"""Write the site: every page or none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import attrs

from ddrank_core.errors import DataError
from ddrank_core.leaderboard.rank import oversized
from ddrank_core.leaderboard.site import pictures
from ddrank_core.leaderboard.site.folder import INDEX, LIST, PAGES, check_target, listing, put, unfinished
from ddrank_core.leaderboard.site.markup import Shell, asset, embedded, page
from ddrank_core.leaderboard.site.rows import board, in_order, page_of
from ddrank_core.leaderboard.site.submission import Picture, submission_main
from ddrank_core.leaderboard.types import Entry, Submission

SCRIPTS = ("scores", "order", "chart", "rows", "detail", "table", "stability", "board")
# No submission's name starts like it. Not with an underscore: GitHub's Jekyll leaves such files out.
SHEET = "~page.css"
"""In the folder of pages: the style that they share."""

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
    try:
        check_target(folder)
        with unfinished(folder) as new:
            built = _write_all(in_order(entries), new)
            put(new, folder)
    except OSError as error:
        raise DataError(f"{folder}: the site cannot be written: {error.strerror or error}") from error
    return built


def _write_all(entries: Sequence[Entry], folder: Path) -> Built:
    kept: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    written: dict[str, int] = {}

    def write(name: str, content: bytes) -> None:
        written[name] = _write(folder / name, content)

    write(f"{PAGES}/{SHEET}", (asset("site.css") + asset("submission.css")).encode())
    places: set[str] = set()
    for slug, group in _by_slug(entries):
        try:
            _check_slug(slug, places)
            _check_sizes(group)
            files = list(_submission_files(group))
        except DataError as error:
            left_out.append((slug, str(error)))
            continue
        kept += group
        for name, content in files:
            write(name, content)
    if not kept:
        reasons = "; ".join(f"{slug}: {why}" for slug, why in left_out) or "there is none"
        raise DataError(f"no submission can be shown: {reasons}")
    write(f"{PAGES}/{LIST}", listing(name.removeprefix(f"{PAGES}/") for name in written))
    write(INDEX, index(in_order(kept)).encode())
    return Built(
        submissions=len({entry.submission.slug for entry in kept}),
        rows=len(kept),
        bytes=sum(written.values()),
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
        sheet=f"../{SHEET}",
        scripts=(asset("page.js"),),
    )
    yield page_of(about.slug), page(shell).encode()


def _pictures(about: Submission, entries: Iterable[Entry]) -> Iterator[tuple[Picture, bytes]]:
    """Yield the pictures of a submission under names of our own."""
    found = pictures.images_of(about)
    if found is not None:
        images, drawn = found
        yield Picture(name="images.png", shows=None, drawn=drawn, size=pictures.size(images)), images
    named = {f.picture: None for entry in entries for f in entry.findings if f.picture is not None}
    for number, original in enumerate(named, start=1):
        content = pictures.read(about.folder, original)
        yield Picture(name=f"finding-{number}.png", shows=original, size=pictures.size(content)), content


def _check_sizes(entries: Iterable[Entry]) -> None:
    if why := next(filter(None, map(oversized, entries)), None):
        raise DataError(why)


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
