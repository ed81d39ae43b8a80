"""`ddrank plugins`: what is installed, what it brings and what is wrong with it, without an import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ddrank_core.cli.text import table

if TYPE_CHECKING:
    from ddrank_core.manifest import Manifest
    from ddrank_core.plugins import Plugin
    from ddrank_core.registry import Registry

HEADER = ("DISTRIBUTION", "VERSION", "API", "PLUGIN", "STATE", "WHAT IT BRINGS, OR WHY IT IS NOT USED")


@click.command("plugins")
def command() -> None:
    """List the installed plugins: distribution, version, plugin API, state, and what each brings.

    No plugin is imported; what stands here is read from sources. The states:

    \b
        good      what it brings can be used, as far as sources tell
        computed  what it brings only an import tells, which 'ddrank list' does
        in part   some of what it brings cannot be used
        broken    it is not used
        left out  it is not used, as --only, --without or DDRANK_PLUGINS asks
    """
    from ddrank_core.registry import default_registry

    click.echo(table([HEADER, *rows(default_registry())]))


def rows(registry: Registry) -> list[tuple[str, ...]]:
    """Return a line for each plugin of a registry that has looked nothing up yet."""
    host = registry.host
    found = {plugin: _in_use(registry, plugin, manifest) for plugin, manifest in host.manifests.items()}
    found |= {fault.plugin: ("broken", fault.line) for fault in host.faults}
    found |= {fault.plugin: ("left out", fault.line) for fault in host.left_out}
    order = sorted(found, key=lambda plugin: (not plugin.is_first_party, plugin.distribution, plugin.name))
    return [(p.distribution, p.version, str(p.api), p.name, *found[p]) for p in order]


def _in_use(registry: Registry, plugin: Plugin, manifest: Manifest) -> tuple[str, str]:
    """Return the state of a plugin, and what it brings."""
    brings = list(_brings(manifest))
    if manifest.components is None:
        return "computed", "; ".join([*brings, "read when components are looked up"])
    broken = [*_missing(manifest), *registry.conflicts_of(plugin)]
    return ("in part" if broken else "good"), "; ".join([*brings, *broken])


def _brings(manifest: Manifest) -> Iterator[str]:
    from ddrank_core.manifest import LIFECYCLE
    from ddrank_core.spec import HOOKS

    hooks = manifest.hooks or ()
    for kind, hook in HOOKS.items():
        if hook in hooks:
            specs = (manifest.components or {}).get(hook)
            yield kind if specs is None else f"{kind}: {', '.join(spec.name for spec in specs)}"
    if heard := [hook.removeprefix("ddrank_").replace("_", " ") for hook in hooks if hook in LIFECYCLE]:
        yield f"listens: {', '.join(heard)}"


def _missing(manifest: Manifest) -> Iterator[str]:
    """Yield a sentence for each component whose target is not there."""
    from ddrank_core.manifest import target_fault

    for specs in (manifest.components or {}).values():
        for spec in specs:
            if fault := target_fault(spec.target):
                yield f"but {spec.name} cannot be loaded from {spec.target}: {fault}"
