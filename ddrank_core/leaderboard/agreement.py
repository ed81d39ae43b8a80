"""Whether the records of a track agree on the trials that they share: one training has one result.

The method and its controls have the same full data and the same random images, trained in the same way, and a
variant has more in common with its method. Whoever edits such a trial must edit it everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.config import Teacher, Validation, Whitening
from ddrank_core.engine.plan import Arm, Training, asks_teachers, replays_views
from ddrank_core.leaderboard.findings import Findings
from ddrank_core.leaderboard.measured import take
from ddrank_core.leaderboard.planned import Planned
from ddrank_core.protocols import Architecture, Selection
from ddrank_core.structure import Chosen

_LIBRARIES = ("ddrank", "torch", "torchvision", "timm", "kornia", "numpy")
_MEASURED = ("accuracy", "validation_accuracy", "epoch", "diverged")
"""Of a trial: what its training determines."""


@attrs.frozen(kw_only=True)
class Evaluated:
    """A record, whose trials are those of its plan."""

    where: str
    record: Mapping[str, Any]
    planned: Planned


@attrs.frozen(kw_only=True)
class _Determinants:
    """Everything that determines an arm's trials but the machine and its libraries."""

    training: Training
    candidates: tuple[float, ...]
    student: Chosen[Architecture]
    protocol: Chosen[Selection]
    validation: Validation
    validation_share: float
    whitening: Whitening | None
    seeds: tuple[int, int]
    distilled: str | None
    views: Path | None
    teachers: tuple[Teacher, ...]


def check_agreement(evaluated: Sequence[Evaluated], check: str, findings: Findings) -> None:
    """Refuse records whose shared trials differ; warn where machines or libraries may be why."""
    for first, second in combinations(evaluated, 2):
        found = next(_differences(first, second), None)
        if found is None:
            continue
        differing, text = found
        other = _other(first.record, second.record) or differing
        if other is None:
            findings.note("error", check, f"{text}; evaluate both again")
        else:
            findings.note("warning", check, f"{text}; they were made with another {other}")


def _differences(first: Evaluated, second: Evaluated) -> Iterator[tuple[str | None, str]]:
    """Yield what differs between trials that are one: in how they were computed, and in words."""
    mine, theirs = dict(_determined(first)), dict(_determined(second))
    for name, determinants in theirs.items():
        twin = next((arm for arm, other in mine.items() if other == determinants), None)
        if twin is None:
            continue
        there = _trials(first.record, twin)
        for key, trial in _trials(second.record, name).items():
            before = there.get(key)
            if before is None or trial.get("error") is not None or before.get("error") is not None:
                continue
            for field in _MEASURED:
                found, expected = trial.get(field), before.get(field)
                if found != expected and found is not None and expected is not None:
                    how = None if trial.get("how") == before.get("how") else "way of computing"
                    yield how, _worded(first, second, name, key, field, found, expected)


def _worded(
    first: Evaluated, second: Evaluated, arm: str, key: tuple[Any, ...], field: str, found: Any, expected: Any
) -> str:
    _, repeat, rate = key
    return (
        f"{second.where}: trials: {arm}, repeat {repeat}, rate {rate:g}: {field}: {str(found)[:40]}, but the "
        f"same training has {str(expected)[:40]} in {first.where}"
    )


def _determined(evaluated: Evaluated) -> Iterator[tuple[str, _Determinants]]:
    config, plan = evaluated.planned.config, evaluated.planned.plan
    for arm in plan.trained:
        yield (
            arm.name,
            _Determinants(
                training=arm.training,
                candidates=arm.candidates,
                student=config.student,
                protocol=config.protocol,
                validation=config.validation,
                validation_share=plan.validation_share,
                whitening=config.whitening,
                seeds=(plan.seed, plan.subset_seed),
                distilled=_distilled(evaluated, arm),
                views=config.distilled.views if replays_views(arm.training) else None,
                teachers=config.teachers if asks_teachers(arm.training) else (),
            ),
        )


def _distilled(evaluated: Evaluated, arm: Arm) -> str | None:
    if arm.training.source != "distilled":
        return None
    return take(evaluated.record, "data.distilled.sha256", str, evaluated.where)


def _trials(record: Mapping[str, Any], arm: str) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    mine = (trial for trial in record["trials"] if trial["arm"] == arm)
    return {(trial["phase"], trial["repeat"], trial["learning_rate"]): trial for trial in mine}


# -- why they may differ -----------------------------------------------------------------------


def _other(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return what of the machine or its libraries was not the same, None if all of it was."""
    if one["device"] != other["device"]:
        return "device"
    versions = [each["versions"] for each in (one, other)]
    if library := next((name for name in _LIBRARIES if versions[0].get(name) != versions[1].get(name)), None):
        return f"version of {library}"
    weights = [
        [take(each, "digest", str, "teachers") for each in record["teachers"]] for record in (one, other)
    ]
    if weights[0] != weights[1]:
        return "teacher"
    mine, theirs = (_sources(each["components"]) for each in (one, other))
    common = (key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key])
    return next((f"source of {kind} {str(name)[:40]}" for kind, name in sorted(common)), None)


def _sources(components: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[Any, ...]]:
    told = ("distribution", "version", "source_digest")
    return {
        (str(each["kind"]), str(each["name"])): tuple(str(each.get(field)) for field in told)
        for each in components
    }
