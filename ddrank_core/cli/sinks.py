"""`--sink`: what keeps the events of a run while it goes on, beside its record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddrank_core.errors import ConfigError, one_line

if TYPE_CHECKING:
    from ddrank_core.events import RunStarted
    from ddrank_core.protocols import Sink, SinkWriter
    from ddrank_core.registry import Registry
    from ddrank_core.structure import Chosen

sinks_option = click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="NAME[:FIELD=VALUE,...]",
    help="Write the run's events to a file or tracker as they come: csv, jsonl, ... ('ddrank list sink').",
)

_LAST = ("ddrank_run_finished", "ddrank_run_failed")


class Sinks:
    """The sinks that were asked for, fed with the events of one run after another.

    An exception in one is one line on stderr; it hears no more of any run, and the run goes on.
    """

    def __init__(self, chosen: Sequence[Chosen[Sink]]) -> None:
        self._chosen = list(chosen)
        self._writers: list[tuple[Chosen[Sink], SinkWriter]] = []
        self._has_begun = False

    def notify(self, hook: str, event: Any) -> None:
        """Give an event to every sink; the start of a run opens them, its end closes them.

        Raises:
            ConfigError: at the start of the first run, one line, if a sink cannot be opened.
        """
        if hook == "ddrank_run_started":
            self._open(event)
            return
        for chosen, writer in list(self._writers):
            try:
                writer.write(event)
            except _contained() as error:
                self._drop(chosen, error)
        if hook in _LAST:
            self.close()

    def close(self) -> None:
        """Close what is open. It may be called again."""
        while self._writers:
            chosen, writer = self._writers.pop()
            try:
                writer.close()
            except _contained() as error:
                self._drop(chosen, error)

    def _open(self, event: RunStarted) -> None:
        self.close()
        for chosen in list(self._chosen):
            try:
                self._writers.append((chosen, chosen.component.open(event)))
            except _contained() as error:
                if self._has_begun:
                    self._drop(chosen, error)
                    continue
                # Nothing is trained yet: whoever asked for a sink wants it more than a run without it.
                self.close()
                raise ConfigError(f"--sink {chosen.use}: cannot be opened: {_worded(error)}") from error
        self._has_begun = True

    def _drop(self, chosen: Chosen[Sink], error: BaseException) -> None:
        from ddrank_core.cli.problems import warn

        self._chosen = [other for other in self._chosen if other is not chosen]
        for pair in [pair for pair in self._writers if pair[0] is chosen]:
            self._writers.remove(pair)
            # It has failed already; what closing it says would be a second line about the same.
            with suppress(*_contained()):
                pair[1].close()
        whose = f"--sink {chosen.use} of {chosen.entry.owner}"
        warn([f"{whose}: {_worded(error)}; it is not written to any more, the run goes on"])


def open_sinks(texts: Sequence[str], registry: Registry) -> Sinks:
    """Return the sinks that `--sink NAME:FIELD=VALUE,...` names; relative paths start at this folder.

    Raises:
        ConfigError: one line, if a name or parameter is wrong, or a sink says that it cannot work here.
    """
    from ddrank_core.protocols import Sink
    from ddrank_core.structure import Chosen, Structurer

    structurer, made = Structurer(registry, Path()), []
    for text in texts:
        where = f"--sink {text}"
        chosen = structurer.structure(parsed(text), Chosen[Sink], where)
        if chosen in made:
            raise ConfigError(f"{where}: stands twice")
        _check(chosen, where)
        made.append(chosen)
    return Sinks(made)


def parsed(text: str) -> Mapping[str, Any]:
    """Return `NAME:FIELD=VALUE,FIELD=VALUE` as a config would say it; values are YAML.

    A comma that no `FIELD=` follows belongs to the value.

    >>> parsed("csv:path=a,b.csv")
    {'use': 'csv', 'path': 'a,b.csv'}

    Raises:
        ConfigError: one line, if it does not look like that.
    """
    name, colon, rest = text.partition(":")
    fields: dict[str, Any] = {}
    for field, value in _pairs(rest, text) if colon else ():
        if field in fields or field == "use":
            raise ConfigError(
                f"--sink {text}: '{field}' {'stands twice' if field in fields else 'is no field'}"
            )
        fields[field] = value
    return {"use": name, **fields}


def _pairs(rest: str, text: str) -> Iterator[tuple[str, Any]]:
    from ddrank_core import yaml

    for pair in re.split(r",(?=\s*\w+=)", rest):
        field, equals, value = pair.partition("=")
        if not equals or not field.strip():
            raise ConfigError(
                f"--sink {text}: must look like NAME or NAME:FIELD=VALUE,FIELD=VALUE, "
                "such as csv:path=trials.csv"
            )
        yield field.strip(), yaml.parse(value, f"--sink {text}")


def _check(chosen: Chosen[Sink], where: str) -> None:
    check = getattr(chosen.component, "check", None)
    if check is None:
        return
    try:
        check()
    except _contained() as error:
        raise ConfigError(f"{where}: {_worded(error)}") from error


def _contained() -> tuple[type[BaseException], ...]:
    """Return what somebody's sink may raise without ending the run."""
    from ddrank_core.plugins import CONTAINED

    return CONTAINED


def _worded(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return one_line(error)
