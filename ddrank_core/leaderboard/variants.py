"""Variants of a recipe: what may differ between two runs that are to show what one part of it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ddrank_core.errors import DataError
from ddrank_core.leaderboard.measured import take, typed
from ddrank_core.leaderboard.types import Axis

_FREE = ("name", "scores", "dataset", "distilled.path")
"""Names and places: what is at them is compared by its digest."""
SHOWN: Mapping[Axis, tuple[str, ...]] = {
    "augmentation": ("recipe.augmentation",),
    "labels": ("recipe.labels", "recipe.loss"),
    "student": ("student", "full_data"),
}
"""Axis -> the fields of the config in which a variant differs."""
_ALSO: Mapping[Axis, tuple[str, ...]] = {
    "augmentation": (),
    "labels": ("distilled.views", "teachers", "weights of teachers"),
    "student": (),
}
"""Axis -> what may change with them."""


def check_variant(
    variant: Mapping[str, Any], method: Mapping[str, Any] | None, axis: Axis, where: str
) -> None:
    """Check that a variant's record differs from the method's own in one thing, and in nothing else.

    Raises:
        DataError: one line that names the file and the field.
    """
    if method is None:
        raise DataError(f"{where}: a variant of a method that was not evaluated itself on this track")
    one, other = (_decisive(record, axis, where) for record in (variant, method))
    for field in sorted(one.keys() | other.keys()):
        if one.get(field, ()) != other.get(field, ()):
            only = " and ".join(SHOWN[axis])
            raise DataError(f"{where}: {field}: differs from the method's own record; only {only} may")
    if all(
        config_at(variant["config"], field) == config_at(method["config"], field) for field in SHOWN[axis]
    ):
        raise DataError(f"{where}: {SHOWN[axis][0]}: as in the method's own record, so this is no variant")


def _decisive(record: Mapping[str, Any], axis: Axis, where: str) -> dict[str, Any]:
    """Return the fields of a record that must be equal, dotted where they have two levels."""
    fields = _fields(take(record, "config", dict, where))
    teachers = take(record, "config.teachers", list, where)
    # Files lie where the run was made: of views the name is compared, of teachers the digest.
    views = fields.get("distilled.views")
    fields["distilled.views"] = PurePosixPath(views).name if isinstance(views, str) else views
    fields["teachers"] = [{**typed(item, dict, where), "checkpoint": None} for item in teachers]
    found = take(record, "teachers", list, where)
    fields["weights of teachers"] = [take(item, "digest", str, f"{where}: teachers") for item in found]
    for data in ("dataset.train_sha256", "dataset.test_sha256", "distilled.sha256"):
        fields[f"data.{data}"] = take(record, f"data.{data}", str, where)
    free = (*_FREE, *SHOWN[axis], *_ALSO[axis])
    return {
        field: value
        for field, value in fields.items()
        if not any(field == name or field.startswith(f"{name}.") for name in free)
    }


def config_at(config: Mapping[str, Any], field: str) -> Any:
    """Return what a record's config holds at a dotted field, None where it has no such field."""
    values: Any = config
    for step in field.split("."):
        values = values.get(step) if isinstance(values, Mapping) else None
    return values


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in config.items():
        inner = value if isinstance(value, Mapping) else {}
        fields |= {f"{name}.{key}": item for key, item in inner.items()} or {name: value}
    return fields
