"""Names to components.

Bare names are first-party, `vendor/name` is a third party's. Two claims on one name: neither is
given out, and both are named. Listing imports manifests only; a target is imported by `load`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import attrs

from ddrank_core.errors import PluginError, nearest, one_line
from ddrank_core.plugins import FIRST_PARTY, Plugin, PluginHost, installed
from ddrank_core.spec import HOOKS, KINDS, ComponentSpec

BUILT_IN: Mapping[str, tuple[ComponentSpec, ...]] = {
    "optimizer": (
        ComponentSpec("sgd", "ddrank_core.engine.optimizers:SGD", "Stochastic gradient descent"),
        ComponentSpec("adam", "ddrank_core.engine.optimizers:Adam", "Adam (Kingma & Ba 2015)"),
        ComponentSpec(
            "adamw", "ddrank_core.engine.optimizers:AdamW", "AdamW (Loshchilov & Hutter 2019)"
        ),
    ),
    "schedule": (
        ComponentSpec("constant", "ddrank_core.engine.schedules:Constant", "The rate as given"),
        ComponentSpec("step", "ddrank_core.engine.schedules:Step", "Times gamma every step_size"),
        ComponentSpec("multi-step", "ddrank_core.engine.schedules:MultiStep", "Times gamma at each milestone"),
        ComponentSpec("cosine", "ddrank_core.engine.schedules:Cosine", "Cosine to zero at the end"),
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
        self._conflicts: dict[tuple[str, str], str] = {}
        for kind, specs in BUILT_IN.items():
            for spec in specs:
                self._entries[kind, spec.name] = Entry(kind, spec, FIRST_PARTY, version)
        for kind in KINDS:
            for plugin, specs in list(host.collect(HOOKS[kind])):
                self._add_manifest(kind, plugin, specs)

    def _add_manifest(self, kind: str, plugin: Plugin, specs: object) -> None:
        problem = _manifest_fault(kind, plugin, specs)
        if problem:
            self.host.drop(plugin, problem)
            return
        for spec in specs:  # type: ignore[attr-defined]  # _manifest_fault has checked it
            self._claim(Entry(kind, spec, plugin.distribution, plugin.version))

    def _claim(self, entry: Entry) -> None:
        key = (entry.kind, entry.name)
        other = self._entries.pop(key, None)
        if other is None and key not in self._conflicts:
            self._entries[key] = entry
            return
        claims = self._conflicts.get(key) or (other.owner if other else "")
        self._conflicts[key] = f"{claims} and {entry.owner}"

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong with the installed plugins, one line each."""
        conflicts = (_conflict(kind, name, claims) for (kind, name), claims in self._conflicts.items())
        return (*(str(fault) for fault in self.host.faults), *conflicts)

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return the entries of a kind by name, families as `vendor/*`."""
        return tuple(sorted((e for (k, _), e in self._entries.items() if k == kind), key=lambda e: e.name))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry that a name stands for; a member of a family gives the family's entry.

        Raises:
            PluginError: if nobody, or more than one distribution, claims the name.
        """
        if (kind, name) in self._conflicts:
            raise PluginError(_conflict(kind, name, self._conflicts[kind, name]))
        if entry := self._entries.get((kind, name)):
            return entry
        vendor, slash, _ = name.partition("/")
        if slash and (family := self._entries.get((kind, f"{vendor}/*"))):
            return family
        raise PluginError(self._unknown(kind, name))

    def load(self, kind: str, name: str) -> type:
        """Import and return the component class behind a name.

        Raises:
            PluginError: if the name is unknown or claimed twice, or its target cannot be imported.
        """
        entry = self.find(kind, name)
        target = _import_target(entry)
        if not entry.spec.is_family:
            if not isinstance(target, type) or not attrs.has(target):
                raise PluginError(
                    f"{kind} '{name}' of {entry.owner}: {entry.spec.target} is not a class made "
                    "with ddrank_core.component"
                )
            return target
        member = name.partition("/")[2]
        members = list(target.members())
        if member not in members:
            raise PluginError(f"no {kind} '{name}'{_nearest_member(name, members)}; see 'ddrank list {kind}'")
        found: type = target.component(member)
        return found

    def members(self, entry: Entry) -> tuple[str, ...]:
        """Return the full names of a family's members, by reading sources rather than importing."""
        vendor = entry.name.partition("/")[0]
        return tuple(f"{vendor}/{member}" for member in _import_target(entry).members())

    def _unknown(self, kind: str, name: str) -> str:
        known = [e.name for e in self.entries(kind)]
        line = f"no {kind} '{name}'{nearest(name, known)}; see 'ddrank list {kind}'"
        elsewhere = [k for (k, n) in self._entries if n == name and k != kind]
        if elsewhere:
            line = f"'{name}' is a {elsewhere[0]}, not a {kind}; see 'ddrank list {kind}'"
        broken = self._faults_behind(name)
        return f"{line} ({broken})" if broken else line

    def _faults_behind(self, name: str) -> str:
        """Name the broken plugins that may have brought this name: the vendor's, else every one."""
        vendor = name.partition("/")[0] if "/" in name else None
        faults = [f for f in self.host.faults if vendor is None or vendor in f"{f.plugin.distribution}:{f.plugin.name}"]
        return "; ".join(str(fault) for fault in faults)


def _manifest_fault(kind: str, plugin: Plugin, specs: object) -> str | None:
    if not isinstance(specs, Iterable) or isinstance(specs, (str, bytes)):
        return f"its hook {HOOKS[kind]} must return a list of ComponentSpec"  # type: ignore[index]
    for spec in specs:
        if not isinstance(spec, ComponentSpec):
            return f"its hook {HOOKS[kind]} returned {spec!r}, not a ComponentSpec"  # type: ignore[index]
        if "/" not in spec.name and not plugin.is_first_party:
            return f"'{spec.name}' is a bare name, which only {FIRST_PARTY} may use; call it 'vendor/{spec.name}'"
        if spec.target.count(":") != 1:
            return f"the target '{spec.target}' of '{spec.name}' is not of the form 'module:Class'"
    return None


def _conflict(kind: str, name: str, claims: str) -> str:
    return f"{kind} '{name}' is claimed by {claims}; neither is used, uninstall one"


def _nearest_member(name: str, members: list[str]) -> str:
    vendor = name.partition("/")[0]
    return nearest(name, [f"{vendor}/{member}" for member in members])


def _import_target(entry: Entry) -> Any:
    module, _, attribute = entry.spec.target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # the plugin boundary: the module is somebody else's
        raise PluginError(
            f"{entry.kind} '{entry.name}' of {entry.owner} cannot be loaded from "
            f"{entry.spec.target}: {one_line(error)}"
        ) from error


def default_registry() -> Registry:
    """Return a registry of everything that is installed."""
    from ddrank_core import __version__

    return Registry(PluginHost(installed()), __version__)
