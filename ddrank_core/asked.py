"""How trials are to be trained, where the user says it."""

from __future__ import annotations

from typing import Literal

import attrs

Compile = Literal["auto", "on", "off"]


@attrs.frozen(kw_only=True)
class Asked:
    """None leaves it to the device; nothing here changes more than the order of sums."""

    workers: int | None = None
    """Processes that train side by side."""
    cohort: int | None = None
    """Trials that one process trains as one computation."""
    compile: Compile = "auto"
    """Whether students that are trained alone on a CPU are compiled, and cohorts captured on a GPU."""
