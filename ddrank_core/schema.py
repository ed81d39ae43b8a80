"""JSON Schemas of configs (draft 2020-12), made from the components that are installed.

A schema tells an editor what the loader knows of a config: every field with its documentation, type,
default and bounds, and what may stand behind each `use:`. It refuses nothing that the loader takes. What it
lets through, and the loader does not: files that are not there, fields that are right one by one and wrong
together, what a component's own checks look at, whatever is asked of a family's members, and 5.0 for a whole
number, which JSON does not tell from 5.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from ddrank_core.config import (
    DistillConfig,
    FullData,
    FullRecipe,
    RunConfig,
    Student,
    Teacher,
    TeacherConfig,
)
from ddrank_core.errors import DDRankError
from ddrank_core.protocols import Augmentation
from ddrank_core.registry import Entry, Registry, a_kind
from ddrank_core.spec import parameters_of
from ddrank_core.structure import KIND_OF, Chosen, plain

DIALECT = "https://json-schema.org/draft/2020-12/schema"

CONFIGS: Mapping[str, type] = {"run": RunConfig, "distill": DistillConfig, "teacher": TeacherConfig}
"""What a config may be for -> the class that it becomes."""

WIDTH = 110

Schema = dict[str, Any]

_PLAIN = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    Path: "string",
    types.NoneType: "null",
}

_BOUNDS = {
    "minimum": "minimum",
    "above": "exclusiveMinimum",
    "maximum": "maximum",
    "below": "exclusiveMaximum",
}
"""A parameter's bound -> the keyword of JSON Schema."""

_FLAT = (Teacher, Student)
"""An architecture's mapping with fields of their own in it; by name alone, it has none of them."""

_USED_BY_DEFAULT = {"protocol": "strict"}
"""Kind -> what is meant where a config gives parameters and no `use`."""

_OPTIONAL = {
    RunConfig: ("name", "student", "protocol"),
    DistillConfig: ("name",),
    TeacherConfig: ("name",),
}
"""Fields without a default that the loader fills in: the name is the file's, for example."""

_NAME = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"}

_CHECKED: Mapping[tuple[type, str], Schema] = {
    **{(cls, "name"): _NAME for cls in _OPTIONAL},
    (RunConfig, "students"): {"minItems": 1},
    (RunConfig, "protocol"): {"default": "strict"},
    (RunConfig, "scores"): {"minItems": 1, "uniqueItems": True},
    (FullRecipe, "learning_rates"): {"minItems": 1, "uniqueItems": True, "items": {"exclusiveMinimum": 0}},
}
"""What the loader adds to a config's own field, most by its `check`; components' are the loader's."""

_TOGETHER: Mapping[type, Schema] = {
    RunConfig: {"oneOf": [{"required": ["student"]}, {"required": ["students"]}]},
    FullData: {
        "if": {"properties": {"accuracy": {"type": "number"}}, "required": ["accuracy"]},
        "then": {"properties": {"source": {"type": "string", "minLength": 1}}, "required": ["source"]},
        "else": {"properties": {"source": {"enum": ["", None]}}},
    },
}
"""Rules between the fields of one mapping."""


def schema_of(config: str, registry: Registry) -> tuple[Schema, tuple[str, ...]]:
    """Return the schema of a config for "run", "distill" or "teacher", and what could not go into it.

    The latter is one line for each component that does not load; the loader refuses them too.
    """
    maker = _Maker(registry)
    whole = maker.part(CONFIGS[config])
    schema = {
        "$schema": DIALECT,
        "title": f"A {config} config of ddrank",
        "$comment": f"made by 'ddrank schema {config}'",
        **whole,
        "$defs": dict(sorted(maker.definitions.items())),
    }
    return schema, tuple(maker.problems)


def text_of(value: Any, indent: str = "") -> str:
    """Return the JSON of a schema; what fits on a line stands on one, so that a change of it can be read."""
    short = json.dumps(value)
    if len(indent) + len(short) <= WIDTH or not isinstance(value, (dict, list)):
        return short
    inner = f"{indent} "
    if isinstance(value, list):
        items = [text_of(item, inner) for item in value]
        opening, closing = "[]"
    else:
        items = [f"{json.dumps(key)}: {text_of(item, inner)}" for key, item in value.items()]
        opening, closing = "{}"
    lines = ",\n".join(f"{inner}{item}" for item in items)
    return f"{opening}\n{lines}\n{indent}{closing}"


@attrs.frozen
class _Group:
    """Names of one component that ask for the same parameters: its own, or short ones that set alike."""

    names: tuple[str, ...]
    fields: Sequence[attrs.Attribute[Any]]
    preset: frozenset[str]

    @property
    def required(self) -> list[str]:
        """Return the parameters that a config must give."""
        return [f.name for f in self.fields if f.default is attrs.NOTHING and f.name not in self.preset]


class _Maker:
    """Makes the schema of a config; what stands in several places is defined once, and referred to."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._groups: dict[str, tuple[_Group, ...]] = {}
        self.definitions: dict[str, Schema] = {}
        self.problems: list[str] = []

    def part(self, cls: type) -> Schema:
        """Return the schema of a part of a config: a mapping with the fields of a class."""
        fields = parameters_of(cls)
        optional = _OPTIONAL.get(cls, ())
        required = [f.name for f in fields if f.default is attrs.NOTHING and f.name not in optional]
        return {
            "description": _first_line(cls),
            "type": "object",
            "properties": {f.name: self._part_field(cls, f) for f in fields},
            "required": required,
            "additionalProperties": False,
            **_TOGETHER.get(cls, {}),
        }

    def _part_field(self, cls: type, field: attrs.Attribute[Any]) -> Schema:
        made = {**self._field(field), **_CHECKED.get((cls, field.name), {})}
        if field.type != tuple[Chosen[Augmentation], ...]:
            return made
        # A config may leave out the list around a single augmentation; a component's own parameter may not.
        single = self._type(Chosen[Augmentation])
        return {
            "description": made["description"],
            "anyOf": [single, {"type": "array", "items": single}],
            "default": [],
        }

    def _field(self, field: attrs.Attribute[Any], preset: frozenset[str] = frozenset()) -> Schema:
        bounds = {word: field.metadata[key] for key, word in _BOUNDS.items() if key in field.metadata}
        default = {} if field.name in preset else _default(field)
        return {"description": field.metadata.get("doc", ""), **self._type(field.type), **bounds, **default}

    def _type(self, cls: Any) -> Schema:
        """Return the schema of a type; of one that is not known here, the loader's word alone counts."""
        origin, args = get_origin(cls), get_args(cls)
        if cls in _PLAIN:
            return {"type": _PLAIN[cls]}
        if origin is Literal:
            return {"enum": list(args)}
        if origin is tuple or cls is tuple:
            return self._list(args or (Any, ...))
        if origin in (Union, types.UnionType):
            return self._union(args)
        if origin is Chosen:
            kind = KIND_OF[args[0]]
            return self._refer(kind, lambda: self._chosen(kind, {}))
        if cls in _FLAT:
            return self._refer(cls.__name__.lower(), lambda: self._flat(cls))
        if isinstance(cls, type) and attrs.has(cls):
            # Two plugins may have classes of one name.
            name = f"{cls.__module__}.{cls.__qualname__}".removeprefix("ddrank_core.config.")
            return self._refer(name, lambda: self.part(cls))
        return {}

    def _list(self, args: tuple[Any, ...]) -> Schema:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": self._type(args[0])}
        size = {"minItems": len(args), "maxItems": len(args)}
        if len(set(args)) == 1:
            return {"type": "array", "items": self._type(args[0]), **size}
        return {"type": "array", "prefixItems": [self._type(item) for item in args], **size}

    def _union(self, args: tuple[Any, ...]) -> Schema:
        # yaml-language-server takes the first type for the whole, and fails at text whose default is null.
        options = [self._type(option) for option in sorted(args, key=lambda a: a is not types.NoneType)]
        if all(set(option) == {"type"} for option in options):
            return {"type": [option["type"] for option in options]}
        return {"anyOf": options}

    def _refer(self, name: str, make: Callable[[], Schema]) -> Schema:
        if name not in self.definitions:
            # It stands for itself while it is made: a schedule may hold a schedule.
            self.definitions[name] = {}
            self.definitions[name] = make()
        return {"$ref": f"#/$defs/{name}"}

    def _flat(self, cls: type) -> Schema:
        return self._chosen("architecture", {f.name: self._field(f) for f in parameters_of(cls)[1:]})

    def _chosen(self, kind: str, own: Mapping[str, Schema]) -> Schema:
        """Return what chooses a component: its name, or a mapping of `use`, parameters and `own` fields."""
        named = self._refer(f"{kind}-name", lambda: self._names(kind))
        groups = self._groups_of(kind)
        asking = [name for group in groups if group.required for name in group.names]
        alone = {**named, "not": {"enum": asking}} if asking else named
        usual = _USED_BY_DEFAULT.get(kind)
        mapping = {
            "type": "object",
            "properties": {"use": {"description": f"which {kind}", **named}, **own},
            "required": [] if usual else ["use"],
            "allOf": [self._with_parameters(group, own, usual) for group in groups],
        }
        return {
            "description": f"{a_kind(kind)}: its name, or 'use: NAME' and its parameters",
            "anyOf": [alone, mapping],
        }

    def _with_parameters(self, group: _Group, own: Mapping[str, Schema], usual: str | None) -> Schema:
        chosen: Schema = {"properties": {"use": {"enum": list(group.names)}}}
        if usual not in group.names:
            chosen["required"] = ["use"]
        parameters = {f.name: self._field(f, group.preset) for f in group.fields}
        beside = dict.fromkeys(("use", *own), True)
        closed = {
            "properties": {**parameters, **beside},
            "required": group.required,
            "additionalProperties": False,
        }
        return {"if": chosen, "then": closed}

    def _names(self, kind: str) -> Schema:
        loaded = {name for group in self._groups_of(kind) for name in group.names}
        entries = self._registry.entries(kind)
        single = [
            {"const": entry.name, "description": entry.spec.summary}
            for entry in entries
            if entry.name in loaded
        ]
        families = [
            {"pattern": _of_family(entry.name), "description": entry.spec.summary}
            for entry in entries
            if entry.spec.is_family
        ]
        return {"type": "string", "anyOf": [*single, *families]}

    def _groups_of(self, kind: str) -> tuple[_Group, ...]:
        """Return the components of a kind that load, families aside: their members answer for themselves."""
        if kind not in self._groups:
            gathered: dict[tuple[str, frozenset[str]], list[Entry]] = {}
            for entry in self._registry.entries(kind):
                if not entry.spec.is_family and self._loads(entry):
                    key = (entry.spec.target, frozenset(entry.spec.preset))
                    gathered.setdefault(key, []).append(entry)
            self._groups[kind] = tuple(
                _Group(
                    tuple(entry.name for entry in entries),
                    parameters_of(self._registry.load(kind, entries[0].name)),
                    preset,
                )
                for (_, preset), entries in gathered.items()
            )
        return self._groups[kind]

    def _loads(self, entry: Entry) -> bool:
        try:
            self._registry.load(entry.kind, entry.name)
        except DDRankError as error:
            self.problems.append(str(error))
            return False
        return True


def _of_family(name: str) -> str:
    """Return the pattern of a family's members; of what a name can have, a dot alone means something else."""
    return f"^{name.removesuffix('*').replace('.', '[.]')}.+$"


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _default(field: attrs.Attribute[Any]) -> Schema:
    """Return a field's default, where it is a plain value; a part's own fields have theirs."""
    if field.default is attrs.NOTHING or attrs.has(type(field.default)):
        return {}
    value = plain(field.default)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # somebody's own type, a factory or an infinity
        return {}
    return {"default": value}
