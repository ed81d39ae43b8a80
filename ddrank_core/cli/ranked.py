"""Rank tables as text for a terminal of 100 columns, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import attrs

from ddrank_core.cli.text import clean, table
from ddrank_core.errors import ConfigError
from ddrank_core.leaderboard.entries import Board
from ddrank_core.leaderboard.rank import SYMBOLS, Agreement, Key, Row, Table, identity, oversized
from ddrank_core.leaderboard.types import Entry
from ddrank_core.report.arms import SCORES
from ddrank_core.report.console import encodable
from ddrank_core.report.folder import staging, sync
from ddrank_core.report.record import strict_json
from ddrank_core.report.tables import cell

COLUMNS = 100
_METHOD, _PLACE = 21, 12
"""Characters of a name in a table, and of the folder in it where two have one name."""
_BYTES = ("image_bytes", "label_bytes", "teacher_bytes")
_AXES = {"augmentation": "augmentation", "labels": "label mapping"}

CSV_FIELDS = (
    *("dataset", "ipc", "track", "student", "protocol", "of", "axis", "by", "weight"),
    *("rank", "tied", "place", "lowest", "highest", "slug", "method", "variant", "mean", "ci95", "repeats"),
    *("accuracy", "claimed", "full_given", "controls", "beats", "labels", "augmentation"),
    *(*_BYTES, "accuracy_per_byte", "gpu_hours", "device"),
    *("reason", "command"),
)
"""Scores and accuracies are fractions. A row without rank says why in `reason`."""


# -- text --------------------------------------------------------------------------------------


def as_text(found: Table, encoding: str) -> str:
    """Return a table, and below it what its order rests on, ending in a newline."""
    words = SCORES[found.by].title
    kind = _AXES[found.key.axis] if found.key.axis else "method"
    header = (
        "rank",
        "95 %",
        kind,
        f"{words} ± 95% CI",
        "acc %",
        "claimed",
        "beats",
        "bytes",
        "%/KiB",
        "GPU h",
    )
    names = _names(found)
    rows = [_cells(row, names[identity(row.entry)]) for row in found.rows]
    undefined = [(names[identity(entry)], reason) for entry, reason in found.unranked]
    rows += [("-", "-", name, "undefined") for name, _ in undefined]
    lines = [_title(found), _short(f"student {found.key.student}", COLUMNS), ""]
    lines.append(table([header, *((*row, *("",) * (len(header) - len(row))) for row in rows)]))
    below = [f"{name}: undefined: {reason}" for name, reason in undefined] + list(_stability(found))
    lines += ["", *map(_wrapped, below)] if below else []
    return encodable("\n".join(lines) + "\n", encoding)


def _title(found: Table) -> str:
    what = f"{_place(found.key)}, protocol {found.key.protocol}: by {SCORES[found.by].title}"
    under = f"{found.key.of} under each {_AXES[found.key.axis]}; " if found.key.axis else ""
    return _wrapped(f"{under}{what}, {SYMBOLS[found.by]} = {found.weight:g}")


def _place(key: Key) -> str:
    return f"{key.dataset}, IPC {key.ipc}, track {key.track}"


def _cells(row: Row, name: str) -> tuple[str, ...]:
    about, words = row.entry.submission, SCORES["lrs"]
    given = "*" if row.entry.measured.full_given else ""
    spread = "" if row.ci95 is None else f" ± {words.number(row.ci95)}"
    claim = _claim(row.entry)
    claimed = "-" if claim is None else f"{100 * claim:.2f}"
    per_kib = row.accuracy_per_byte
    return (
        f"{row.rank}{'=' if row.tied else ''}",
        f"{row.lowest}-{row.highest}",
        f"{name}{given}",
        f"{words.number(row.mean)}{spread}",
        "-" if row.accuracy is None else f"{100 * row.accuracy:.2f}",
        claimed,
        f"{len(row.beats)} of {len(row.entry.controls)}" if row.entry.controls else "-",
        _size(row.bytes),
        "-" if per_kib is None else f"{100 * 1024 * per_kib:.3g}",
        "-" if about.cost is None else f"{about.cost.gpu_hours:.4g}",
    )


def _names(found: Table) -> dict[str, str]:
    """Return what each row is called, by its identity: with its folder where a name stands there twice."""
    entries = [*(row.entry for row in found.rows), *(entry for entry, _ in found.unranked)]
    names = {identity(entry): _short(_name(entry, found.key), _METHOD) for entry in entries}
    often = Counter(names.values())
    return {
        identity(entry): _with_folder(name, entry) if often[name] > 1 else name
        for entry, name in zip(entries, names.values(), strict=True)
    }


def _with_folder(name: str, entry: Entry) -> str:
    folder = entry.submission.slug.partition("/")[0]
    place = folder if entry.variant is None else f"{folder}, {entry.variant.name}"
    # Both ends: folders of one method differ in a number or a word at either.
    kept = place if len(place) <= _PLACE else f"{place[: _PLACE // 2]}…{place[1 - _PLACE // 2 :]}"
    return f"{_short(name, _METHOD - len(kept) - 3)} ({kept})"


def _claim(entry: Entry) -> float | None:
    """Return the first accuracy that is claimed: of the method, and not of what a variant of it reaches."""
    claimed = entry.submission.claimed
    return claimed[0].accuracy if claimed and entry.variant is None else None


def _name(entry: Entry, key: Key) -> str:
    """Return what a row is called: by its method, or in a table of variants by what varies."""
    if not key.axis:
        return entry.submission.method
    if entry.variant is not None:
        return entry.variant.name
    return f"{entry.labels if key.axis == 'labels' else entry.augmentation} (own)"


def _size(count: int) -> str:
    units = [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")]
    return next((f"{count / unit:.3g} {name}" for unit, name in units if count >= unit), f"{count} B")


def _short(text: str, width: int) -> str:
    text = clean(text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _wrapped(text: str) -> str:
    return fill(clean(text), COLUMNS, subsequent_indent="  ")


def _stability(found: Table) -> Iterator[str]:
    """Yield who is first at which weight, and how much of the order the weight changes."""
    if len(found.rows) < 2:
        return
    symbol, reigns = SYMBOLS[found.by], found.stability.reigns
    names = _names(found)
    spans = (f"{names[one.slug]} for {symbol} from {one.start:.3g} to {one.end:.3g}" for one in reigns)
    yield (
        f"first: {', '.join(spans)}"
        if len(reigns) > 1
        else f"first: {names[reigns[0].slug]} at every {symbol}"
    )
    taus = [(tau, at) for at, tau in found.stability.taus if tau is not None]
    if taus:
        (tau, at), ends = min(taus), (taus[0], taus[-1])
        shown = ", ".join(f"{tau:.2f} at {symbol} = {at:g}" for tau, at in ends)
        changes = f"{shown}; least {tau:.2f} at {symbol} = {at:g}"
        yield (
            "order: the same at every " + symbol
            if tau == 1
            else f"order: Kendall's tau to this one {changes}"
        )


def notes(found: Sequence[Table], compared: Sequence[Agreement], encoding: str) -> str:
    """Return what is to be said of all tables, ending in a newline."""
    lines = [_agreement(one) for one in compared]
    lines.append(
        "=: tied with the first of that rank; 95 %: of the rank, for all rows at once; beats: controls that "
        "are significantly worse; bytes: of images, labels and a teacher that is asked in training"
    )
    lines.append(
        "ties and beats compare these distilled sets: each is one set, and the control random one draw, so "
        "that nothing is said of a method over seeds of its own"
    )
    if any(row.entry.measured.full_given for one in found for row in one.rows):
        lines.append(
            "*: the full-data accuracy is given, not measured: no interval and no tie holds its error"
        )
    return encodable("\n".join(map(_wrapped, lines)) + "\n", encoding)


def _agreement(one: Agreement) -> str:
    changed = "track" if one.one.track != one.other.track else "student"
    places = f"{getattr(one.one, changed)} and {getattr(one.other, changed)}"
    tau = "no order to compare" if one.tau is None else f"Kendall's tau {one.tau:.2f}"
    what = f"{one.one.dataset}, IPC {one.one.ipc}"
    methods = f"{one.common} method{'' if one.common == 1 else 's'} in both"
    return f"{what}: order by {changed}, {places}: {tau}, {methods}"


# -- files -------------------------------------------------------------------------------------


def as_csv(found: Sequence[Table]) -> str:
    """Return one line per row of every table, safe to open in a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for one in found:
        for values in _records(one):
            flat = {name: "; ".join(v) if isinstance(v, list) else v for name, v in values.items()}
            writer.writerow([cell(flat.get(name)) for name in CSV_FIELDS])
    return text.getvalue()


def as_json(found: Sequence[Table], compared: Sequence[Agreement], board: Board) -> str:
    """Return all figures as strict JSON."""
    values = {
        "tables": [
            {
                **_table_record(one),
                "rows": list(_records(one, every_repeat=True)),
                "p_values": one.p_values,
                "stability": attrs.asdict(one.stability),
            }
            for one in found
        ],
        "agreements": [attrs.asdict(one) for one in compared],
        "problems": [attrs.asdict(problem) for problem in board.problems],
        "not_evaluated": board.waiting,
    }
    # ASCII only: lone surrogates of a stranger's text have no other encoding.
    return json.dumps(strict_json(values), indent=2, allow_nan=False) + "\n"


def _table_record(one: Table) -> dict[str, Any]:
    return {**attrs.asdict(one.key), "by": one.by, "weight": one.weight}


def _records(one: Table, every_repeat: bool = False) -> Iterator[dict[str, Any]]:
    for row in one.rows:
        yield {
            **_table_record(one),
            **{name: getattr(row, name) for name in ("rank", "tied", "place", "lowest", "highest")},
            **_about(row.entry),
            **{name: getattr(row, name) for name in ("mean", "ci95", "accuracy", "accuracy_per_byte")},
            "repeats": len(row.sample.values),
            "beats": list(row.beats),
            **(attrs.asdict(row.sample) if every_repeat else {}),
        }
    for entry, reason in one.unranked:
        yield {**_table_record(one), **_about(entry), "reason": reason}


def _about(entry: Entry) -> dict[str, Any]:
    about, cost = entry.submission, entry.submission.cost
    return {
        "slug": about.slug,
        "method": about.method,
        "variant": entry.variant.name if entry.variant else None,
        "claimed": _claim(entry),
        "full_given": entry.measured.full_given,
        "controls": list(entry.controls),
        "labels": entry.labels,
        "augmentation": entry.augmentation,
        # Python writes no number of more than 4300 digits.
        **{name: None if oversized(entry) else getattr(entry, name) for name in _BYTES},
        "command": entry.command,
        "gpu_hours": cost.gpu_hours if cost else None,
        "device": cost.device if cost else None,
    }


def write(path: Path | None, option: str, text: str) -> None:
    """Write a file whole or not at all; one that exists is replaced.

    Raises:
        ConfigError: one line, if it cannot be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path}: is a folder; name a file")
    try:
        with staging(path.parent) as unfinished:
            (unfinished / "rank").write_bytes(text.encode(errors="backslashreplace"))
            sync(unfinished / "rank")
            os.replace(unfinished / "rank", path)
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written: {error.strerror or error}") from error
