"""Read a record as a stranger may have written it: only what a board shows, each value checked."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ddrank_core.config import SCORES, ScoreName
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.types import Measured
from ddrank_core.report.arms import ARMS

MAX_BYTES = 64 << 20
"""Of a record: one of 100,000 trials has 40 MB."""
MAX_REPEATS = 1000

_Value = TypeVar("_Value")
_WORDS: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    dict: "a mapping",
    list: "a list",
}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a plain file.

    Raises:
        DataError: one line, if it is missing, a link, too large, or no strict JSON object.
    """
    try:
        # A pipe would block, and a link lead out of the submission.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DataError(f"{path}: is not a plain file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no record is")
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not strict JSON") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: is not a JSON object")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def take(values: Any, field: str, cls: type[_Value], where: str) -> _Value:
    """Return the value at a dotted field, which must be of that type; a whole number is a number too.

    Raises:
        DataError: one line that names the file and the field.
    """
    for step in field.split("."):
        if not isinstance(values, Mapping) or step not in values:
            raise DataError(f"{where}: {field}: missing")
        values = values[step]
    return typed(values, cls, f"{where}: {field}")


def typed(value: Any, cls: type[_Value], where: str) -> _Value:
    """Return a value that must be of a type; `where` names the file and the field.

    Raises:
        DataError: one line.
    """
    if cls is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    # 1e999 is strict JSON, and infinite.
    if type(value) is not cls or (isinstance(value, float) and not math.isfinite(value)):
        raise DataError(f"{where}: must be {_WORDS[cls]}")
    return value


def measured(record: Mapping[str, Any], where: str) -> Measured:
    """Return what a run has measured, as its record says.

    Raises:
        DataError: one line that names the file and the field.
    """
    found = take(record, "arms", dict, where)
    arms = [name for name in ARMS if name in found]
    accuracies = {name: _numbers(found, f"{name}.accuracy.values", where) for name in arms}
    _check_accuracies(accuracies, where)
    return Measured(
        arms=accuracies,
        learning_rates={name: _numbers(found, f"{name}.learning_rates", where) for name in arms},
        full_given="full-hard" in arms and take(found, "full-hard", dict, where).get("source") is not None,
        scores=_scores(record, where),
        device=take(record, "device", str, where),
        protocol=" ".join(take(record, f"protocol.{field}", str, where) for field in ("name", "version")),
        ddrank=take(record, "versions.ddrank", str, where),
        seeds=_seeds(record, max(map(len, accuracies.values())), where),
    )


def _numbers(values: Mapping[str, Any], field: str, where: str) -> tuple[float | None, ...]:
    found = take(values, field, list, where)
    if len(found) > MAX_REPEATS:
        raise DataError(f"{where}: {field}: {len(found)} repeats, of which at most {MAX_REPEATS} are ranked")
    return tuple(None if value is None else typed(value, float, f"{where}: {field}") for value in found)


def _check_accuracies(arms: Mapping[str, tuple[float | None, ...]], where: str) -> None:
    if not arms:
        raise DataError(f"{where}: arms: holds none of {', '.join(ARMS)}")
    repeats = max(map(len, arms.values()))
    for name, values in arms.items():
        if len(values) != repeats or not repeats:
            raise DataError(f"{where}: arms.{name}: {len(values)} repeats, where another arm has {repeats}")
        if any(value is not None and not 0 <= value <= 1 for value in values):
            raise DataError(f"{where}: arms.{name}: an accuracy is not a fraction from 0 to 1")


def _scores(record: Mapping[str, Any], where: str) -> dict[ScoreName, tuple[float | None, float | None]]:
    found = take(record, "scores", dict, where)
    return {
        name: (_optional(found, name, "mean", where), _optional(found, name, "ci95", where))
        for name in SCORES
        if name in found
    }


def _optional(scores: Mapping[str, Any], name: str, field: str, where: str) -> float | None:
    value = take(scores, name, dict, f"{where}: scores").get(field)
    return None if value is None else typed(value, float, f"{where}: scores.{name}.{field}")


def _seeds(record: Mapping[str, Any], repeats: int, where: str) -> tuple[int, ...]:
    """Return each repeat's seed; none where a repeat has several, or two repeats share one."""
    seeds: dict[int, set[int]] = {repeat: set() for repeat in range(repeats)}
    for index, trial in enumerate(take(record, "trials", list, where)):
        field = f"{where}: trials[{index}]"
        seeds.setdefault(take(trial, "repeat", int, field), set()).add(take(trial, "seed", int, field))
    found = [seed for repeat in range(repeats) for seed in seeds[repeat]]
    one_each = all(len(seeds[repeat]) == 1 for repeat in range(repeats)) and len(set(found)) == repeats
    return tuple(found) if one_each else ()
