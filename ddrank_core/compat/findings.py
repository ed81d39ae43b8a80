"""What became of one key of an old config: kept, changed, or without effect in the first place."""

from __future__ import annotations

from typing import Any, Literal

import attrs

Verdict = Literal["kept", "no effect", "wrong", "left out"]
"""`kept`: means the same here. `no effect`: ddranking does not use it, or it has no meaning here.
`wrong`: ddranking does something else than the key says, or stops. `left out`: cannot be said here."""

Kind = Literal["hard", "soft", "augmentation", "general"]
"""Which of ddranking's evaluators a config is for."""

Release = Literal["first", "0.1", "0.2"]
"""Whose meaning of the keys holds: the first release's, 0.1's or 0.2's."""


@attrs.frozen
class Finding:
    """One line of the report that a conversion gives."""

    key: str
    verdict: Verdict
    text: str
    place: str | None = None
    """The top-level field of the new config that it is about; None where there is none."""


@attrs.frozen
class Translation:
    """An old config in the words of ours: plain values, and what was found on the way."""

    kind: Kind
    release: Release
    values: dict[str, Any]
    """A run config without `distilled.path`, as YAML would give it."""
    findings: tuple[Finding, ...]
    save_path: str
    """Where ddranking writes its CSV."""
