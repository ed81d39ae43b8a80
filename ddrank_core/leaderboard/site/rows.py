"""Entries as the JSON that the table's script reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddrank_core.leaderboard.site.markup import readable
from ddrank_core.leaderboard.types import TRACKS, Entry, Measured

CONTROLS = ("noise", "random", "herding", "k-means")
"""The ladder that a method is compared with, from the bottom up; others follow by name."""


def board(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return everything that the table shows or computes with, as JSON values.

    `t975[n]` is the t quantile that makes a 95 % interval of n repeats.
    """
    repeats = max((len(values) for entry in entries for values in entry.measured.arms.values()), default=0)
    return {"t975": _quantiles(repeats), "rows": [_readable(_row(entry)) for entry in entries]}


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries in an order of their own, so that the same submissions make the same bytes."""
    return sorted(
        entries,
        key=lambda e: (
            e.submission.dataset,
            e.submission.ipc,
            TRACKS.index(e.track),
            e.student,
            e.measured.protocol,
            e.submission.slug,
            "" if e.variant is None else f"{e.variant.axis} {e.variant.name}",
        ),
    )


def controls_in_order(controls: Mapping[str, Measured]) -> list[tuple[str, Measured]]:
    """Return the controls from the bottom of the ladder up."""
    known = [name for name in CONTROLS if name in controls]
    names = [*known, *sorted(controls.keys() - set(known))]
    return [(name, controls[name]) for name in names]


def page_of(slug: str) -> str:
    """Return the path of a submission's page from the site's root, with slashes."""
    return f"submissions/{slug}.html"


def _row(entry: Entry) -> dict[str, Any]:
    about, measured = entry.submission, entry.measured
    cost = about.cost
    return {
        "slug": about.slug,
        "page": page_of(about.slug),
        "method": about.method,
        "dataset": about.dataset,
        "ipc": about.ipc,
        "track": entry.track,
        "student": entry.student,
        "labels": entry.labels,
        "augmentation": entry.augmentation,
        "saw": list(about.saw),
        "teacher": about.teacher,
        "cost": None if cost is None else [cost.gpu_hours, cost.device],
        "claimed": [[claim.accuracy, claim.source, claim.student] for claim in about.claimed],
        "bytes": [entry.image_bytes, entry.label_bytes, entry.teacher_bytes],
        "arms": _arms(measured),
        "seeds": _seeds(measured),
        "controls": [
            [name, _new(_arms(control), _arms(measured)), _seeds(control)]
            for name, control in controls_in_order(entry.controls)
        ],
        "variant": None if entry.variant is None else [entry.variant.axis, entry.variant.name],
        "findings": [[finding.level, finding.check, finding.text] for finding in entry.findings],
        "protocol": measured.protocol,
        "device": measured.device,
        "ddrank": measured.ddrank,
    }


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return readable(value) if isinstance(value, str) else value


def _arms(measured: Measured) -> dict[str, list[float | None]]:
    return {name: list(values) for name, values in measured.arms.items()}


def _seeds(measured: Measured) -> list[str]:
    """Return the seeds as text: a script's numbers hold 53 bits."""
    return [str(seed) for seed in measured.seeds]


def _new(arms: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arms of a control that are not the row's own, None for one that it lacks.

    The others are the same trials.
    """
    lacking: dict[str, Any] = dict.fromkeys(shared.keys() - arms.keys())
    return lacking | {name: values for name, values in arms.items() if values != shared.get(name)}


def _quantiles(repeats: int) -> list[float | None]:
    from scipy.special import stdtrit

    return [None, None, *(float(stdtrit(n - 1, 0.975)) for n in range(2, repeats + 1))]
