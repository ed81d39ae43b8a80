"""Checks of a component's class and of its parameters; the same for every kind."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import attrs
import yaml

from ddrank_core.errors import ConfigError, DDRankError, PluginError
from ddrank_core.spec import parameters_of
from ddrank_core.structure import KIND_OF, Chosen, plain
from ddrank_core.testing.case import WORKS_BY, Case, ContractBroken, call, hold, refusal

_ODD: tuple[Any, ...] = (0, -1, 3, 10**6, 0.0, -0.5, 1e-30, 1e30, "", "no such thing", True)
_ODD_LISTS: tuple[Any, ...] = ([], [0], [0, 0], [1, 2, 3], [-0.5, 0.5], [""])


def target_resolves(case: Case) -> None:
    try:
        cls = case.registry.load(case.kind, case.name)
    except PluginError as error:
        raise ContractBroken(str(error)) from error
    method = WORKS_BY[case.kind]
    hold(
        any(method in vars(base) for base in cls.__mro__[:-1]),
        f"its class {cls.__name__} has no {method}, by which {case.kind} components work",
    )


def parameters_frozen(case: Case) -> None:
    component = case.chosen.component
    by_position = [field.name for field in attrs.fields(case.cls) if not field.kw_only]
    hold(not by_position, f"takes {', '.join(by_position)} by position; {_MADE_BY}")
    for name in [field.name for field in attrs.fields(case.cls)] or ["anything"]:
        try:
            setattr(component, name, getattr(component, name, None))
        except attrs.exceptions.FrozenInstanceError:
            continue
        except AttributeError:
            pass
        raise ContractBroken(f"can be changed after it was made ({name}); {_MADE_BY}")
    again = case.structurer.chosen(case.kind, {"use": case.name, **case.given}).component
    hold(component == again, f"is not equal to one made with the same parameters; {_MADE_BY}")
    asked = "parameters must be hashable, so use a tuple for a list, and a frozen class for a dict"
    try:
        same = hash(component) == hash(again)
    except TypeError as error:
        raise ContractBroken(f"cannot be hashed ({error}); {asked}") from error
    hold(same, f"has another hash than one made with the same parameters; {_MADE_BY}")


_MADE_BY = "make the class with ddrank_core.component"


def parameters_documented(case: Case) -> None:
    hold(bool((case.cls.__doc__ or "").strip()), "its class has no docstring, which 'ddrank show' prints")
    for field in parameters_of(case.cls):
        hold(
            field.type is not None, f"its parameter {field.name} has no type; write {field.name}: float = ..."
        )
        hold(
            bool(str(field.metadata.get("doc", "")).strip()),
            f"its parameter {field.name} is not documented; use ddrank_core.parameter('what it does', ...)",
        )


def survives_config(case: Case) -> None:
    written = plain(case.chosen)
    forms = {
        "YAML": lambda: yaml.safe_load(yaml.safe_dump(written)),
        "JSON": lambda: json.loads(json.dumps(written)),
    }
    for form, read in forms.items():
        again = call(f"writing it as {form}", read)
        found = call(f"reading {again} back from {form}", case.structurer.chosen, case.kind, again)
        hold(
            found == case.chosen,
            f"is {found.component} after it was written as {form} and read again, "
            f"and was {case.chosen.component}; defaults must be of the annotated types",
        )


def survives_pickling(case: Case) -> None:
    # The entry too: worker processes get both.
    whole = (case.chosen, case.chosen.entry)
    again = call("pickling it", lambda: pickle.loads(pickle.dumps(whole)))
    hold(
        whole == again,
        f"is {again[0].component} after pickling, and was {case.chosen.component}; workers get it pickled",
    )


def refuses_bad_parameters(case: Case) -> None:
    for field in parameters_of(case.cls):
        for bound, value in _out_of_bounds(field):
            _, refused = _made_with(case, field, value)
            hold(refused is not None, f"takes {field.name}: {value!r}, though it declares {bound}")
        for value in _odd_values(case, field):
            _made_with(case, field, value)
        if field.type not in (Any, None):
            _hold_config_error(case, field.name)


def _made_with(case: Case, field: attrs.Attribute[Any], value: Any) -> tuple[Any, str | None]:
    """Return the component with one other parameter, or the words in which it is refused."""
    component = case.chosen.component
    values = {f.alias: getattr(component, f.name) for f in attrs.fields(case.cls) if f.init}
    made = {**values, field.alias: value}
    return refusal(f"{field.name}: {value!r}", lambda: case.cls(**made), ValueError, DDRankError)


def _out_of_bounds(field: attrs.Attribute[Any]) -> Iterator[tuple[str, Any]]:
    """Yield each bound that a parameter declares, and a value on its wrong side."""
    beyond = {"minimum": -1, "above": 0, "maximum": 1, "below": 0}
    for bound, step in beyond.items():
        if (limit := field.metadata.get(bound)) is not None:
            yield f"{bound} {limit}", limit + step


def _odd_values(case: Case, field: attrs.Attribute[Any]) -> Iterator[Any]:
    """Yield values of a parameter's type that few would think of."""
    for value in (*_ODD, *_ODD_LISTS):
        try:
            yield case.structurer.field(field.name, value, field.type)
        except Exception:  # of another type: cattrs raises groups of many kinds
            continue


def _hold_config_error(case: Case, field: str) -> None:
    """Fail unless a config with a mapping for a parameter is refused in one line that names the parameter."""
    value = {"use": case.name, **case.given, field: {"no such": "value"}}
    protocol = next(cls for cls, kind in KIND_OF.items() if kind == case.kind)
    asked = "a config error is one line that names the field"
    try:
        case.structurer.structure(value, Chosen[protocol], "config")  # type: ignore[valid-type]
    except ConfigError as error:
        text = str(error)
    else:
        raise ContractBroken(f"takes a mapping for {field}; give the parameter a narrower type")
    hold(field in text and "\n" not in text, f"is refused with {text!r}; {asked}")
