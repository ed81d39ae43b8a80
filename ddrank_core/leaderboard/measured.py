"""Read a record as a stranger may have written it: only what a board shows, each value checked."""

from __future__ import annotations

import hashlib
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

MAX_BYTES = 16 << 20
"""Of a record: one of 10,000 trials has 4 MB, and read it takes up to 30 times as much."""
MAX_REPEATS = 100
"""Of an evaluation; published ones have 3 to 10."""
MAX_CHARACTERS = 300
"""Of a text that a board shows, one line."""

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
        value = json.loads(raw, parse_constant=_refuse, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not strict JSON") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: is not a JSON object")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice, and readers differ in which one counts")
    return values


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


def take_line(values: Any, field: str, where: str) -> str:
    """Return the text at a dotted field, which must be one short line.

    Raises:
        DataError: one line that names the file and the field.
    """
    return line(take(values, field, str, where), f"{where}: {field}")


def line(text: str, where: str) -> str:
    """Return a text that must be one short line; `where` names the file and the field.

    Raises:
        DataError: one line.
    """
    if not short(text, where).isprintable():
        raise DataError(f"{where}: holds a line break, or a control or invisible character")
    return text


def short(text: str, where: str, most: int = MAX_CHARACTERS) -> str:
    """Return a text that must not be long, whatever it holds.

    Raises:
        DataError: one line.
    """
    if len(text) > most:
        raise DataError(f"{where}: {len(text)} characters, of which at most {most} are shown")
    return text


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
        device=take_line(record, "device", where),
        protocol=", ".join([_protocol(record, where), *_conditions(record, where)]),
        ddrank=take_line(record, "versions.ddrank", where),
        seeds=_seeds(record, max(map(len, accuracies.values())), where),
        data=_real_data(record, where),
        full_recipe=_full_recipe(record, where),
    )


def _protocol(record: Mapping[str, Any], where: str) -> str:
    version = take_line(record, "protocol.version", where)
    return f"{take_line(record, 'config.protocol.use', where)} {version}"


def _conditions(record: Mapping[str, Any], where: str) -> list[str]:
    """Return what else scores hang on that are compared, where it is not the usual."""
    config = take(record, "config", dict, where)
    found = []
    if take(config, "full_data", dict, where).get("accuracy") is not None:
        quoted = 100 * take(config, "full_data.accuracy", float, where)
        found.append(f"full data quoted at {quoted:.4g} %")
    if config.get("whitening") is not None:
        found.append(f"whitening with eps {take(config, 'whitening.eps', float, where):g}")
    precision = take_line(config, "precision", where)
    return found if precision == "fp32" else [*found, precision]


def _full_recipe(record: Mapping[str, Any], where: str) -> str:
    """Return a digest of how the networks on the full data were trained; empty where they were not."""
    full = take(record, "config.full_data", dict, where)
    recipe = json.dumps(full.get("recipe"), sort_keys=True).encode()
    return "" if full.get("accuracy") is not None else hashlib.sha256(recipe).hexdigest()


def _real_data(record: Mapping[str, Any], where: str) -> str:
    """Return one digest for the real images and labels, of train and test."""
    parts = [take(record, f"data.dataset.{part}_sha256", str, where) for part in ("train", "test")]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


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
