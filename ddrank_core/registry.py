"""Names to components.

Bare names are first-party, `vendor/name` is a third party's. Two claims on one name: neither is
given out, and both are named. Listing imports manifests only; a target is imported by `load`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import attrs

from ddrank_core.errors import DDRankError, PluginError, nearest, one_line
from ddrank_core.plugins import CONTAINED, FIRST_PARTY, Plugin, PluginHost, installed
from ddrank_core.spec import HOOKS, KINDS, ComponentSpec, Kind, parameters_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/([A-Za-z0-9][A-Za-z0-9._-]*|\*))?")
_TARGET = re.compile(r"\w+(\.\w+)*:\w+")

BUILT_IN: Mapping[str, tuple[ComponentSpec, ...]] = {
    "optimizer": (
        ComponentSpec("sgd", "ddrank_core.engine.optimizers:SGD", "Stochastic gradient descent"),
        ComponentSpec("adam", "ddrank_core.engine.optimizers:Adam", "Adam (Kingma & Ba 2015)"),
        ComponentSpec("adamw", "ddrank_core.engine.optimizers:AdamW", "AdamW (Loshchilov & Hutter 2019)"),
    ),
    "schedule": (
        ComponentSpec("constant", "ddrank_core.engine.schedules:Constant", "The rate as given"),
        ComponentSpec("step", "ddrank_core.engine.schedules:Step", "Times gamma every step_size"),
        ComponentSpec(
            "multi-step", "ddrank_core.engine.schedules:MultiStep", "Times gamma at each milestone"
        ),
        ComponentSpec("cosine", "ddrank_core.engine.schedules:Cosine", "Cosine to zero at the end"),
        ComponentSpec(
            "half-cosine",
            "ddrank_core.engine.schedules:HalfCosine",
            "Half of a cosine, ending at a half (RDED)",
        ),
        ComponentSpec(
            "warmup", "ddrank_core.engine.schedules:Warmup", "A linear rise in front of any other schedule"
        ),
    ),
    "protocol": (
        ComponentSpec(
            "strict",
            "ddrank_core.engine.selection:Strict",
            "Learning rate by a validation split, last epoch, test set touched once per trial",
        ),
        ComponentSpec(
            "ddranking-0.2",
            "ddrank_core.engine.selection:DDRanking02",
            "Learning rate and best epoch by the test set, as ddranking 0.2 does",
        ),
    ),
}
"""Kinds that the engine itself brings and no plugin extends; they are listed and shown alike."""

ALL_KINDS: tuple[str, ...] = (*KINDS, *BUILT_IN)


@attrs.frozen
class Entry:
    """A name that can be used in a config, and whose it is."""

    kind: str
    spec: ComponentSpec
    distribution: str
    version: str

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}"


class Registry:
    """All components of this process, by kind and name."""

    def __init__(self, host: PluginHost, version: str) -> None:
        self.host = host
        self._entries: dict[tuple[str, str], Entry] = {}
        self._conflicts: dict[tuple[str, str], tuple[str, ...]] = {}
        for kind, specs in BUILT_IN.items():
            for spec in specs:
                self._entries[kind, spec.name] = Entry(kind, spec, FIRST_PARTY, version)
        claims = [claim for kind in KINDS for claim in self._claims(kind)]
        for plugin, entry in claims:
            # A plugin that fell over in a later hook is out as a whole.
            if host.uses(plugin):
                self._claim(entry)
        self._protect_families()

    def _claims(self, kind: Kind) -> Iterator[tuple[Plugin, Entry]]:
        for plugin, manifest in self.host.collect(HOOKS[kind]):
            problem = next(filter(None, (_manifest_fault(kind, plugin, spec) for spec in manifest)), None)
            if problem:
                self.host.drop(plugin, problem)
                continue
            for spec in manifest:
                assert isinstance(spec, ComponentSpec)  # _manifest_fault has checked it
                yield plugin, Entry(kind, spec, plugin.distribution, plugin.version)

    def _claim(self, entry: Entry) -> None:
        key = (entry.kind, entry.name)
        if key in self._conflicts:
            self._conflicts[key] += (entry.owner,)
        elif other := self._entries.pop(key, None):
            self._conflicts[key] = (other.owner, entry.owner)
        else:
            self._entries[key] = entry

    def _protect_families(self) -> None:
        """Refuse a name inside a family (`timm/resnet18`) that another distribution claims."""
        for (kind, name), entry in list(self._entries.items()):
            family = self._family(kind, name)
            if family and family.distribution != entry.distribution:
                del self._entries[kind, name]
                self._conflicts[kind, name] = (f"{family.owner} (with {family.name})", entry.owner)

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong with the installed plugins, one line each."""
        conflicts = (_conflict(kind, name, claims) for (kind, name), claims in self._conflicts.items())
        return (*(str(fault) for fault in self.host.faults), *conflicts)

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return the entries of a kind, bare names first, families as `vendor/*`."""
        mine = (entry for (k, _), entry in self._entries.items() if k == kind)
        return tuple(sorted(mine, key=lambda entry: ("/" in entry.name, entry.name)))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry that a name stands for; a member of a family gives the family's entry.

        Raises:
            PluginError: if nobody, or more than one distribution, claims the name.
        """
        if claims := self._conflicts.get((kind, name)):
            raise PluginError(_conflict(kind, name, claims))
        entry = self._entries.get((kind, name)) or self._family(kind, name)
        if entry is None:
            raise PluginError(self._unknown(kind, name))
        return entry

    def load(self, kind: str, name: str) -> type:
        """Import and return the component class behind a name.

        Raises:
            PluginError: if the name is unknown or claimed twice, or its target cannot be imported.
        """
        entry = self.find(kind, name)
        target = _import_target(entry)
        if entry.spec.is_family:
            target = self._member(entry, target, name)
        if fault := _component_fault(target):
            raise PluginError(f"{kind} '{name}' of {entry.owner}: {entry.spec.target} {fault}")
        found: type = target
        return found

    def members(self, entry: Entry) -> tuple[str, ...]:
        """Return the full names of a family's members, by reading sources rather than importing.

        Raises:
            PluginError: if the family's target cannot be imported or fails to list them.
        """
        return _members(entry, _import_target(entry))

    def _member(self, entry: Entry, family: Any, name: str) -> object:
        members = list(_members(entry, family))
        # A member's variants (`timm/resnet18.a1_in1k`) are not listed; the family knows which there are.
        if name not in members and name.partition(".")[0] not in members:
            listing = f"ddrank list {entry.kind} '{entry.name}'"
            raise PluginError(f"no {entry.kind} '{name}'{nearest(name, members)}; see {listing}")
        try:
            return family.component(name.partition("/")[2])
        except DDRankError:
            raise
        except CONTAINED as error:  # the plugin boundary
            raise PluginError(f"{entry.kind} '{name}' of {entry.owner} fails: {one_line(error)}") from error

    def _family(self, kind: str, name: str) -> Entry | None:
        vendor, slash, member = name.partition("/")
        return self._entries.get((kind, f"{vendor}/*")) if slash and member != "*" else None

    def _unknown(self, kind: str, name: str) -> str:
        elsewhere = [k for (k, n) in self._entries if n == name and k != kind]
        if elsewhere:
            return f"'{name}' is {a_kind(elsewhere[0])}, not {a_kind(kind)}; see 'ddrank list {kind}'"
        if broken := self._faults_behind(name):
            return f"no {kind} '{name}'; {broken}"
        alike = [entry.name for entry in self.entries(kind) if ("/" in entry.name) == ("/" in name)]
        hint = nearest(name, alike)
        return f"no {kind} '{name}'{hint}; see 'ddrank list {kind}'"

    def _faults_behind(self, name: str) -> str:
        """Name the broken plugins that may have brought this name: the vendor's, else all that could."""
        vendor, slash, _ = name.partition("/")
        faults = [fault for fault in self.host.faults if slash or fault.plugin.is_first_party]
        of_vendor = (
            [f for f in faults if vendor in f"{f.plugin.distribution}:{f.plugin.name}"] if slash else []
        )
        return "; ".join(str(fault) for fault in of_vendor or faults)


def a_kind(kind: str) -> str:
    """Return the kind with its article: `a loss`, `an augmentation`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _manifest_fault(kind: Kind, plugin: Plugin, spec: object) -> str | None:
    if not isinstance(spec, ComponentSpec):
        return f"its hook {HOOKS[kind]} returned {_shown(spec)}, not a ComponentSpec"
    if not all(isinstance(text, str) for text in (spec.name, spec.target, spec.summary)):
        return f"its hook {HOOKS[kind]} returned {_shown(spec)}, whose fields are not all text"
    if not isinstance(spec.preset, Mapping) or (spec.preset and spec.is_family):
        return f"the preset of '{spec.name}' must be a mapping of parameters, and a family can have none"
    if not _NAME.fullmatch(spec.name):
        return f"'{spec.name}' is not a component's name; it must look like 'vendor/name'"
    if "/" not in spec.name and not plugin.is_first_party:
        return f"'{spec.name}' is a bare name, which only {FIRST_PARTY} may use; call it 'vendor/{spec.name}'"
    if not _TARGET.fullmatch(spec.target):
        return f"the target '{spec.target}' of '{spec.name}' is not of the form 'module:Class'"
    return None


def _shown(value: object) -> str:
    """Return somebody's object as text; its own `__repr__` may be as broken as the rest."""
    try:
        text = repr(value)
    except CONTAINED:
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _conflict(kind: str, name: str, claims: tuple[str, ...]) -> str:
    if len(set(claims)) == 1:
        return f"{kind} '{name}' is claimed {len(claims)} times by {claims[0]}; it is not used"
    return f"{kind} '{name}' is claimed by {' and '.join(claims)}; neither is used, uninstall one"


def _component_fault(target: object) -> str | None:
    if not isinstance(target, type) or not attrs.has(target):
        return "is not a class made with ddrank_core.component"
    try:
        fields = parameters_of(target)
    except CONTAINED as error:  # the plugin boundary: resolving annotations runs them
        return f"has a field whose type cannot be resolved: {one_line(error)}"
    if any(field.name == "use" for field in fields):
        return "has a parameter 'use', which in a config names the component"
    return None


def _members(entry: Entry, family: Any) -> tuple[str, ...]:
    vendor = entry.name.partition("/")[0]
    try:
        return tuple(f"{vendor}/{member}" for member in family.members())
    except CONTAINED as error:  # the plugin boundary
        raise PluginError(
            f"{entry.kind} '{entry.name}' of {entry.owner} cannot list its members: {one_line(error)}"
        ) from error


def _import_target(entry: Entry) -> Any:
    module, _, attribute = entry.spec.target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except CONTAINED as error:  # the plugin boundary: the module is somebody else's
        raise PluginError(
            f"{entry.kind} '{entry.name}' of {entry.owner} cannot be loaded from "
            f"{entry.spec.target}: {one_line(error)}"
        ) from error


def default_registry() -> Registry:
    """Return a registry of everything that is installed."""
    from ddrank_core import __version__

    return Registry(PluginHost(installed()), __version__)
