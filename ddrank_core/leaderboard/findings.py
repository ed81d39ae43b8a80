"""What a check says: one clean line each, and refusals that become findings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ddrank_core.errors import DDRankError
from ddrank_core.leaderboard.types import Finding, Level

MAX_CHARACTERS = 600


class Findings:
    """The findings so far, in the order in which they were made."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def note(self, level: Level, check: str, text: str, picture: str | None = None) -> None:
        """Add one; its text, which may hold what a stranger wrote, becomes one printable line."""
        line = "".join(character for character in " ".join(text.split()) if character.isprintable())
        if len(line) > MAX_CHARACTERS:
            line = f"{line[: MAX_CHARACTERS - 3]}..."
        self.all.append(Finding(level=level, check=check, text=line, picture=picture))

    @contextmanager
    def refusing(self, check: str) -> Iterator[None]:
        """Turn what is refused inside into an error of that check."""
        try:
            yield
        except DDRankError as error:
            self.note("error", check, str(error))
        except RecursionError:
            self.note("error", check, "a file is nested too deeply")


def listed(items: list[str], most: int = 5) -> str:
    """Return some items with commas, and how many there are besides.

    >>> listed(["1", "2", "3"], 2)
    '1, 2 and 1 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}"
