"""Names to components.

Bare names are first-party, `vendor/name` is a third party's. Two claims on one name: neither is
given out, and both are named. A plugin is imported only where a name could be its and its source does
not tell; a target is imported by `load`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import attrs

from ddrank_core.errors import DDRankError, PluginError, nearest, one_line
from ddrank_core.manifest import Manifest
from ddrank_core.plugin_choice import chosen
from ddrank_core.plugins import CONTAINED, FIRST_PARTY, Plugin, PluginHost, shown
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
    from_file: bool = False
    """Whether it is from a one-off file, which others do not have."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def advice(self) -> str:
        """What to do about a component that does not load."""
        if self.from_file:
            return f"correct {self.distribution.removeprefix('file ')}"
        verb = "reinstall" if self.distribution == FIRST_PARTY else "update or reinstall"
        return f"{verb} {self.distribution}"


class Registry:
    """All components of this process, by kind and name.

    Those that only an import tells are looked up when their kind is asked for: of the project's own plugins
    for a bare name, of everyone's for a vendor's name or a listing.
    """

    def __init__(self, host: PluginHost, version: str) -> None:
        self.host = host
        self._version = version
        self._entries: dict[tuple[str, str], Entry] = {}
        self._conflicts: dict[tuple[str, str], tuple[Entry, ...]] = {}
        self._settle()

    def _settle(self) -> None:
        """Make the table of names out of what is known of each plugin."""
        self._conflicts = {}
        self._entries = {
            (kind, spec.name): Entry(kind, spec, FIRST_PARTY, self._version)
            for kind, specs in BUILT_IN.items()
            for spec in specs
        }
        for plugin, manifest in list(self.host.manifests.items()):
            if fault := _manifest_fault(plugin, manifest):
                self.host.drop(plugin, fault)
        for kind in KINDS:
            for plugin, manifest in self.host.manifests.items():
                for spec in (manifest.components or {}).get(HOOKS[kind], ()):
                    self._claim(_entry(kind, spec, plugin))
        self._protect_families()

    def _look_up(self, kind: str, *, third_party: bool) -> None:
        hook = next((hook for known, hook in HOOKS.items() if known == kind), None)
        if hook is not None and self.host.look_up(hook, third_party=third_party):
            self._settle()

    def _claim(self, entry: Entry) -> None:
        key = (entry.kind, entry.name)
        if key in self._conflicts:
            self._conflicts[key] += (entry,)
        elif other := self._entries.pop(key, None):
            self._conflicts[key] = (other, entry)
        else:
            self._entries[key] = entry

    def _protect_families(self) -> None:
        """Refuse a name inside a family (`timm/resnet18`) that another distribution claims."""
        for (kind, name), entry in list(self._entries.items()):
            family = self._family(kind, name)
            if family and family.distribution != entry.distribution:
                del self._entries[kind, name]
                self._conflicts[kind, name] = (family, entry)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with plugins, as far as they were looked at, one line each."""
        conflicts = (_conflict(kind, name, claims) for (kind, name), claims in self._conflicts.items())
        return (*(str(fault) for fault in self.host.faults), *conflicts)

    def conflicts_of(self, plugin: Plugin) -> tuple[str, ...]:
        """Return the names that the plugin's distribution claims and another one too, one line each."""
        return tuple(
            _conflict(kind, name, claims)
            for (kind, name), claims in self._conflicts.items()
            if any(claim.distribution == plugin.distribution for claim in claims)
        )

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return the entries of a kind, bare names first, families as `vendor/*`."""
        self._look_up(kind, third_party=True)
        mine = (entry for (k, _), entry in self._entries.items() if k == kind)
        return tuple(sorted(mine, key=lambda entry: ("/" in entry.name, entry.name)))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry that a name stands for; a member of a family gives the family's entry.

        Raises:
            PluginError: if nobody, or more than one distribution, claims the name.
        """
        self._look_up(kind, third_party="/" in name)
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
            raise PluginError(
                f"{kind} '{name}' of {entry.owner}: {entry.spec.target} {fault}; {entry.advice}"
            )
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
            raise PluginError(
                f"{entry.kind} '{name}' of {entry.owner} fails: {one_line(error)}; {entry.advice}"
            ) from error

    def _family(self, kind: str, name: str) -> Entry | None:
        vendor, slash, member = name.partition("/")
        return self._entries.get((kind, f"{vendor}/*")) if slash and member != "*" else None

    def _unknown(self, kind: str, name: str) -> str:
        for other in KINDS:
            self._look_up(other, third_party="/" in name)
        elsewhere = [k for (k, n) in self._entries if n == name and k != kind]
        if elsewhere:
            return f"'{name}' is {a_kind(elsewhere[0])}, not {a_kind(kind)}; see 'ddrank list {kind}'"
        if broken := self._faults_behind(name):
            return f"no {kind} '{name}'; {broken}"
        alike = sorted(n for (k, n) in self._entries if k == kind and ("/" in n) == ("/" in name))
        hint = nearest(name, alike)
        return f"no {kind} '{name}'{hint}; see 'ddrank list {kind}'"

    def _faults_behind(self, name: str) -> str:
        """Name the plugins out of use that may have brought this name: the vendor's, else all that could."""
        vendor, slash, _ = name.partition("/")
        faults = [fault for fault in self.host.faults if slash or fault.plugin.is_first_party]
        of_vendor = [
            fault
            for fault in (*self.host.faults, *self.host.left_out)
            if slash and vendor in f"{fault.plugin.distribution}:{fault.plugin.name}"
        ]
        return "; ".join(str(fault) for fault in of_vendor or faults)


def a_kind(kind: str) -> str:
    """Return the kind with its article: `a loss`, `an augmentation`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _entry(kind: Kind, spec: ComponentSpec, plugin: Plugin) -> Entry:
    return Entry(kind, spec, plugin.distribution, plugin.version, plugin.file is not None)


def _manifest_fault(plugin: Plugin, manifest: Manifest) -> str | None:
    """Return what is wrong with the first component of a manifest that cannot be."""
    listings = (manifest.components or {}).items()
    faults = (_spec_fault(hook, plugin, spec) for hook, specs in listings for spec in specs)
    return next(filter(None, faults), None)


def _spec_fault(hook: str, plugin: Plugin, spec: ComponentSpec) -> str | None:
    if not all(isinstance(text, str) for text in (spec.name, spec.target, spec.summary)):
        return f"its hook {hook} returned {shown(spec)}, whose fields are not all text"
    if not isinstance(spec.preset, Mapping) or (spec.preset and spec.is_family):
        return f"the preset of '{spec.name}' must be a mapping of parameters, and a family can have none"
    if not _NAME.fullmatch(spec.name):
        return f"'{spec.name}' is not a component's name; it must look like 'vendor/name'"
    if "/" not in spec.name and not plugin.is_first_party:
        return f"'{spec.name}' is a bare name, which only {FIRST_PARTY} may use; call it 'vendor/{spec.name}'"
    if not _TARGET.fullmatch(spec.target):
        return f"the target '{spec.target}' of '{spec.name}' is not of the form 'module:Class'"
    return None


def _conflict(kind: str, name: str, claims: tuple[Entry, ...]) -> str:
    owners = [c.owner if c.name == name else f"{c.owner} (with {c.name})" for c in claims]
    if len(set(owners)) == 1:
        advice = claims[0].advice
        return f"{kind} '{name}' is claimed {len(claims)} times by {owners[0]}; it is not used, {advice}"
    words = " and ".join(owners)
    return f"{kind} '{name}' is claimed by {words}; neither is used: uninstall one, or give --without"


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
            f"{entry.kind} '{entry.name}' of {entry.owner} cannot list its members: {one_line(error)}; "
            f"{entry.advice}"
        ) from error


def _import_target(entry: Entry) -> Any:
    module, _, attribute = entry.spec.target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except CONTAINED as error:  # the plugin boundary: the module is somebody else's
        raise PluginError(
            f"{entry.kind} '{entry.name}' of {entry.owner} cannot be loaded from "
            f"{entry.spec.target}: {one_line(error)}; {entry.advice}"
        ) from error


def default_registry() -> Registry:
    """Return a registry of everything that is installed, or what the process's choice leaves of it.

    Raises:
        ConfigError: one line, if the choice names what is not installed.
    """
    from ddrank_core import __version__

    return Registry(PluginHost(*chosen()), __version__)
