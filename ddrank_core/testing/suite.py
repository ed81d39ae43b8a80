"""The checks of one distribution, as a test that pytest runs once for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from ddrank_core.errors import DDRankError, PluginError, nearest
from ddrank_core.hookspecs import ENTRY_POINT_GROUP
from ddrank_core.plugins import Plugin, installed
from ddrank_core.registry import ALL_KINDS, Entry, Registry, default_registry
from ddrank_core.structure import Structurer
from ddrank_core.testing.case import Case, ContractBroken, Shape, call, hold, parameters_that, required
from ddrank_core.testing.light import LightStart
from ddrank_core.testing.rules import CLASS_IS_LIGHT, RULES, TARGET_RESOLVES, Rule

Examples = Mapping[str, Sequence[Mapping[str, Any]]]
References = Mapping[str, Callable[..., Any]]


def conformance_tests(
    distribution: str,
    *,
    checks: int,
    examples: Examples | None = None,
    references: References | None = None,
    image_shapes: Mapping[str, Sequence[Shape]] | None = None,
    expected_failures: Mapping[tuple[str, str], str] | None = None,
    members: Mapping[str, Sequence[str]] | None = None,
    small: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[..., None]:
    """Return a test that holds every component of an installed distribution to the contract of its kind.

    pytest runs it once for each check: `test_contract[acme/focal: survives pickling]`. A component is named
    as in a config, with its kind in front (`loss acme/x`) where a name is of several kinds. Of a short name
    (a preset) the work is not checked again, unless it has examples.

    Args:
        distribution: the name that pip knows.
        checks: how many checks there must be, so that none gets lost; the number is printed.
        examples: name -> parameters to check beside the defaults. Where a parameter has no default, the first
            of these stands for the defaults.
        references: name -> an independent function to agree with, called as the component is. Further
            arguments of it that are named like parameters of the component get their values; one without any
            is held to the defaults alone.
        image_shapes: name -> the (C, H, W) that an architecture or augmentation claims to take. Without it,
            some usual shape must be taken, and others may be refused.
        expected_failures: (name, check) -> why the component breaks this part of the contract. Strict: a
            check that passes, though it is declared to fail, fails.
        members: family (`acme/*`) -> the members that are checked; of other families all are.
        small: name -> parameters that replace defaults where the component's work is checked, such as the
            number of iterations of a method.

    Example:
        test_contract = conformance_tests("ddrank-acme", checks=19, examples={"acme/focal": [{"gamma": 1.0}]})
    """
    said = Said(
        examples=examples or {},
        references=references or {},
        image_shapes=image_shapes or {},
        expected_failures=expected_failures or {},
        members=members or {},
        small=small or {},
    )
    try:
        found = checks_of(distribution, said)
    except UsageError as error:
        pytest.fail(str(error), pytrace=False)
    whole = [*found, Check(distribution, f"there are {checks} checks", lambda: _hold_count(found, checks))]
    params = [pytest.param(check, id=str(check), marks=_marks(check, said)) for check in whole]
    components = len({check.of for check in found} - {distribution})

    @pytest.mark.parametrize("check", params)
    def test_contract(check: Check, request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        if check is whole[-1]:
            with request.getfixturevalue("capsys").disabled():
                print(f"\n{distribution}: {len(whole)} checks of {components} components")
        _run(check)

    return test_contract


class UsageError(DDRankError):
    """What an author asked of the kit that has no meaning."""


@attrs.frozen(kw_only=True)
class Said:
    """What an author says of the components."""

    examples: Examples = attrs.field(factory=dict)
    references: References = attrs.field(factory=dict)
    image_shapes: Mapping[str, Sequence[Shape]] = attrs.field(factory=dict)
    expected_failures: Mapping[tuple[str, str], str] = attrs.field(factory=dict)
    members: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    small: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Check:
    """One check of a component, or of the distribution as a whole."""

    of: str
    title: str
    run: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.of}: {self.title}"


def checks_of(distribution: str, said: Said) -> list[Check]:
    """Return every check of a distribution, in the order of its components.

    Raises:
        UsageError: if it is not installed, or something is said of a component or check that is not there.
    """
    plugins = [
        plugin for plugin in installed() if _canonical(plugin.distribution) == _canonical(distribution)
    ]
    if not plugins:
        raise UsageError(
            f"{distribution} is not installed here, or has no entry point in the group {ENTRY_POINT_GROUP}; "
            "install it first, with 'pip install -e .'"
        )
    registry = default_registry()
    subjects = _subjects(registry, plugins[0].distribution, said)
    for argument in ("examples", "references", "image_shapes", "small"):
        _hold_known(argument, getattr(said, argument), [subject.label for subject in subjects])
    light = LightStart(
        distribution=plugins[0].distribution, components=[(one.kind, one.name) for one in subjects]
    )
    checks = [
        Check(distribution, "its plugins load", lambda: _hold_loaded(registry, plugins)),
        Check(distribution, "its manifests import nothing heavy", light.manifests),
        *(check for subject in subjects for check in subject.checks(light)),
    ]
    known = {(check.of, check.title) for check in checks}
    for of, title in said.expected_failures:
        if (of, title) not in known:
            titles = [known_title for known_of, known_title in known if known_of == of]
            raise UsageError(
                f"expected_failures: {of} has no check '{title}'{nearest(title, titles)}; "
                f"it has {', '.join(sorted(titles))}"
            )
    return checks


@attrs.frozen(eq=False)
class _Subject:
    """A component that is checked, under the name that an author has for it."""

    label: str
    kind: str
    name: str
    cases: tuple[Case, ...]
    """With its defaults, and with each example; none if its class cannot be loaded."""
    loads: bool = True
    is_short: bool = False
    """Whether it is a short name of a class that has been checked under another one."""

    def checks(self, light: LightStart) -> Iterator[Check]:
        is_light = Rule(CLASS_IS_LIGHT, light.class_of, once_per="name")
        yield Check(self.label, is_light.title, self._runner(is_light, self.cases[:1]))
        for rule in RULES[self.kind]:
            if rule.title == TARGET_RESOLVES or not self.loads:
                yield Check(self.label, rule.title, self._runner(rule, self.cases))
            elif rule.once_per == "name" or not self.is_short:
                concerned = tuple(case for case in self.cases if rule.applies(case))
                if concerned:
                    yield Check(self.label, rule.title, self._runner(rule, concerned))

    def _runner(self, rule: Rule, cases: tuple[Case, ...]) -> Callable[[], None]:
        def run() -> None:
            __tracebackhide__ = True
            if not self.loads and rule.title != TARGET_RESOLVES:
                pytest.skip("its target does not resolve")
            for case in cases:
                try:
                    rule.check(case)
                except ContractBroken as broken:
                    raise ContractBroken(f"{case}: {broken}") from broken.__cause__

        return run


def _subjects(registry: Registry, distribution: str, said: Said) -> list[_Subject]:
    entries = [
        entry for kind in ALL_KINDS for entry in registry.entries(kind) if entry.distribution == distribution
    ]
    # Short names last: what they stand for is checked under the name of the component itself.
    entries.sort(key=lambda entry: (ALL_KINDS.index(entry.kind), bool(entry.spec.preset)))
    _hold_known("members", said.members, [_label(entry, entry.name, entries) for entry in entries])
    named = [(entry, name) for entry in entries for name in _names(registry, entry, entries, said)]
    names = [name for _, name in named]
    structurer = Structurer(registry, Path())
    seen: set[tuple[str, str]] = set()
    subjects = []
    for entry, name in named:
        label = name if names.count(name) == 1 else f"{entry.kind} {name}"
        subject = _subject(registry, structurer, label, entry, name, said)
        target = (entry.kind, entry.spec.target)
        has_examples = len(subject.cases) > 1
        is_short = bool(entry.spec.preset) and target in seen and not has_examples
        subjects.append(attrs.evolve(subject, is_short=is_short))
        seen.add(target)
    return subjects


def _label(entry: Entry, name: str, others: Sequence[Entry]) -> str:
    """Return the name of a component, with its kind in front where it is of several kinds."""
    kinds = {other.kind for other in others if other.name == entry.name}
    return name if len(kinds) == 1 else f"{entry.kind} {name}"


def _names(registry: Registry, entry: Entry, entries: Sequence[Entry], said: Said) -> Sequence[str]:
    if not entry.spec.is_family:
        return (entry.name,)
    members = said.members.get(_label(entry, entry.name, entries))
    if members is not None:
        return [f"{entry.name.removesuffix('*')}{member}" for member in members]
    try:
        return registry.members(entry)
    except PluginError as error:
        raise UsageError(str(error)) from error


def _subject(
    registry: Registry, structurer: Structurer, label: str, entry: Entry, name: str, said: Said
) -> _Subject:
    def case(given: Mapping[str, Any], reference: Callable[..., Any] | None = None) -> Case:
        return Case(
            kind=entry.kind,
            name=name,
            registry=registry,
            structurer=structurer,
            given=given,
            small=said.small.get(label, {}),
            shapes=tuple(said.image_shapes.get(label, ())),
            reference=reference,
        )

    try:
        missing = required(entry.kind, name, registry)
    except PluginError:
        return _Subject(label, entry.kind, name, (case({}),), loads=False)
    given: list[Mapping[str, Any]] = [*([] if missing else [{}]), *said.examples.get(label, ())]
    if not given:
        raise UsageError(
            f"{label} needs {', '.join(missing)}; give examples={{'{label}': [{{'{missing[0]}': ...}}]}}"
        )
    reference = said.references.get(label)
    of_all = reference is not None and bool(
        parameters_that(reference, entry.kind, registry.load(entry.kind, name))
    )
    cases = [case(one, reference if place == 0 or of_all else None) for place, one in enumerate(given)]
    return _Subject(label, entry.kind, name, tuple(cases))


def _hold_known(argument: str, said: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Refuse what is said of a component that is not there: it would never be looked at."""
    for label in said:
        if label not in labels:
            raise UsageError(f"{argument}: there is no component '{label}'{nearest(label, list(labels))}")


def _hold_loaded(registry: Registry, plugins: Sequence[Plugin]) -> None:
    owners = {f"{plugin.distribution} {plugin.version}" for plugin in plugins}
    problems = [line for line in registry.problems if any(owner in line for owner in owners)]
    hold(not problems, "; ".join(problems))
    for plugin in plugins:
        call(f"importing {plugin.value}", plugin.load)


def _hold_count(found: Sequence[Check], checks: int) -> None:
    # This one counts too: it is one of the tests that pytest shows.
    there = len(found) + 1
    hold(
        there == checks,
        f"there are {there} checks, and {checks} were expected; if that is right, write checks={there}",
    )


def _marks(check: Check, said: Said) -> list[pytest.MarkDecorator]:
    reason = said.expected_failures.get((check.of, check.title))
    if reason is None:
        return []
    broken = (ContractBroken, pytest.fail.Exception)
    return [pytest.mark.xfail(reason=reason, strict=True, raises=broken)]


def _run(check: Check) -> None:
    """Run a check; a broken contract is shown in its own words, without the kit's frames."""
    __tracebackhide__ = True
    try:
        with _one_thread():
            check.run()
    except ContractBroken as broken:
        if broken.__cause__ is not None:
            raise
        message = str(broken)
    else:
        return
    # Outside of the handler, or pytest would show both.
    pytest.fail(message, pytrace=False)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small work is slower on many threads, and the sums of some networks depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
