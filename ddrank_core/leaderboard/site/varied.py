"""Rank on data augmentation, rank on label strategy: one distilled set under each, as tables of its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ddrank_core.leaderboard.rank import By, Row, Table, tables
from ddrank_core.leaderboard.site.figures import percent, recipe_accuracy
from ddrank_core.leaderboard.site.markup import text
from ddrank_core.leaderboard.types import Entry
from ddrank_core.report.arms import SCORES

TRACK_WORDS = {"own": "Own recipe", "fixed": "Fixed recipe"}
AXIS_WORDS: dict[str, tuple[str, str]] = {
    "augmentation": ("Data augmentation", "Augmentation"),
    "labels": ("Label strategy", "Labels"),
}
"""Axis -> what is ranked on, and the column that names it."""


def varied(entries: Sequence[Entry]) -> str:
    """Return the tables that rank a submission's variants, nothing where it has none."""
    if not any(entry.variant for entry in entries):
        return ""
    by_score: dict[By, list[Table]] = {
        by: [table for table in tables(entries, by) if table.key.axis] for by in ("lrs", "ars")
    }
    chosen = [
        lrs if lrs.rows or not ars.rows else ars
        for lrs, ars in zip(by_score["lrs"], by_score["ars"], strict=True)
    ]
    return "\n".join(map(_section, chosen))


def _section(table: Table) -> str:
    axis = table.key.axis
    words, column = AXIS_WORDS[axis]
    about = f"{TRACK_WORDS[table.key.track]}, {table.key.student}"
    score = SCORES[table.by].title
    head = "".join(
        f'<th scope="col"{kind}>{name}</th>'
        for name, kind in (
            ("Rank", ""),
            (column, ""),
            (score, ' class="number"'),
            ("Accuracy", ' class="number"'),
        )
    )
    return (
        f"<section><h2>Rank on {words.lower()}</h2>\n"
        f'<p class="note">{text(about)}: the same distilled set under each, by {score}. Behind a rank '
        "stands its 95 % interval; = is a tie. "
        f'<a href="../../index.html#{axis}">With other weights, beside other sets</a></p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Rank on {words.lower()}, {text(about)}">'
        f'<table class="varied"><caption class="unseen">Rank on {words.lower()}, {text(about)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(_rows(table))}</tbody></table></div></section>"
    )


def _rows(table: Table) -> Iterator[str]:
    reach = [row.mean + side * (row.ci95 or 0) for row in table.rows for side in (-1, 1)]
    for row in table.rows:
        rank = f"{row.rank}{'=' if row.tied else ''}"
        interval = f"{row.lowest}" if row.lowest == row.highest else f"{row.lowest}–{row.highest}"
        yield _row(
            f"{rank}<small>{interval}</small>",
            _name(row.entry, table.key.axis),
            f"{_score(row, table.by)}{_marks(row, min(reach), max(reach))}",
            row.entry,
        )
    for entry, why in table.unranked:
        yield _row("–", _name(entry, table.key.axis), text(why), entry)


def _row(rank: str, name: str, score: str, entry: Entry) -> str:
    accuracy = percent(*recipe_accuracy(entry.measured))
    return (
        f'<tr><td>{rank}</td><th scope="row">{text(name)}</th>'
        f'<td class="number">{score}</td><td class="number">{accuracy}</td></tr>'
    )


def _name(entry: Entry, axis: str) -> str:
    if entry.variant is not None:
        return entry.variant.name
    return f"as submitted: {entry.labels if axis == 'labels' else entry.augmentation}"


def _score(row: Row, by: By) -> str:
    words = SCORES[by]
    half = "" if row.ci95 is None else f" ± {words.number(row.ci95)}"
    return f"{words.number(row.mean)}{half}"


def _marks(row: Row, low: float, high: float) -> str:
    """Draw the mean and its interval on the table's scale."""

    def at(value: float) -> str:
        return f"{4 + 92 * (value - low) / (high - low or 1):.2f}%"

    half = row.ci95 or 0
    return (
        '<svg class="interval" height="10" aria-hidden="true">'
        f'<line x1="{at(row.mean - half)}" x2="{at(row.mean + half)}" y1="5" y2="5"/>'
        f'<circle cx="{at(row.mean)}" cy="5" r="3.5"/></svg>'
    )
