"""Events as plain values: strict JSON, and nothing that a reader of JSON could not hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs


def name(event: Any) -> str:
    """Return an event's name, as in the hook that has it: `trial_finished` for a `TrialFinished`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def fields(event: Any) -> dict[str, Any]:
    """Return an event's fields as JSON values.

    A number of a result that is not finite becomes null; in a config, where infinity can be meant, it
    becomes the text `inf`, `-inf` or `nan`, as in the record.
    """
    return {
        field.name: strict(getattr(event, field.name), in_config=field.name == "config")
        for field in attrs.fields(type(event))
    }


def strict(value: Any, *, in_config: bool = False) -> Any:
    """Return a value as JSON has it."""
    if attrs.has(type(value)):
        return fields(value)
    if isinstance(value, Mapping):
        return {str(key): strict(item, in_config=in_config) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item, in_config=in_config) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if in_config else None
    return str(value) if isinstance(value, Path) else value


def flat(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return a config as `recipe.loss.use: ce`: what trackers make columns of. Lists become texts.

    >>> flat({"student": {"use": "convnet", "depth": 3}, "scores": ["hlr"], "seed": None})
    {'student.use': 'convnet', 'student.depth': 3, 'scores': "['hlr']"}
    """
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update({f"{key}.{inner}": item for inner, item in flat(value).items()})
        elif value is not None:
            found[key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return found
