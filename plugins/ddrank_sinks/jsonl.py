"""A run's events as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from ddrank_core import ConfigError, Event, RunStarted, SinkWriter, component, parameter
from ddrank_sinks import values
from ddrank_sinks.files import Appended, check_file, first_line, place

_BEGINS = '{"time": "'


@component
class JSONLines:
    """Write every event of a run, as it comes, as one line of strict JSON with its time and its name.

    A run that goes on after it was stopped adds to the file. Several runs may share one.
    """

    path: Path | None = parameter("the file; events.jsonl in the run folder if it is not given", default=None)

    def check(self) -> None:
        """Refuse a path that cannot be written."""
        check_file(self.path)

    def open(self, event: RunStarted) -> SinkWriter:
        """Begin with the event itself."""
        path = place(self.path, event, "events.jsonl")
        begins = first_line(path)
        if begins and not begins.startswith(_BEGINS[: len(begins)]):
            raise ConfigError(f"{path}: holds something else than a run's events; give another path")
        writer = _Writer(path)
        writer.write(event)
        return writer


class _Writer:
    def __init__(self, path: Path) -> None:
        self._file = Appended(path)

    def write(self, event: Event) -> None:
        """Add a line."""
        line: dict[str, Any] = {"time": values.now(), "event": values.name(event)}
        if attrs.has(type(event)):
            line.update(values.fields(event))
        self._file.add(json.dumps(line, ensure_ascii=False, allow_nan=False))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
