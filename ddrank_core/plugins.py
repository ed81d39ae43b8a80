"""Finds plugins, keeps a broken one from breaking the others, and says what broke.

`installed()` reads entry points without importing anything. `PluginHost` imports them, checks
each against the hook specs and calls their hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from typing import Any

import attrs
import pluggy

from ddrank_core import hookspecs
from ddrank_core.errors import one_line
from ddrank_core.hookspecs import ENTRY_POINT_GROUP, PROJECT

FIRST_PARTY = "ddrank"
"""The distribution whose plugins may use bare component names."""


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
    found = {
        (entry.name, distribution.metadata["Name"]): Plugin(
            entry.name,
            entry.value,
            distribution.metadata["Name"],
            distribution.version,
            entry.load,
        )
        for distribution in metadata.distributions()
        for entry in distribution.entry_points
        if entry.group == ENTRY_POINT_GROUP
    }
    return tuple(sorted(found.values(), key=lambda p: (not p.is_first_party, p.distribution, p.name)))


class PluginHost:
    """The plugins of this process, imported and checked; `faults` holds those that failed."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.faults: list[Fault] = []
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        for plugin in plugins:
            if reason := self._register(plugin):
                self.faults.append(Fault(plugin, reason))

    def _register(self, plugin: Plugin) -> str | None:
        """Import one plugin and check its hooks; return what is wrong with it, or None."""
        key = f"{plugin.distribution}:{plugin.name}"
        try:
            implementation = plugin.load()
        # The plugin boundary: importing somebody's module may raise anything, SystemExit included.
        except (Exception, SystemExit) as error:
            return f"its import failed: {one_line(error)}"
        try:
            self._manager.register(implementation, name=key)
        except (pluggy.PluginValidationError, ValueError) as error:
            self._manager.unregister(name=key)
            return f"a hook does not match its specification: {_signature_fault(error)}"
        if unknown := self._unknown_hooks(key):
            self._manager.unregister(name=key)
            return f"it implements {', '.join(unknown)}, which is not a hook of {ENTRY_POINT_GROUP}"
        self._plugins[key] = plugin
        return None

    def _unknown_hooks(self, key: str) -> list[str]:
        callers = self._manager.get_hookcallers(self._manager.get_plugin(key)) or []
        return sorted(caller.name for caller in callers if not caller.has_spec())

    def collect(self, hook: str) -> Iterable[tuple[Plugin, Sequence[Any]]]:
        """Call a registration hook on each plugin; one that raises becomes a fault."""
        for key, plugin in list(self._plugins.items()):
            try:
                answers = list(self._only(hook, key)())
            except Exception as error:  # the plugin boundary
                self._drop(key, f"its hook {hook} failed: {one_line(error)}")
                continue
            for answer in answers:
                yield plugin, answer

    def notify(self, hook: str, event: object) -> list[Fault]:
        """Call a lifecycle hook on each plugin; return the plugins that raised, now dropped."""
        before = len(self.faults)
        for key in list(self._plugins):
            try:
                self._only(hook, key)(event=event)
            except Exception as error:  # the plugin boundary
                self._drop(key, f"its hook {hook} failed: {one_line(error)}")
        return self.faults[before:]

    def without(self, name: str) -> None:
        """Take a first-party plugin out of this host, as `--quiet` does with the progress display."""
        key = f"{FIRST_PARTY}:{name}"
        if self._plugins.pop(key, None):
            self._manager.unregister(name=key)

    def drop(self, plugin: Plugin, reason: str) -> None:
        """Take a plugin out and record why."""
        self._drop(f"{plugin.distribution}:{plugin.name}", reason)

    def _drop(self, key: str, reason: str) -> None:
        self.faults.append(Fault(self._plugins.pop(key), reason))
        self._manager.unregister(name=key)

    def _only(self, hook: str, key: str) -> pluggy.HookCaller:
        others = [plugin for name, plugin in self._manager.list_name_plugin() if name != key]
        return self._manager.subset_hook_caller(hook, [p for p in others if p is not None])


def _signature_fault(error: Exception) -> str:
    """Return the last line of pluggy's multi-line message, which names the argument."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("Plugin", "(Did"))) or one_line(error)
