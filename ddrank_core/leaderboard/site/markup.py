"""Text of strangers as HTML, and the shell that every page stands in."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import urlsplit

import attrs


@attrs.frozen(kw_only=True)
class Shell:
    """What a page puts into `page.html`; everything but `title` is markup of our own."""

    title: str
    heading: str
    target: str
    """What the skip link leads to, in a word."""
    main: str
    styles: tuple[str, ...] = ()
    """Sources that stand in the page."""
    sheet: str | None = None
    """The path of a style sheet that pages share."""
    scripts: tuple[str, ...]
    """Sources that run, in this order; each is allowed by its digest and nothing else is."""
    data: str | None = None
    """JSON, as `embedded` makes it."""


def text(value: object) -> str:
    """Return a value as text that no browser takes for markup, in an attribute neither.

    >>> text('<b onclick="x">')
    '&lt;b onclick=&quot;x&quot;&gt;'
    """
    return html.escape(readable(str(value)))


def readable(words: str) -> str:
    """Return the text with a mark for each character that shows nothing, as one that turns a line around."""
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in words)


def link(address: str | None, words: str) -> str:
    """Return a link to a web address; any other address, and one that has no host, stays text.

    >>> link("javascript:alert(1)", "paper")
    'javascript:alert(1)'
    """
    if address is None:
        return ""
    try:
        parts = urlsplit(address)
    except ValueError:
        return text(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return text(address)
    return f'<a href="{text(address)}" rel="noopener noreferrer nofollow">{text(words)}</a>'


def embedded(values: Any) -> str:
    """Return JSON that can stand in a script element: no `<` ends it, no line separator breaks it."""
    made = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return made.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def asset(name: str) -> str:
    """Return a file that the package brings."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def page(shell: Shell) -> str:
    """Return a whole page, with a policy that lets it run and ask for nothing but what stands in it."""
    data = f'<script type="application/json" id="data">{shell.data}</script>\n' if shell.data else ""
    return Template(asset("page.html")).substitute(
        policy=_policy(shell),
        title=text(shell.title),
        heading=shell.heading,
        target=shell.target,
        styles="\n".join(_styles(shell)),
        main=shell.main,
        data=data,
        scripts="\n".join(f"<script>{script}</script>" for script in shell.scripts),
    )


def _styles(shell: Shell) -> Iterator[str]:
    yield from (f"<style>{style}</style>" for style in shell.styles)
    if shell.sheet:
        yield f'<link rel="stylesheet" href="{text(shell.sheet)}">'


def _policy(shell: Shell) -> str:
    # Browsers differ in whether a page that is opened from a file has a 'self' to be the same as.
    own = "'self' file:"
    sheet = (own,) if shell.sheet else ()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(_digests(shell.scripts))}",
            f"style-src {' '.join((*_digests(shell.styles), *sheet))}",
            f"img-src {own} data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digests(sources: Sequence[str]) -> Iterator[str]:
    for source in sources:
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        yield f"'sha256-{digest}'"
