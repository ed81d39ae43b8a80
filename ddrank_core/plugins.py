"""Finds plugins, keeps a broken one from breaking the others, and says what broke.

`installed()` reads entry points without importing anything. `PluginHost` imports them, checks
each against the hook specs and calls their hooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

import attrs
import pluggy

from ddrank_core import hookspecs
from ddrank_core.errors import PluginError, nearest, one_line
from ddrank_core.hookspecs import ENTRY_POINT_GROUP, PROJECT

FIRST_PARTY = "ddrank"
"""The distribution whose plugins may use bare component names."""

CONTAINED = (Exception, SystemExit)
"""What somebody else's code may raise without ending the process: all but Ctrl-C."""


@attrs.frozen
class Plugin:
    """An entry point of the group `ddrank.v1`, and the distribution that brings it."""

    name: str
    value: str
    distribution: str
    version: str
    load: Callable[[], Any] = attrs.field(eq=False, repr=False)

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

    def __str__(self) -> str:
        return f"{self.plugin} is not used: {self.reason}"


def installed() -> tuple[Plugin, ...]:
    """Return every installed plugin, first-party ones first, without importing any."""
    found: dict[tuple[str, str], Plugin] = {}
    for distribution in metadata.distributions():
        for entry in _entry_points(distribution):
            # Of a distribution that is on the path twice, the first copy is the one that gets imported.
            plugin = _plugin(entry, distribution)
            found.setdefault((plugin.name, plugin.distribution), plugin)
    return tuple(sorted(found.values(), key=lambda p: (not p.is_first_party, p.distribution, p.name)))


def _entry_points(distribution: metadata.Distribution) -> list[metadata.EntryPoint]:
    try:
        return [entry for entry in distribution.entry_points if entry.group == ENTRY_POINT_GROUP]
    except Exception:  # a malformed file of some other distribution; importlib.metadata names no exception
        return []


def _plugin(entry: metadata.EntryPoint, distribution: metadata.Distribution) -> Plugin:
    about: Mapping[str, str] = dict(distribution.metadata.items())  # type: ignore[attr-defined]
    owner, version = about.get("Name", "an unnamed distribution"), about.get("Version", "(no version)")
    return Plugin(entry.name, entry.value, owner, version, entry.load)


class PluginHost:
    """The plugins of this process, imported and checked; `faults` holds those that failed.

    Each plugin has a pluggy manager of its own: one that fails half-way leaves nothing behind in
    the others' hooks, and an exception is always its own.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.faults: list[Fault] = []
        self._managers: dict[Plugin, pluggy.PluginManager] = {}
        for plugin in plugins:
            try:
                self._managers[plugin] = _admit(plugin)
            except PluginError as error:
                self.faults.append(Fault(plugin, str(error)))

    def collect(self, hook: str) -> Iterator[tuple[Plugin, tuple[object, ...]]]:
        """Call a registration hook on each plugin; one that raises or returns no list becomes a fault."""
        for plugin, call in self._callers(hook):
            try:
                answers = call()
                # A plugin may be a generator function: its items are made, and may raise, here.
                manifest = tuple(item for answer in answers if _is_listing(answer) for item in answer)
            except CONTAINED as error:  # the plugin boundary
                self.drop(plugin, f"its hook {hook} failed: {one_line(error)}")
                continue
            # pluggy leaves an answer of None out of the answers.
            if not answers or not all(map(_is_listing, answers)):
                self.drop(plugin, f"its hook {hook} must return a list of ComponentSpec")
                continue
            yield plugin, manifest

    def notify(self, hook: str, event: object) -> list[Fault]:
        """Call a lifecycle hook on each plugin; return the plugins that raised, now dropped."""
        before = len(self.faults)
        for plugin, call in self._callers(hook):
            try:
                call(event=event)
            except CONTAINED as error:  # the plugin boundary
                self.drop(plugin, f"its hook {hook} failed: {one_line(error)}")
        return self.faults[before:]

    def uses(self, plugin: Plugin) -> bool:
        """Return whether the plugin is in use: it loaded and has not been dropped."""
        return plugin in self._managers

    def without(self, name: str) -> None:
        """Take a first-party plugin out of this host, as `--quiet` does with the progress display."""
        for plugin in list(self._managers):
            if plugin.is_first_party and plugin.name == name:
                del self._managers[plugin]

    def drop(self, plugin: Plugin, reason: str) -> None:
        """Take a plugin out and record why; the first reason stays."""
        if self._managers.pop(plugin, None):
            self.faults.append(Fault(plugin, reason))

    def _callers(self, hook: str) -> list[tuple[Plugin, pluggy.HookCaller]]:
        callers = ((plugin, getattr(manager.hook, hook)) for plugin, manager in self._managers.items())
        return [(plugin, caller) for plugin, caller in callers if caller.get_hookimpls()]


def _is_listing(answer: object) -> bool:
    return isinstance(answer, Iterable) and not isinstance(answer, (str, bytes, Mapping))


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
    known = [name for name in vars(hookspecs) if name.startswith(f"{PROJECT}_")]
    for caller in callers:
        required = not all(implementation.optionalhook for implementation in caller.get_hookimpls())
        if required and not caller.has_spec():
            hint = nearest(caller.name, known)
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
