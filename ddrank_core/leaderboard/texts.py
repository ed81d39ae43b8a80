"""What is wrong with a text that a stranger wrote and a board shows: a function for each kind.

Each takes the text and returns what is wrong with it, or None, as the `check` of a parameter does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

MAX_MARKS = 2
"""In a row on one letter; Vietnamese, Thai and Devanagari need two, and a pile of them hides other rows."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]{1,500}")
_UNSEEN = re.compile(
    # Letters and marks that are drawn as nothing, though Python counts them as printable: Hangul fillers,
    # the empty Braille cell, joiners, inherent vowels of Khmer, variation selectors. With them, one name
    # looks like another or like none.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159\U000e0100-\U000e01ef]"
)


def short_line(most: int) -> Callable[[str], str | None]:
    """Return what says why a text is no line of words of at most so many characters."""

    def fault(text: str) -> str | None:
        if not text.strip():
            return "must not be empty"
        if len(text) > most:
            return f"{len(text)} characters, of which at most {most} are shown"
        # Controls of the writing direction are not printable either.
        if not text.isprintable() or _UNSEEN.search(text):
            return "holds a line break, or a control or invisible character"
        plain = unicodedata.normalize("NFKC", text).strip()
        if "<" in plain or ">" in plain:
            return "holds < or >, which looks like markup; write it in words"
        if plain.startswith(("=", "+", "-", "@")):
            return f"starts with {plain[0]}, which a spreadsheet takes for a formula"
        if not any(map(str.isalnum, plain)):
            return "holds no letter and no digit"
        if _marks_in_a_row(text) > MAX_MARKS:
            return f"more than {MAX_MARKS} marks above or below one letter"
        return None

    return fault


def _marks_in_a_row(text: str) -> int:
    most = count = 0
    for character in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(character)
        # Vowel signs that stand beside their letter, Mc, neither pile up nor end a pile.
        if kind != "Mc":
            count = count + 1 if kind in ("Mn", "Me") else 0
        most = max(most, count)
    return most


def lines(values: Sequence[str]) -> str | None:
    """Return what is wrong with a list of names."""
    if not 1 <= len(values) <= 100:
        return f"must name 1 to 100, got {len(values)}"
    faults = ((index, short_line(100)(value)) for index, value in enumerate(values))
    return next((f"number {index + 1} {problem}" for index, problem in faults if problem), None)


def address(text: str) -> str | None:
    """Return what is wrong with a link."""
    if not text.startswith("https://"):
        return "must start with https://"
    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and parts.username is None and bool(_URL.fullmatch(text))
    except ValueError:
        whole = False
    return None if whole else "is not an address of at most 500 characters"


def name(text: str) -> str | None:
    """Return what is wrong with a name that folders have too."""
    whole = _NAME.fullmatch(text)
    return None if whole else "must be letters, digits, '.', '_' and '-' (at most 100)"


def sha256(text: str) -> str | None:
    """Return what is wrong with a digest."""
    return None if _DIGEST.fullmatch(text) else "must be a SHA-256: 64 digits, 0 to 9 and a to f"


def once(values: Sequence[str]) -> str | None:
    """Return whether a list names something twice."""
    return None if len(set(values)) == len(values) else "the same stands twice"


def few(values: Sequence[object]) -> str | None:
    """Return whether a list is too long to be shown."""
    return None if len(values) <= 20 else f"{len(values)}, of which at most 20 are shown"
