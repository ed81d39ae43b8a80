"""`ddrank show`: everything about one component."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ddrank_core.cli.text import clean, table

if TYPE_CHECKING:
    from attrs import Attribute

    from ddrank_core.registry import Entry

PLACE: Mapping[str, tuple[str, ...]] = {
    "loss": ("recipe", "loss"),
    "label-mapping": ("recipe", "labels"),
    "augmentation": ("recipe", "augmentation"),
    "architecture": ("student",),
    "dataset": ("dataset",),
    "method": ("method",),
    "optimizer": ("recipe", "optimizer"),
    "schedule": ("recipe", "schedule"),
    "protocol": ("protocol",),
}
"""Kind -> where it stands in a config; a sink stands on the command line."""

WIDTH = 100

BOUNDS = {"minimum": "at least", "above": "greater than", "maximum": "at most", "below": "less than"}


@click.command("show")
@click.argument("kind")
@click.argument("name")
def command(kind: str, name: str) -> None:
    """Show the component NAME of a KIND: what it does, its parameters, where it is from, an example.

    \b
        ddrank show loss kl
        ddrank show architecture timm/resnet18
    """
    from ddrank_core.cli.kinds import kind_of
    from ddrank_core.cli.problems import warn
    from ddrank_core.registry import default_registry

    registry = default_registry()
    kind = kind_of(kind)
    entry = registry.find(kind, name)
    warn(registry.problems)
    component = None if name == entry.name and entry.spec.is_family else registry.load(kind, name)
    click.echo("\n\n".join(_sections(entry, name, component)))


def _sections(entry: Entry, name: str, component: type | None) -> Iterator[str]:
    yield f"{entry.kind} {clean(name)}\n{clean(entry.spec.summary)}"
    origin = [("target", entry.spec.target), ("distribution", entry.owner)]
    if component is None:
        yield table(origin)
        yield f"A family: ddrank list {entry.kind} '{entry.name}' lists its members."
        return
    if documentation := inspect.cleandoc(component.__doc__ or ""):
        yield "\n".join(_clean_line(line) for line in documentation.splitlines())
    yield _parameters(component, entry.spec.preset)
    yield table([*origin, ("file", _file(component))])
    yield f"Example:\n\n{example(entry.kind, name, component, entry.spec.preset)}"


def _clean_line(line: str) -> str:
    """Return the line cleaned, its indentation kept."""
    return line[: len(line) - len(line.lstrip())].replace("\t", "    ") + clean(line)


def _parameters(component: type, preset: Mapping[str, Any]) -> str:
    from ddrank_core.spec import parameters_of

    fields = parameters_of(component)
    if not fields:
        return "No parameters."
    return "\n".join(["Parameters:", *(line for field in fields for line in _parameter(field, preset))])


def _parameter(field: Attribute[Any], preset: Mapping[str, Any]) -> Iterator[str]:
    import textwrap

    yield f"  {field.name}: {clean(f'{_type(field)}; {_default(field, preset)}')}"
    # An unbroken line would be cut in the middle of a word by a terminal.
    yield from textwrap.wrap(
        clean(field.metadata.get("doc", "")), WIDTH, initial_indent="      ", subsequent_indent="      "
    )


def _type(field: Attribute[Any]) -> str:
    from ddrank_core.structure import type_name

    limits = [f"{words} {field.metadata[key]:g}" for key, words in BOUNDS.items() if key in field.metadata]
    return ", ".join([type_name(field.type), *limits])


def _default(field: Attribute[Any], preset: Mapping[str, Any]) -> str:
    import attrs

    if field.name in preset:
        return f"{_flow(preset[field.name])} by this name"
    if field.default is attrs.NOTHING:
        return "required"
    return f"default {_flow(_default_value(field))}"


def _default_value(field: Attribute[Any]) -> Any:
    """Return a parameter's default as YAML would give it, a placeholder where it is required."""
    import attrs

    from ddrank_core.structure import plain, type_name

    if field.default is attrs.NOTHING:
        return f"<{type_name(field.type)}>"
    return plain(field.default)


def _flow(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _file(component: type) -> str:
    try:
        return inspect.getsourcefile(component) or "unknown"
    except (TypeError, OSError):
        return "unknown"


def example(kind: str, name: str, component: type, preset: Mapping[str, Any] | None = None) -> str:
    """Return a piece of a config that chooses the component, with every parameter at its default.

    What a short name's `preset` sets is left to the name. Of a sink it is a command, as no config has one.
    """
    import yaml

    from ddrank_core.spec import parameters_of

    fields = [field for field in parameters_of(component) if field.name not in (preset or {})]
    values = {field.name: _default_value(field) for field in fields}
    if kind == "sink":
        return _command(name, values)
    value: Any = {"use": name, **values}
    for step in reversed(PLACE[kind]):
        value = {step: value}
    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=WIDTH)
    return text.rstrip()


def _command(name: str, values: Mapping[str, Any]) -> str:
    """Return how `ddrank run` chooses a sink."""
    import shlex

    pairs = ",".join(f"{field}={_flow(value)}" for field, value in values.items())
    return f"ddrank run CONFIG --sink {shlex.quote(f'{name}:{pairs}' if pairs else name)}"
