"""What needs no network must not import what makes a start slow."""

from __future__ import annotations

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


def launch(*arguments: str, folder: Path) -> tuple[int, list[str], set[str]]:
    """Run the launcher in a process of its own; return its exit code, what it said and what it imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=folder, capture_output=True, text=True, check=True
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
