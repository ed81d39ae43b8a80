"""Plain text for terminals, pipes and logs."""

from __future__ import annotations

from collections.abc import Sequence


def clean(text: str) -> str:
    """Return the text as one line without control characters: names come from files of strangers.

    >>> clean("no such file: a\\x1b[31m\\nb")
    'no such file: a[31m b'
    """
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def table(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Return the rows as lines of aligned columns, two spaces apart; cells are cleaned.

    >>> table([["ce", "Cross-entropy"], ["mse_gt", "Squared error"]])
    'ce      Cross-entropy\\nmse_gt  Squared error'
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells)
    return "\n".join((indent + "  ".join(row)).rstrip() for row in padded)
