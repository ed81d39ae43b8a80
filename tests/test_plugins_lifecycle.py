"""Hooks: what plugins hear, and what becomes of a listener that raises."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddrank_core import hookspecs
from ddrank_core.events import (
    EpochFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from ddrank_core.plugins import PluginHost, installed
from ddrank_core.registry import default_registry
from ddrank_core.results import TrialResult

RESULT = TrialResult(
    arm="syn-hard",
    phase="final",
    repeat=0,
    learning_rate=0.01,
    seed=1,
    subset_seed=None,
    validation_accuracy=None,
    accuracy=0.5,
    epoch=1,
    diverged=False,
    seconds=0.1,
)

IDENTITY = {"arm": "syn-hard", "phase": "final", "repeat": 0, "learning_rate": 0.01, "seed": 1}
LOST = {"error": "its worker died", "attempt": 1, "final": False}

# Every lifecycle hook, and an event of it.
EVENTS = {
    "ddrank_run_started": RunStarted(name="r", device="cpu", arms=("syn-hard",), trials=1, work=1.0),
    "ddrank_trial_started": TrialStarted(**IDENTITY, attempt=1, at_once=1),
    "ddrank_epoch_finished": EpochFinished(training="teacher 1", epoch=1, epochs=2, work=0),
    "ddrank_trial_finished": TrialFinished(result=RESULT, done=1, total=1, work=0),
    "ddrank_trial_failed": TrialFailed(**IDENTITY, **LOST, done=0, total=1, work=0),
    "ddrank_run_finished": RunFinished(name="r", folder=Path("runs/r"), scores={}, arms={}, seconds=1.0),
    "ddrank_run_failed": RunFailed(name="r", error="out of memory", seconds=1.0),
}

# Every registration hook, and the kind of component that it brings.
REGISTRATIONS = {
    "ddrank_losses": "loss",
    "ddrank_label_mappings": "label-mapping",
    "ddrank_augmentations": "augmentation",
    "ddrank_architectures": "architecture",
    "ddrank_datasets": "dataset",
    "ddrank_methods": "method",
    "ddrank_sinks": "sink",
}

HOOKS = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "ddrank_spec")}


def listener(hooks: tuple[str, ...], body: str = "heard.append(event)") -> str:
    functions = "".join(f"\n@hookimpl\ndef {hook}(event):\n    {body}\n" for hook in hooks)
    return f"from ddrank_core import hookimpl\nheard = []\n{functions}"


def host() -> PluginHost:
    return PluginHost(plugin for plugin in installed() if not plugin.is_first_party)


def test_every_hook_is_in_one_of_the_tables_that_the_tests_run_over():
    assert set(EVENTS) | set(REGISTRATIONS) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_says_in_its_docstring_what_it_is_for(hook):
    assert (HOOKS[hook].__doc__ or "").strip().endswith((".", "`."))


@pytest.mark.parametrize("hook", EVENTS)
def test_a_listener_gets_the_event_itself(install, hook):
    module = install("acme", listener((hook,)))
    plugins = host()
    assert plugins.notify(hook, EVENTS[hook]) == []
    assert sys.modules[module].heard == [EVENTS[hook]]


@pytest.mark.parametrize("hook", EVENTS)
def test_a_listener_hears_only_the_hooks_that_it_implements(install, hook):
    module = install("acme", listener((hook,)))
    plugins = host()
    for other in EVENTS.keys() - {hook}:
        plugins.notify(other, EVENTS[other])
    assert sys.modules[module].heard == []


@pytest.mark.parametrize("hook", REGISTRATIONS)
def test_a_registration_hook_brings_components_of_its_kind(install, hook):
    install(
        "acme",
        "from ddrank_core import ComponentSpec, hookimpl\n@hookimpl\n"
        f"def {hook}(): return [ComponentSpec('acme/thing', 'acme:Thing', 'A thing')]",
    )
    registry = default_registry()
    found = {
        kind for kind in REGISTRATIONS.values() for e in registry.entries(kind) if e.name == "acme/thing"
    }
    assert found == {REGISTRATIONS[hook]}


@pytest.mark.parametrize(
    ("body", "error"),
    [("raise ValueError('bad day\\nmore')", "ValueError: bad day"), ("raise SystemExit(1)", "SystemExit: 1")],
)
def test_a_listener_that_raises_is_dropped_with_one_line_and_the_others_go_on(install, body, error):
    hook = "ddrank_epoch_finished"
    install("acme", listener((hook, "ddrank_run_finished"), f"heard.append(event); {body}"))
    module = install("zeta", listener((hook,)))
    plugins = host()
    faults = plugins.notify(hook, EVENTS[hook])
    assert [str(fault) for fault in faults] == [
        f"plugin main of acme 1.2 is not used: its hook {hook} failed: {error}; "
        "update acme or leave it out (--without acme)"
    ]
    assert plugins.notify(hook, EVENTS[hook]) == []
    assert plugins.notify("ddrank_run_finished", EVENTS["ddrank_run_finished"]) == []
    assert len(sys.modules["acme"].heard) == 1
    assert sys.modules[module].heard == [EVENTS[hook]] * 2


def test_ctrl_c_in_a_listener_still_ends_the_run(install):
    install("acme", listener(("ddrank_run_started",), "raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        host().notify("ddrank_run_started", EVENTS["ddrank_run_started"])


def test_a_plugin_under_another_function_name_hears_each_event_once(install):
    source = "from ddrank_core import hookimpl\nheard = []\n\n"
    source += "@hookimpl(specname='ddrank_run_started')\ndef started(event): heard.append(event)\n"
    module = install("acme", source)
    install("zeta", listener(("ddrank_run_started",)))
    host().notify("ddrank_run_started", EVENTS["ddrank_run_started"])
    assert sys.modules[module].heard == [EVENTS["ddrank_run_started"]]


def test_registration_hooks_are_called_once_for_a_registry(install):
    module = install(
        "acme",
        "from ddrank_core import hookimpl\ncalls = []\n\n"
        "@hookimpl\ndef ddrank_losses():\n    calls.append(1)\n    return []\n",
    )
    registry = default_registry()
    registry.entries("loss")
    registry.find("loss", "ce")
    assert sys.modules[module].calls == [1]


def test_a_listener_is_imported_when_a_run_starts_and_not_before(install):
    module = install("acme", listener(("ddrank_run_finished",)))
    plugins = host()
    assert module not in sys.modules
    plugins.notify("ddrank_run_started", EVENTS["ddrank_run_started"])
    assert sys.modules[module].heard == []


def test_a_plugin_that_only_brings_components_is_not_imported_for_a_run(install):
    computed = "@hookimpl\ndef ddrank_losses():\n    return list(())\n"
    module = install("acme", f"from ddrank_core import hookimpl\n{computed}")
    host().notify("ddrank_run_started", EVENTS["ddrank_run_started"])
    assert module not in sys.modules


def test_a_plugin_whose_hooks_no_source_tells_is_asked_when_a_run_starts(install):
    source = listener(("ddrank_run_started",))
    module = install("acme", f"{source}\nddrank_run_failed = ddrank_run_started\n")
    host().notify("ddrank_run_started", EVENTS["ddrank_run_started"])
    assert sys.modules[module].heard == [EVENTS["ddrank_run_started"]]


def test_a_listener_that_cannot_be_imported_is_one_line_when_a_run_starts(install):
    install("acme", listener(("ddrank_run_finished",)) + "\nimport no_such_module_at_all\n")
    plugins = host()
    assert plugins.faults == []
    faults = plugins.notify("ddrank_run_started", EVENTS["ddrank_run_started"])
    assert [str(fault) for fault in faults] == [
        "plugin main of acme 1.2 is not used: its import failed: ModuleNotFoundError: No module named "
        "'no_such_module_at_all'; update acme or leave it out (--without acme)"
    ]
    assert plugins.notify("ddrank_run_finished", EVENTS["ddrank_run_finished"]) == []
