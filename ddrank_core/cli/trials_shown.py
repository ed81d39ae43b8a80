"""One trial for a reader, and what determines two of them differently."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from ddrank_core.cli.text import clean
from ddrank_core.errors import ConfigError
from ddrank_core.store.search import Shown

_ABSENT = object()


@attrs.frozen(kw_only=True)
class Different:
    """The determinants in which two trials differ."""

    digests: tuple[str, str]
    found: Mapping[str, tuple[Any, Any]]
    """Field -> the two values; a field that one of them does not have is absent there."""

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        return [(field, _cell(one), _cell(other)) for field, (one, other) in self.found.items()]

    def values(self) -> dict[str, Any]:
        """Return plain values: each field's, by the digest of the trial that has it."""
        return {
            field: {
                digest: value
                for digest, value in zip(self.digests, pair, strict=True)
                if value is not _ABSENT
            }
            for field, pair in self.found.items()
        }


def as_values(shown: Shown) -> dict[str, Any]:
    """Return all that is known of a trial as plain values."""
    known = {
        name: value for name, value in shown.row.items() if value is not None and name not in shown.outcome
    }
    return {
        **known,
        "outcome": shown.outcome,
        "predictions": shown.predictions,
        "determinants": shown.determinants,
    }


def as_text(shown: Shown) -> str:
    """Return all that is known of a trial as YAML, without control characters."""
    import yaml

    return yaml.safe_dump(_cleaned(as_values(shown)), sort_keys=False, allow_unicode=True, width=1000)


def compared(one: Shown, other: Shown) -> Different:
    """Return in which determinants two trials differ.

    Raises:
        ConfigError: one line, if what determines one of them is not known, or nothing differs.
    """
    first, second = dict(_flat("", _known(one))), dict(_flat("", _known(other)))
    fields = [*first, *(field for field in second if field not in first)]
    pairs = {field: (first.get(field, _ABSENT), second.get(field, _ABSENT)) for field in fields}
    found = {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}
    digests = (one.row["digest"][:12], other.row["digest"][:12])
    if not found:
        raise ConfigError(f"{digests[0]} and {digests[1]}: nothing that determines them differs")
    return Different(digests=digests, found=found)


def _known(shown: Shown) -> dict[str, Any]:
    if shown.determinants is None:
        raise ConfigError(
            f"{shown.row['digest'][:12]}: stored by a version that did not keep what determines a trial, so "
            "it cannot be compared"
        )
    return shown.determinants


def _flat(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the innermost values, each with its field: `components[0].parameters.depth`."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(f"{field}.{key}" if field else str(key), item)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _flat(f"{field}[{index}]", item)
    else:
        yield field, value


def _cell(value: Any) -> str:
    if value is _ABSENT:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return clean(value) if isinstance(value, str) else value
