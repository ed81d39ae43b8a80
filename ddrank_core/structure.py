"""Plain YAML values to typed attrs classes and back, with errors that name the field.

cattrs does the walking; this module makes it strict (no `true` for 1, no 1.5 for 1, no string for a
list), resolves `use: NAME` through the registry, and turns nested exceptions into one line.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from ddrank_core.errors import ConfigError, DDRankError, PluginError, nearest, one_line
from ddrank_core.protocols import (
    Architecture,
    Augmentation,
    Dataset,
    LabelMapping,
    Loss,
    Method,
    Optimizer,
    Schedule,
    Selection,
    Sink,
)
from ddrank_core.registry import Entry, Registry, a_kind, default_registry
from ddrank_core.sources import source_digest
from ddrank_core.spec import ParameterError

_Component = TypeVar("_Component", covariant=True)


KIND_OF: Mapping[type, str] = {
    Loss: "loss",
    LabelMapping: "label-mapping",
    Augmentation: "augmentation",
    Architecture: "architecture",
    Dataset: "dataset",
    Method: "method",
    Sink: "sink",
    Optimizer: "optimizer",
    Schedule: "schedule",
    Selection: "protocol",
}


@attrs.frozen
class Chosen(Generic[_Component]):
    """A component as a config chose it: the name, the made component and whose it is."""

    use: str
    component: _Component
    entry: Entry = attrs.field(eq=False, repr=False)
    given: tuple[str, ...] = attrs.field(default=(), eq=False)
    """The parameters that the config gave; the others are defaults."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a name with parameters: another process makes the component from its own plugins."""
        cls: Any = type(self.component)
        fields = {field.alias: getattr(self.component, field.name) for field in attrs.fields(cls)}
        entry = self.entry
        origin = (entry.distribution, entry.version, source_digest(cls))
        return _made_again, (entry.kind, self.use, fields, self.given, origin)


def _made_again(
    kind: str,
    use: str,
    fields: Mapping[str, Any],
    given: tuple[str, ...],
    origin: tuple[str, str, str | None],
) -> Chosen[Any]:
    """Return a component as it was chosen in another process.

    Raises:
        PluginError: if the plugin is missing here, or is of another version or source than there.
    """
    registry, (distribution, version, source) = default_registry(), origin
    same, owner = f"install the same {distribution} on both machines", f"{distribution} {version}"
    try:
        entry, cls = registry.find(kind, use), registry.load(kind, use)
    except PluginError as error:
        raise PluginError(f"{error}; it was chosen from {owner}: {same}") from error
    if (entry.distribution, entry.version) != (distribution, version):
        raise PluginError(f"{kind} '{use}' is of {entry.owner} here, and was chosen from {owner}; {same}")
    if source_digest(cls) != source:
        raise PluginError(f"{kind} '{use}' of {owner}: its source differs from where it was chosen; {same}")
    return Chosen(use, cls(**fields), entry, given)


class FieldError(ValueError):
    """A wrong value, worded for the user; the path to it is added on the way up."""


class Structurer:
    """Turns values of one file into typed objects; relative paths start at the file's folder."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self._converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
        # Of the hooks by shape, cattrs asks the last one first.
        self._converter.register_structure_hook_factory(attrs.has, self._class_hook)
        by_shape = self._converter.register_structure_hook_func
        by_shape(_is_tuple, self._structure_tuple)
        by_shape(lambda t: _origin(t) is Literal, _structure_literal)
        by_shape(_is_union, self._structure_union)
        by_shape(lambda t: _origin(t) is Chosen, self._structure_chosen)
        hook = self._converter.register_structure_hook
        hook(int, _structure_int)
        hook(float, _structure_float)
        hook(str, _structure_str)
        hook(bool, _structure_bool)
        hook(Path, self._structure_path)

    def structure(self, value: Any, cls: type, where: str) -> Any:
        """Return `value` as an object of `cls`.

        Raises:
            ConfigError: one line, that starts with `where` and names the field.
        """
        try:
            return self._converter.structure(value, cls)
        except Exception as error:
            (path, message), *others = _in_order(list(_faults(error, "")))
            more = f" (and {len(others)} more)" if others else ""
            raise ConfigError(f"{where}: {path + ': ' if path else ''}{message}{more}") from error

    def field(self, name: str, value: Any, cls: Any) -> Any:
        """Return `value` as `cls`; an error names the field, as in a class that has it."""
        try:
            return self._converter.structure(value, cls)
        except Exception as error:
            error.add_note(AttributeValidationNote("", name, cls))
            raise ClassValidationError("field", [error], cls) from error

    def _class_hook(self, cls: type) -> Callable[[Any, Any], Any]:
        from_mapping: Callable[[Any, Any], Any] = make_dict_structure_fn(cls, self._converter)

        def structure_class(value: Any, _: Any) -> Any:
            # cattrs would answer a list or a string with an obscure error about its keys.
            if not isinstance(value, Mapping):
                raise FieldError(f"must be a mapping of fields, got {_shown(value)}")
            return from_mapping(value, cls)

        return structure_class

    def _structure_path(self, value: Any, _: Any) -> Path:
        text = _structure_str(value, str)
        expanded = os.path.expanduser(_expand_environment(text))
        return Path(os.path.normpath(self._folder / expanded))

    def _structure_tuple(self, value: Any, cls: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise FieldError(f"must be a list, got {_shown(value)}")
        types_ = typing.get_args(cls) or (Any, ...)
        many = len(types_) == 2 and types_[1] is Ellipsis
        if not many and len(types_) != len(value):
            raise FieldError(f"must have {len(types_)} values, got {len(value)}")
        result, errors = [], []
        for index, item in enumerate(value):
            try:
                item_type = types_[0] if many else types_[index]
                result.append(item if item_type is Any else self._converter.structure(item, item_type))
            except Exception as error:
                error.add_note(IterableValidationNote("", index, cls))
                errors.append(error)
        if errors:
            raise IterableValidationError("list", errors, cls)
        return tuple(result)

    def _structure_union(self, value: Any, cls: Any) -> Any:
        options = typing.get_args(cls)
        if value is None and type(None) in options:
            return None
        options = tuple(option for option in options if option is not type(None))
        errors: list[Exception] = []
        for option in options:
            try:
                return self._converter.structure(value, option)
            except Exception as error:
                errors.append(error)
        if len(options) == 1:
            raise errors[0]
        raise FieldError(f"must be {' or '.join(type_name(o) for o in options)}, got {_shown(value)}")

    def _structure_chosen(self, value: Any, cls: Any) -> Chosen[Any]:
        kind = KIND_OF[typing.get_args(cls)[0]]
        return self.chosen(kind, value)

    def chosen(self, kind: str, value: Any) -> Chosen[Any]:
        """Return the component that `{use: NAME, parameter: value, ...}` (or just NAME) chooses."""
        given = {"use": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping):
            raise FieldError(f"must be {a_kind(kind)}: its name, or 'use: NAME' and its parameters")
        if "use" not in given:
            raise FieldError(f"'use: NAME' is missing, which names {a_kind(kind)}")
        name = self.field("use", given["use"], str)
        fields = {key: item for key, item in given.items() if key != "use"}
        entry, cls = self._registry.find(kind, name), self._registry.load(kind, name)
        made: Any = self._converter.structure({**entry.spec.preset, **fields}, cls)
        return Chosen(name, made, entry, tuple(fields))


def plain(value: Any, path: Callable[[Path], str] = str) -> Any:
    """Return a typed config as plain YAML/JSON values; the reverse of `Structurer.structure`.

    `path` says how a path is written.
    """
    if isinstance(value, Chosen):
        return {"use": value.use, **plain(value.component, path)}
    if attrs.has(type(value)):
        return {f.name: plain(getattr(value, f.name), path) for f in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): plain(item, path) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, path) for item in value]
    return path(value) if isinstance(value, Path) else value


def type_name(cls: Any) -> str:
    """Return a type in the words of a config's author.

    >>> type_name(tuple[float, ...] | None)
    'list of number, or null'
    """
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
    if cls in names:
        return names[cls]
    origin, args = _origin(cls), typing.get_args(cls)
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"list of {type_name(args[0])}"
        return f"list of {len(args)}: {', '.join(type_name(a) for a in args)}"
    if _is_union(cls):
        rest = [type_name(a) for a in args if a is not type(None)]
        return ", or ".join([*rest, "null"] if type(None) in args else rest)
    if origin is Chosen:
        return a_kind(KIND_OF[args[0]])
    return "any value" if cls is Any else getattr(cls, "__name__", str(cls))


def _structure_int(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError(f"must be a whole number, got {_shown(value)}")
    return value


def _structure_float(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(f"must be a number, got {_shown(value)}")
    if value != value or value in (float("inf"), float("-inf")):
        raise FieldError(f"must be a finite number, got {value}")
    return float(value)


def _structure_str(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise FieldError(f"must be text, got {_shown(value)}")
    return value


def _structure_bool(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise FieldError(f"must be true or false, got {_shown(value)}")
    return value


def _structure_literal(value: Any, cls: Any) -> Any:
    choices = typing.get_args(cls)
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    hint = nearest(value, [str(c) for c in choices]) if isinstance(value, str) else ""
    raise FieldError(f"must be one of {', '.join(map(str, choices))}, got {_shown(value)}{hint}")


def _origin(cls: Any) -> Any:
    return typing.get_origin(cls)


def _is_tuple(cls: Any) -> bool:
    return _origin(cls) is tuple or cls is tuple


def _is_union(cls: Any) -> bool:
    return _origin(cls) in (typing.Union, types.UnionType)


def _expand_environment(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise FieldError(f"the environment variable {name} in '{text}' is not set")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _faults(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
    """Yield (path, message) for every wrong field in a nested cattrs error."""
    if isinstance(error, (ClassValidationError, IterableValidationError)):
        for inner in error.exceptions:
            step = path + _step(inner, path)
            if isinstance(inner, KeyError):
                # cattrs reports a missing field as the KeyError of reading it.
                yield step, _missing(error, inner)
            else:
                yield from _faults(inner, step)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        for extra in sorted(map(str, error.extra_fields)):
            options = "; it has " + ", ".join(known) if known else "; it has no parameters"
            yield _join(path, extra), f"{_UNKNOWN}{nearest(extra, known) or options}"
    elif isinstance(error, ParameterError):
        yield _join(path, error.parameter), error.problem
    elif isinstance(error, (DDRankError, FieldError, ValueError, TypeError)):
        yield path, str(error)
    else:
        # What a component's own checks may raise; the chain keeps the traceback.
        yield path, f"cannot be used: {one_line(error)}"


_UNKNOWN = "unknown field"
_MISSING = "missing"


def _missing(error: ClassValidationError | IterableValidationError, inner: KeyError) -> str:
    for field in attrs.fields(error.cl) if attrs.has(error.cl) else ():
        if inner.args == (field.name,):
            return f"{_MISSING} ({type_name(field.type)}: {field.metadata.get('doc', '')})"
    return one_line(inner)


def _in_order(faults: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put misspelt fields first, without the field that is missing because of the misspelling."""
    meant = {
        _join(path.rpartition(".")[0], match.group(1))
        for path, message in faults
        if message.startswith(_UNKNOWN) and (match := re.search(r"did you mean '(.+)'\?", message))
    }
    left = [(p, m) for p, m in faults if not (p in meant and m.startswith(_MISSING))]
    return sorted(left, key=lambda fault: not fault[1].startswith(_UNKNOWN))


def _step(error: BaseException, path: str) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return f".{note.name}" if path else note.name
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]"
    return ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
