"""Manifests: what is read from a plugin's source, and that an import would tell the same."""

from __future__ import annotations

import importlib
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ddrank_core.errors import PluginError
from ddrank_core.manifest import ARGUMENTS, LIFECYCLE, Manifest, read, target_fault
from ddrank_core.plugins import Plugin, PluginHost, installed
from ddrank_core.spec import HOOKS, ComponentSpec

Written = Callable[..., str]

SOURCELESS = "_struct"
"""A module of Python's own that is not written in Python."""

FOCAL = ComponentSpec("acme/focal", "acme.focal:Focal", "Focal loss")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Give a function that writes a module and returns its name; what is imported is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(source: str, module: str = "acme") -> str:
        file = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(source)
        importlib.invalidate_caches()
        return module

    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "acme":
            del sys.modules[name]


def imported(module: str) -> PluginHost:
    """Return a host that was made to import the plugin, by an entry point that no source tells about."""
    plugin = Plugin("main", SOURCELESS, "acme", "1.2", lambda: importlib.import_module(module))
    host = PluginHost([plugin])
    host.look_up("ddrank_losses", third_party=True)
    return host


# Ways to write the same manifest


SPEC = 'ComponentSpec("acme/focal", "acme.focal:Focal", "Focal loss")'
NAMES = "from ddrank_core import ComponentSpec, hookimpl\n"
LITERAL = {
    "as the docs show it": f"{NAMES}@hookimpl\ndef ddrank_losses():\n    return [{SPEC}]\n",
    "as a tuple": f"{NAMES}@hookimpl\ndef ddrank_losses():\n    return ({SPEC},)\n",
    "with a docstring and types": (
        f"from __future__ import annotations\n{NAMES}\n@hookimpl\n"
        f'def ddrank_losses() -> list[ComponentSpec]:\n    """Return."""\n    return [{SPEC}]\n'
    ),
    "with keywords and split text": (
        f"{NAMES}@hookimpl\ndef ddrank_losses():\n    return [ComponentSpec(\n"
        '        name="acme/focal", summary="Focal " "loss", target="acme.focal:Focal")]\n'
    ),
    "with the marker called": f"{NAMES}@hookimpl(tryfirst=True)\ndef ddrank_losses():\n    return [{SPEC}]\n",
    "under another function name": (
        f"{NAMES}@hookimpl(specname='ddrank_losses')\ndef losses():\n    return [{SPEC}]\n"
    ),
    "under other names": (
        "from ddrank_core import ComponentSpec as Part, hookimpl as mark\n"
        f"@mark\ndef ddrank_losses():\n    return [{SPEC.replace('ComponentSpec', 'Part')}]\n"
    ),
    "through the package": (
        f"import ddrank_core\n@ddrank_core.hookimpl\ndef ddrank_losses():\n    return [ddrank_core.{SPEC}]\n"
    ),
    "through the package under another name": (
        f"import ddrank_core as dd\n@dd.hookimpl()\ndef ddrank_losses():\n    return [dd.{SPEC}]\n"
    ),
    "through the modules": (
        "from ddrank_core.hookspecs import hookimpl\nfrom ddrank_core.spec import ComponentSpec\n"
        f"@hookimpl\ndef ddrank_losses():\n    return [{SPEC}]\n"
    ),
    "beside other things": (
        f"from typing import TYPE_CHECKING\n{NAMES}if TYPE_CHECKING:\n    from acme import *\n"
        "try:\n    import json\nexcept ImportError:\n    json = None\nLIMIT = 3\n"
        "class Helper:\n    @property\n    def name(self): return ''\n"
        f"def helper(): return LIMIT\n@hookimpl\ndef ddrank_losses():\n    return [{SPEC}]\n"
        "@hookimpl(optionalhook=True)\ndef ddrank_telescopes():\n    return []\n"
    ),
}


@pytest.mark.parametrize("case", LITERAL)
def test_a_literal_manifest_is_read_and_an_import_tells_the_same(written, case):
    module = written(LITERAL[case])
    manifest = read(module)
    assert manifest == Manifest(("ddrank_losses",), {"ddrank_losses": (FOCAL,)})
    assert module not in sys.modules
    (by_import,) = imported(module).manifests.values()
    assert by_import == manifest


def test_a_preset_is_read(written):
    spec = SPEC.replace(")", ", preset={'gamma': 5.0, 'sizes': (1, -2)})")
    module = written(f"{NAMES}@hookimpl\ndef ddrank_losses():\n    return [{spec}]\n")
    (found,) = read(module).components["ddrank_losses"]
    assert found.preset == {"gamma": 5.0, "sizes": (1, -2)}


@pytest.mark.parametrize("hook", ARGUMENTS)
def test_every_hook_is_read(written, hook):
    arguments, body = ("event", "print(event)") if hook in LIFECYCLE else ("", f"return [{SPEC}]")
    manifest = read(written(f"{NAMES}@hookimpl\ndef {hook}({arguments}):\n    {body}\n"))
    assert manifest.hooks == (hook,)
    assert manifest.may_listen == (hook in LIFECYCLE)
    assert manifest.components == ({} if hook in LIFECYCLE else {hook: (FOCAL,)})


def test_the_hooks_of_both_sorts_are_all_of_them():
    assert {*HOOKS.values(), *LIFECYCLE} == set(ARGUMENTS)


FIRST_PARTY = [plugin for plugin in installed() if plugin.is_first_party]


@pytest.mark.parametrize("plugin", FIRST_PARTY, ids=lambda plugin: plugin.name)
def test_of_our_own_plugins_an_import_tells_what_is_read(plugin):
    manifest = read(plugin.value)
    host = PluginHost([Plugin(plugin.name, SOURCELESS, plugin.distribution, plugin.version, plugin.load)])
    host.look_up("ddrank_losses", third_party=False)
    (by_import,) = host.manifests.values()
    assert sorted(by_import.hooks) == sorted(manifest.hooks)
    assert manifest.components in (None, by_import.components)


def test_of_our_own_plugins_two_are_computed():
    computed = [plugin.name for plugin in FIRST_PARTY if read(plugin.value).components is None]
    assert computed == ["datasets", "networks"]


# What only an import tells


COMPUTED = {
    "a comprehension": f"return [{SPEC} for _ in range(1)]",
    "a star": f"return [*[{SPEC}]]",
    "a variable": "return COMPONENTS",
    "a function's result": f"return list([{SPEC}])",
    "a generator": f"yield {SPEC}",
    "two statements": f"found = [{SPEC}]; return found",
    "text that is put together": 'return [ComponentSpec("%s/focal" % "acme", "acme:Focal", "Focal")]',
    "a formatted text": 'return [ComponentSpec(f"{__name__}/focal", "acme:Focal", "Focal")]',
    "a class of its own": "return [int]",
    "unpacked arguments": "return [ComponentSpec(*ARGUMENTS)]",
    "unpacked keywords": "return [ComponentSpec(**ARGUMENTS)]",
}


@pytest.mark.parametrize("case", COMPUTED)
def test_a_computed_list_leaves_the_hooks_known(written, case):
    module = written(f"{NAMES}@hookimpl\ndef ddrank_losses():\n    {COMPUTED[case]}\n")
    assert read(module) == Manifest(("ddrank_losses",), None)
    assert module not in sys.modules


HOOK = f"@hookimpl\ndef ddrank_losses():\n    return [{SPEC}]\n"
UNREADABLE = {
    "a star import": f"{NAMES}{HOOK}from acme_hooks import *\n",
    "a hook that is imported": f"{NAMES}{HOOK}from acme_hooks import ddrank_methods\n",
    "a hook under a condition": f"{NAMES}if True:\n    @hookimpl\n    def ddrank_losses(): return []\n",
    "a hook that is assigned": f"{NAMES}{HOOK}ddrank_methods = print\n",
    "a marker that is called": f"{NAMES}{HOOK}other = hookimpl(specname='ddrank_methods')(print)\n",
    "a marker of its own": "import pluggy\nhookimpl = pluggy.HookimplMarker('ddrank')\n" + HOOK,
    "a marker that is passed on": "from acme_tools import hookimpl\n" + HOOK,
    "two decorators": f"from functools import cache\n{NAMES}@cache\n{HOOK}",
    "an async function": f"{NAMES}{HOOK.replace('def', 'async def')}",
    "a wrapper": f"{NAMES}{HOOK.replace('@hookimpl', '@hookimpl(wrapper=True)')}",
    "options that are computed": f"{NAMES}{HOOK.replace('@hookimpl', '@hookimpl(tryfirst=bool(1))')}",
    "arguments of any number": f"{NAMES}{HOOK.replace('()', '(*more)')}",
    "two functions of a hook": f"{NAMES}{HOOK}@hookimpl(specname='ddrank_losses')\ndef more(): return []\n",
    "no hook in sight": "from acme_hooks import losses\n",
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_module_with_hooks_that_are_not_plain_functions_is_left_to_an_import(written, case):
    module = written(UNREADABLE[case])
    manifest = read(module)
    assert manifest == Manifest(None, None)
    assert manifest.may_listen
    assert module not in sys.modules


def test_an_object_is_left_to_an_import(written):
    module = written("class Plugin: ...\nplugin = Plugin()\n")
    assert read(f"{module}:plugin") == Manifest(None, None)
    assert read(f"{module} : plugin.inner [extra]") == Manifest(None, None)


# What is wrong for certain


SIGNATURES = ["", "event", "event, /", "event, more", "more", "more=1", "event, more=1", "self, event"]


@pytest.mark.parametrize("arguments", SIGNATURES)
def test_a_signature_is_refused_just_when_pluggy_refuses_it(written, arguments):
    module = written(f"{NAMES}@hookimpl\ndef ddrank_run_started({arguments}): ...\n")
    try:
        read(module)
        refused = False
    except PluginError:
        refused = True
    assert refused == bool(imported(module).faults)


def test_an_argument_that_a_hook_is_not_given_is_named(written):
    module = written(f"{NAMES}@hookimpl\ndef ddrank_run_started(event, config, seed): ...\n")
    with pytest.raises(PluginError) as refused:
        read(module)
    assert str(refused.value) == "its hook ddrank_run_started asks for config, seed, and is given event"


def test_a_component_without_a_summary_is_refused_as_an_import_would(written):
    module = written(f"{NAMES}@hookimpl\ndef ddrank_losses(): return [ComponentSpec('acme/a', 'acme:A')]\n")
    with pytest.raises(PluginError) as refused:
        read(module)
    (fault,) = imported(module).faults
    assert str(refused.value) == fault.reason
    assert "TypeError" in fault.reason


# Where a module is


def test_a_module_in_a_package_is_read_without_importing_the_package(written):
    written("raise SystemExit('imported')", "acme.__init__")
    written(LITERAL["as the docs show it"], "acme.inner.plugin")
    written("raise SystemExit('imported')", "acme.inner.__init__")
    assert read("acme.inner.plugin").hooks == ("ddrank_losses",)
    assert not any(name.partition(".")[0] == "acme" for name in sys.modules)


def test_a_package_is_read_from_its_init(written):
    written(LITERAL["as the docs show it"], "acme.__init__")
    assert read("acme").hooks == ("ddrank_losses",)


def test_a_module_in_an_archive_is_read(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "acme.zip", "w") as archive:
        archive.writestr("acme_zipped.py", LITERAL["as the docs show it"])
    monkeypatch.syspath_prepend(tmp_path / "acme.zip")
    assert read("acme_zipped").hooks == ("ddrank_losses",)
    assert "acme_zipped" not in sys.modules


def test_a_module_that_a_package_finds_elsewhere_is_left_to_an_import(written):
    written("__path__.append('/elsewhere')", "acme.__init__")
    assert read("acme.plugin") == Manifest(None, None)


def test_a_module_without_a_source_is_left_to_an_import():
    assert read(SOURCELESS) == Manifest(None, None)


def test_a_module_that_was_made_at_run_time_is_left_to_an_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "acme", ModuleType("acme"))
    assert read("acme") == Manifest(None, None)


def test_an_unwise_escape_in_a_source_says_nothing(written):
    module = written(f"'\\d'\n{LITERAL['as the docs show it']}")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        read(module)
    assert heard == []


# Targets


TARGETS = {
    "acme.parts:Focal": None,
    "acme.parts:Made": None,
    "acme.parts:Imported": None,
    "acme.parts:Guarded": None,
    "acme.lazy:Anything": None,
    "acme.starred:Anything": None,
    "acme.filled:Anything": None,
    "acme.parts:Fokal": "acme.parts has no 'Fokal'",
    "acme.parts:inner": "acme.parts has no 'inner'",
    "acme.gone:Focal": "there is no module 'acme.gone'",
    "acme.parts.deep:Focal": "there is no module 'acme.parts.deep'",
    "acme_gone.parts:Focal": "there is no module 'acme_gone.parts'",
    "acme.wrong:Focal": "acme.wrong cannot be imported: SyntaxError: invalid syntax (wrong.py, line 1)",
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_not_there_shows_in_the_sources(written, target):
    written("", "acme.__init__")
    written(
        "from json import JSONDecoder as Imported\nclass Focal: ...\nMade = type('Made', (), {})\n"
        "try:\n    from fast import Guarded\nexcept ImportError:\n    class Guarded: ...\n"
        "def outer():\n    inner = 1\n",
        "acme.parts",
    )
    written("def __getattr__(name): return int", "acme.lazy")
    written("from json import *", "acme.starred")
    written("globals()['Any' + 'thing'] = int", "acme.filled")
    written("class", "acme.wrong")
    assert target_fault(target) == TARGETS[target]
    assert "acme" not in sys.modules


def test_every_target_of_our_own_plugins_is_there():
    targets = [
        spec.target
        for plugin in FIRST_PARTY
        for specs in (read(plugin.value).components or {}).values()
        for spec in specs
    ]
    assert len(targets) > 20
    assert [fault for fault in map(target_fault, targets) if fault] == []
