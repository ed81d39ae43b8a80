"""What needs no network must not import what makes a start slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "numpy", "timm", "kornia", "sklearn", "matplotlib", "scipy")
ALSO_NOT_FOR_HELP = ("attrs", "attr", "cattrs", "pluggy", "yaml", "rich")

SCRIPT = """
import sys
from ddrank_core.cli.main import main
code = main(sys.argv[1:])
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""

CONFIG = """
dataset: digits
distilled: {path: set.safetensors}
student: {use: convnet, depht: 2}
recipe: {labels: hard, loss: ce, augmentation: dsa, optimizer: sgd, schedule: constant, epochs: 5}
full_data: {accuracy: 0.9, source: measured}
protocol: strict
"""


def launch(*arguments: str, folder: Path, site: Path | None = None) -> tuple[int, list[str], set[str]]:
    """Run the launcher in a process of its own; return its exit code, what it said and what it imported.

    `site` is one more folder with installed distributions.
    """
    places = [str(place) for place in (site, os.environ.get("PYTHONPATH")) if place]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )
    *errors, last = done.stderr.splitlines()
    code, *modules = last.split()
    return int(code), done.stdout.splitlines() + errors, set(modules)


def test_the_deny_list_sees_an_import(tmp_path):
    assert "click" in launch("--help", folder=tmp_path)[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["list"],
        ["list", "losses"],
        ["list", "augmentation", "d*"],
        ["show", "loss", "kl"],
        ["show", "architecture", "convnet"],
        ["show", "protocol", "strict"],
        *(
            [command, "--help"]
            for command in ("run", "check", "import", "distill", "list", "show", "plugins")
        ),
    ],
    ids=" ".join,
)
def test_a_command_that_trains_nothing_starts_light(tmp_path, arguments):
    code, said, modules = launch(*arguments, folder=tmp_path)
    assert (code, modules & set(HEAVY)) == (0, set())
    assert said


def test_every_first_party_component_is_shown_without_anything_heavy(tmp_path):
    script = """
import sys
from ddrank_core.cli.show import _sections
from ddrank_core.registry import ALL_KINDS, default_registry
registry = default_registry()
for kind in ALL_KINDS:
    for entry in registry.entries(kind):
        component = None if entry.spec.is_family else registry.load(kind, entry.name)
        assert list(_sections(entry, entry.name, component))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & set(HEAVY) == set()


def test_help_imports_click_and_the_standard_library_only(tmp_path):
    modules = launch("--help", folder=tmp_path)[2]
    assert modules & {*HEAVY, *ALSO_NOT_FOR_HELP} == set()


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_config_error_comes_before_anything_heavy(tmp_path, command):
    (tmp_path / "run.yaml").write_text(CONFIG)
    code, said, modules = launch(command, "run.yaml", folder=tmp_path)
    assert said == ["error: run.yaml: student.depht: unknown field (did you mean 'depth'?)"]
    assert (code, modules & set(HEAVY)) == (2, set())
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_a_missing_distilled_set_is_found_before_anything_heavy(tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG.replace("depht", "depth"))
    code, said, modules = launch("check", "run.yaml", folder=tmp_path)
    assert said == [
        "error: run.yaml: distilled.path: no such file: set.safetensors; "
        "'ddrank import' makes one from what a method published"
    ]
    assert (code, modules & set(HEAVY)) == (2, set())


STRANGERS = [f"acme{number}" for number in range(20)]


@pytest.fixture
def twenty(install, tmp_path) -> Path:
    """Twenty installed plugins of others, each with a loss and a listener; return where they are."""
    for name in STRANGERS:
        install(
            name,
            "from ddrank_core import ComponentSpec, component, hookimpl\n\n"
            "@hookimpl\ndef ddrank_losses():\n"
            f"    return [ComponentSpec('{name}/focal', '{name}:Focal', 'Focal loss')]\n\n"
            "@hookimpl\ndef ddrank_run_started(event): ...\n\n"
            "@component\nclass Focal: ...\n",
        )
    return tmp_path / "site-packages"


def test_of_twenty_plugins_the_one_that_is_used_is_imported(tmp_path, twenty):
    code, said, modules = launch("show", "loss", "acme7/focal", folder=tmp_path, site=twenty)
    assert (code, modules & set(STRANGERS)) == (0, {"acme7"})
    assert said[0] == "loss acme7/focal"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plugins"],
        ["list"],
        ["list", "losses"],
        ["show", "loss", "kl"],
        ["show", "loss", "acme7/x"],
    ],
    ids=" ".join,
)
def test_of_twenty_plugins_none_is_imported_by_a_command_that_uses_none(tmp_path, twenty, arguments):
    _, said, modules = launch(*arguments, folder=tmp_path, site=twenty)
    assert modules & {*STRANGERS, *HEAVY} == set()
    if arguments[0] in ("plugins", "list"):
        assert all(any(f"{name}/focal" in line for line in said) for name in STRANGERS)


def test_of_twenty_plugins_none_is_imported_by_a_config_that_uses_none(tmp_path, twenty):
    (tmp_path / "run.yaml").write_text(CONFIG.replace("depht", "depth"))
    code, said, modules = launch("check", "run.yaml", folder=tmp_path, site=twenty)
    assert (code, modules & set(STRANGERS)) == (2, set())
    assert said[0].startswith("error: run.yaml: distilled.path: no such file")
