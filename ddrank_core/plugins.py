"""Finds plugins, keeps a broken one from breaking the others, and says what broke.

`installed()` reads entry points without importing anything. `PluginHost` reads from each plugin's source
what it brings; it imports a plugin where that does not tell, or where the plugin listens to a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pluggy

from ddrank_core import hookspecs
from ddrank_core.errors import PluginError, nearest, one_line
from ddrank_core.hookspecs import ENTRY_POINT_GROUP, PROJECT
from ddrank_core.manifest import ARGUMENTS, Manifest, read
from ddrank_core.spec import HOOKS, ComponentSpec

FIRST_PARTY = "ddrank"
"""The distribution whose plugins may use bare component names."""

API_VERSION = int(ENTRY_POINT_GROUP.rpartition("v")[2])
"""The plugin API that this ddrank has: the number in the name of the entry points' group."""

CONTAINED = (Exception, SystemExit)
"""What somebody else's code may raise without ending the process: all but Ctrl-C."""

_GROUP = re.compile(rf"{PROJECT}\.v(\d+)")


@attrs.frozen
class Plugin:
    """An entry point of a group `ddrank.vN` and the distribution that brings it, or a one-off file."""

    name: str
    value: str
    distribution: str
    version: str
    load: Callable[[], Any] = attrs.field(eq=False, repr=False)
    api: int = API_VERSION
    file: Path | None = None
    """Of a one-off file: where it is. Its distribution is `file NAME.py`, its version a digest."""

    @property
    def is_first_party(self) -> bool:
        return self.distribution == FIRST_PARTY

    def __str__(self) -> str:
        return f"plugin {self.name} of {self.distribution} {self.version}"


@attrs.frozen
class Fault:
    """A plugin that is out of use, and why, in one line."""

    plugin: Plugin
    reason: str
    advice: str | None = None
    """What to do, where that is not to update the distribution or leave it out; empty for nothing."""

    @property
    def line(self) -> str:
        """The reason, and what to do."""
        if self.advice is None:
            return f"{self.reason}; {_advice(self.plugin)}"
        return f"{self.reason}; {self.advice}" if self.advice else self.reason

    def __str__(self) -> str:
        return f"{self.plugin} is not used: {self.line}"


def _advice(plugin: Plugin) -> str:
    if plugin.file is not None:
        return f"correct {plugin.file.name}"
    if plugin.is_first_party:
        return f"reinstall {FIRST_PARTY}"
    return f"update {plugin.distribution} or leave it out (--without {plugin.distribution})"


# -- what is installed -------------------------------------------------------------------------


def installed() -> tuple[Plugin, ...]:
    """Return every installed plugin of any API version, first-party ones first, without importing any."""
    found: dict[str, dict[str, Plugin]] = {}
    for distribution in metadata.distributions():
        if entries := _entry_points(distribution):
            owner, version = _about(distribution)
            # Of a distribution that is on the path twice, the first copy is the one that gets imported.
            found.setdefault(owner, _plugins(entries, owner, version))
    everyone = (plugin for plugins in found.values() for plugin in plugins.values())
    return tuple(sorted(everyone, key=lambda p: (not p.is_first_party, p.distribution, p.name)))


def _entry_points(distribution: metadata.Distribution) -> list[metadata.EntryPoint]:
    """Return the distribution's plugins, those for this API version first."""
    try:
        # Few distributions bring plugins, and it takes a while to parse the entry points of all.
        if f"{PROJECT}.v" not in (distribution.read_text("entry_points.txt") or ""):
            return []
        entries = [entry for entry in distribution.entry_points if _GROUP.fullmatch(entry.group)]
    except Exception:  # a malformed file of some other distribution; importlib.metadata names no exception
        return []
    return sorted(entries, key=lambda entry: entry.group != ENTRY_POINT_GROUP)


def _about(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return a distribution's name and version."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    # `distribution.metadata` would parse the README behind the headers too, which takes longer than all else.
    headers = dict(line.partition(": ")[::2] for line in text.partition("\n\n")[0].splitlines())
    return headers.get("Name", "an unnamed distribution"), headers.get("Version", "(no version)")


def _plugins(entries: Iterable[metadata.EntryPoint], owner: str, version: str) -> dict[str, Plugin]:
    found: dict[str, Plugin] = {}
    for entry in entries:
        api = int(entry.group.rpartition("v")[2])
        # What a plugin brings for another API version does not matter where it has one for this.
        found.setdefault(entry.name, Plugin(entry.name, entry.value, owner, version, entry.load, api))
    return found


# -- what is in use ----------------------------------------------------------------------------


class PluginHost:
    """The plugins of this process; `faults` holds those that failed, `left_out` those that nobody wants.

    Each plugin that is imported has a pluggy manager of its own: one that fails half-way leaves nothing
    behind in the others' hooks, and an exception is always its own.
    """

    def __init__(self, plugins: Iterable[Plugin], left_out: Iterable[Fault] = ()) -> None:
        self.faults: list[Fault] = []
        self.left_out = tuple(left_out)
        self._manifests: dict[Plugin, Manifest] = {}
        self._managers: dict[Plugin, pluggy.PluginManager] = {}
        self._listening = False
        for plugin in plugins:
            self._add(plugin)

    def _add(self, plugin: Plugin) -> None:
        if plugin.api != API_VERSION:
            behind = FIRST_PARTY if plugin.api > API_VERSION else plugin.distribution
            reason = f"it needs plugin API {plugin.api}, this ddrank has {API_VERSION}"
            self.faults.append(Fault(plugin, reason, f"update {behind}"))
            return
        try:
            self._manifests[plugin] = read(plugin.value)
        except PluginError as error:
            self.faults.append(Fault(plugin, str(error)))

    @property
    def manifests(self) -> Mapping[Plugin, Manifest]:
        """The plugins in use, and what is known of each."""
        return MappingProxyType(self._manifests)

    def look_up(self, hook: str, *, third_party: bool) -> bool:
        """Import plugins of which only an import tells what this registration hook of theirs returns.

        Returns whether there were any. One that raises, or whose hook returns no list, becomes a fault.
        """
        due = [
            plugin
            for plugin, manifest in self._manifests.items()
            if manifest.components is None
            and (manifest.hooks is None or hook in manifest.hooks)
            and (third_party or plugin.is_first_party)
        ]
        for plugin in due:
            try:
                self._manifests[plugin] = _asked(self._manager(plugin))
            except PluginError as error:
                self.drop(plugin, str(error))
        return bool(due)

    def notify(self, hook: str, event: object) -> list[Fault]:
        """Call a lifecycle hook on each plugin; return the plugins that failed, now dropped.

        The first call, which is the start of a run, imports the plugins that listen.
        """
        before = len(self.faults)
        self._listen()
        for plugin, call in self._callers(hook):
            try:
                call(event=event)
            except CONTAINED as error:  # the plugin boundary
                self.drop(plugin, f"its hook {hook} failed: {one_line(error)}")
        return self.faults[before:]

    def uses(self, plugin: Plugin) -> bool:
        """Return whether the plugin is in use: nothing is wrong with it, as far as was looked."""
        return plugin in self._manifests

    def without(self, name: str) -> None:
        """Take a first-party plugin out of this host, as `--quiet` does with the progress display."""
        for plugin in list(self._manifests):
            if plugin.is_first_party and plugin.name == name:
                self._remove(plugin)

    def drop(self, plugin: Plugin, reason: str) -> None:
        """Take a plugin out and record why; the first reason stays."""
        if self._remove(plugin):
            self.faults.append(Fault(plugin, reason))

    def _remove(self, plugin: Plugin) -> bool:
        self._managers.pop(plugin, None)
        return self._manifests.pop(plugin, None) is not None

    def _listen(self) -> None:
        if self._listening:
            return
        self._listening = True
        for plugin, manifest in list(self._manifests.items()):
            try:
                if manifest.may_listen:
                    self._manager(plugin)
            except PluginError as error:
                self.drop(plugin, str(error))

    def _manager(self, plugin: Plugin) -> pluggy.PluginManager:
        """Return the plugin's manager; the plugin is imported for the first one who asks."""
        if plugin not in self._managers:
            self._managers[plugin] = _admit(plugin)
        return self._managers[plugin]

    def _callers(self, hook: str) -> list[tuple[Plugin, pluggy.HookCaller]]:
        callers = ((plugin, getattr(manager.hook, hook)) for plugin, manager in self._managers.items())
        return [(plugin, caller) for plugin, caller in callers if caller.get_hookimpls()]


def _admit(plugin: Plugin) -> pluggy.PluginManager:
    """Import one plugin and check its hooks.

    Raises:
        PluginError: saying what is wrong with it; whose it is stands in the `Fault`.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        implementation = plugin.load()
    except CONTAINED as error:  # the plugin boundary: importing somebody's module may raise anything
        raise PluginError(f"its import failed: {one_line(error)}") from error
    try:
        manager.register(implementation, name=plugin.name)
    except pluggy.PluginValidationError as error:
        raise PluginError(_signature_fault(error)) from error
    except CONTAINED as error:  # reading an attribute of somebody's object may raise anything too
        raise PluginError(f"its hooks cannot be read: {one_line(error)}") from error
    _check_hooks(manager.get_hookcallers(implementation) or [])
    return manager


def _check_hooks(callers: list[pluggy.HookCaller]) -> None:
    for caller in callers:
        required = not all(implementation.optionalhook for implementation in caller.get_hookimpls())
        if required and not caller.has_spec():
            hint = nearest(caller.name, list(ARGUMENTS))
            raise PluginError(
                f"it implements {caller.name}, which is not a hook of {ENTRY_POINT_GROUP}{hint}"
            )
    if not callers:
        raise PluginError("it implements no hook; mark its functions with @ddrank_core.hookimpl")


def _signature_fault(error: pluggy.PluginValidationError) -> str:
    """Return pluggy's complaint in one line: which hook, and the last line of its text."""
    hook = re.search(r"hook '(\w+)'", str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"its hook {hook.group(1) if hook else ''} does not match the specification: {lines[-1]}"


def _asked(manager: pluggy.PluginManager) -> Manifest:
    """Return the manifest of an imported plugin, by calling its registration hooks."""
    callers = {hook: getattr(manager.hook, hook) for hook in ARGUMENTS}
    hooks = tuple(hook for hook, caller in callers.items() if caller.get_hookimpls())
    return Manifest(hooks, {hook: _listed(hook, callers[hook]) for hook in HOOKS.values() if hook in hooks})


def _listed(hook: str, call: pluggy.HookCaller) -> tuple[ComponentSpec, ...]:
    try:
        answers = call()
        # A plugin may be a generator function: its items are made, and may raise, here.
        items = tuple(item for answer in answers if _is_listing(answer) for item in answer)
    except CONTAINED as error:  # the plugin boundary
        raise PluginError(f"its hook {hook} failed: {one_line(error)}") from error
    # pluggy leaves an answer of None out of the answers.
    if not answers or not all(map(_is_listing, answers)):
        raise PluginError(f"its hook {hook} must return a list of ComponentSpec")
    for item in items:
        if not isinstance(item, ComponentSpec):
            raise PluginError(f"its hook {hook} returned {shown(item)}, not a ComponentSpec")
    return items


def _is_listing(answer: object) -> bool:
    return isinstance(answer, Iterable) and not isinstance(answer, (str, bytes, Mapping))


def shown(value: object) -> str:
    """Return somebody's object as text; its own `__repr__` may be as broken as the rest."""
    try:
        text = repr(value)
    except CONTAINED:
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."
