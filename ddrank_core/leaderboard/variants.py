"""Variants of a recipe: what may differ between two runs that are to show what one part of it does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any, cast

from ddrank_core.errors import ConfigError, DataError
from ddrank_core.leaderboard.measured import take, typed
from ddrank_core.leaderboard.types import Axis, Variant

_NAME = re.compile(r"(augmentation|labels|student)-([A-Za-z0-9][A-Za-z0-9._-]{0,39})")
_CONTESTANT = "method-"
_FREE = ("name", "scores", "dataset", "distilled.path")
"""Names and places: what is at them is compared by its digest."""
SHOWN: Mapping[Axis, tuple[str, ...]] = {
    "augmentation": ("recipe.augmentation",),
    "labels": ("recipe.labels", "recipe.loss"),
    "student": ("student", "full_data"),
}
"""Axis -> the fields of the config in which a variant differs."""
_WEIGHTS = "weights of teachers"
_ALSO: Mapping[Axis, tuple[str, ...]] = {
    "augmentation": (),
    "labels": ("distilled.views", "teachers", _WEIGHTS),
    "student": (),
}
"""Axis -> what may change with them."""
_TELLS: Mapping[Axis, tuple[str, ...]] = {**SHOWN, "student": ("student",)}
"""Axis -> what must differ: full data of its own make no other student."""


def changing(axis: Axis) -> Iterator[str]:
    """Yield the fields of the config that a variant may have of its own, dotted."""
    yield from SHOWN[axis]
    yield from (field for field in _ALSO[axis] if field != _WEIGHTS)


def named(text: str) -> Variant:
    """Return the variant that is called `<axis>-<name>`.

    Raises:
        ConfigError: one line.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--variant: '{text[:60]}' is not augmentation-NAME, labels-NAME or student-NAME, with letters, "
            "digits, '.', '_' and '-'"
        )
    return Variant(axis=cast("Axis", found[1]), name=found[2])


def contestant_of(variant: Variant) -> str:
    """Return the name of the folder that a variant's record is in."""
    return f"{_CONTESTANT}{variant.axis}-{variant.name}"


def variant_of(contestant: str) -> Variant | None:
    """Return the variant whose record is in a folder of that name, None if it is another contestant's."""
    text = contestant.removeprefix(_CONTESTANT)
    return named(text) if text != contestant and _NAME.fullmatch(text) else None


def check_variant(
    variant: Mapping[str, Any], method: Mapping[str, Any] | None, axis: Axis, where: str
) -> None:
    """Check that a variant's record differs from the method's own in one thing, and in nothing else.

    Raises:
        DataError: one line that names the file and the field.
    """
    if method is None:
        raise DataError(f"{where}: a variant of a method that was not evaluated itself on this track")
    check_changes(take(variant, "config", dict, where), take(method, "config", dict, where), axis, where)
    _check_equal(_found(variant, where), _found(method, where), axis, where)


def check_changes(variant: Mapping[str, Any], own: Mapping[str, Any], axis: Axis, where: str) -> None:
    """Check that a resolved config differs from a method's own in the axis, and in nothing else.

    Raises:
        DataError: one line that names the field.
    """
    _check_equal(_fields(variant, where), _fields(own, where), axis, where)
    if _told_by(variant, axis) == _told_by(own, axis):
        raise DataError(f"{where}: {_TELLS[axis][0]}: as in the method's own, so this is no variant")


def check_distinct(records: Mapping[str, Mapping[str, Any]], folder: str) -> None:
    """Check that no two variants are one; `records` are by contestant, in `folder`.

    Raises:
        DataError: one line that names the second of them.
    """
    found = [(name, variant) for name in records if (variant := variant_of(name)) is not None]
    for (first, one), (second, other) in combinations(sorted(found, key=lambda pair: pair[0]), 2):
        if one.axis == other.axis and _is_one(records[first], records[second], one.axis, folder):
            raise DataError(
                f"{folder}/{second}: {_TELLS[one.axis][0]}: as in {first}, so this is no other variant"
            )


def _is_one(record: Mapping[str, Any], other: Mapping[str, Any], axis: Axis, where: str) -> bool:
    """Return whether two variants of an axis differ in nothing that makes one."""
    configs = [take(each, "config", dict, where) for each in (record, other)]
    fields = _TELLS[axis] if axis == "student" else changing(axis)
    return all(_value(configs[0], field) == _value(configs[1], field) for field in fields)


def _told_by(config: Mapping[str, Any], axis: Axis) -> list[Any]:
    return [_value(config, field) for field in _TELLS[axis]]


def _value(config: Mapping[str, Any], field: str) -> Any:
    """Return what a config holds at a dotted field; of augmentations those that do something."""
    value = config_at(config, field)
    if field == "recipe.augmentation" and isinstance(value, list):
        return [item for item in value if not (isinstance(item, Mapping) and item.get("use") == "none")]
    return value


def _check_equal(one: Mapping[str, Any], other: Mapping[str, Any], axis: Axis, where: str) -> None:
    free = (*_FREE, *SHOWN[axis], *_ALSO[axis])
    for field in sorted(one.keys() | other.keys()):
        may = any(field == name or field.startswith(f"{name}.") for name in free)
        if not may and one.get(field, ()) != other.get(field, ()):
            only = " and ".join(SHOWN[axis])
            raise DataError(f"{where}: {field}: differs from the method's own; only {only} may")


def _found(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the digests of what a record's run has used."""
    teachers = take(record, "teachers", list, where)
    data = ("dataset.train_sha256", "dataset.test_sha256", "distilled.sha256")
    return {
        _WEIGHTS: [take(item, "digest", str, f"{where}: teachers") for item in teachers],
        **{f"data.{field}": take(record, f"data.{field}", str, where) for field in data},
    }


def changed(variant: Mapping[str, Any], own: Mapping[str, Any], axis: Axis) -> list[str]:
    """Return what makes a variant's config of the method's own, as `field=value`."""
    fields = (*SHOWN[axis], *_ALSO[axis])
    values = ((field, config_at(variant, field), config_at(own, field)) for field in fields)
    return [f"{field}={json.dumps(value)}" for field, value, before in values if value != before]


def config_at(config: Mapping[str, Any], field: str) -> Any:
    """Return what a record's config holds at a dotted field, None where it has no such field."""
    values: Any = config
    for step in field.split("."):
        values = values.get(step) if isinstance(values, Mapping) else None
    return values


def _fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a config, dotted where they have two levels."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        inner = value if isinstance(value, Mapping) else {}
        fields |= {f"{name}.{key}": item for key, item in inner.items()} or {name: value}
    # Files lie where the run was made: of views the name is compared, of teachers the digest.
    views, teachers = fields.get("distilled.views"), take(config, "teachers", list, f"{where}: config")
    fields["distilled.views"] = PurePosixPath(views).name if isinstance(views, str) else views
    fields["teachers"] = [{**typed(item, dict, where), "checkpoint": None} for item in teachers]
    return fields
