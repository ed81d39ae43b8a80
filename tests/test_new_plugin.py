"""`ddrank new-plugin`: what it writes is a working package, or nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ddrank_core import __version__, manifest
from ddrank_core.cli import main as launcher
from ddrank_core.cli import new_plugin
from ddrank_core.spec import HOOKS, KINDS

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "loss": "acme/focal",
    "label-mapping": "acme/teacher-smoothing",
    "augmentation": "acme/random-erasing",
    "architecture": "acme/all-cnn",
    "dataset": "acme/bars-and-stripes",
    "method": "acme/herding",
    "sink": "acme/markdown-table",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def of_kinds(kinds: tuple[str, ...]) -> Iterator[str]:
    for kind in kinds:
        yield from ("--kind", kind)


def written(folder: Path, *kinds: str, name: str = "ddrank-acme") -> Path:
    """Write a package below `folder` and return its own folder."""
    place = folder / "package"
    assert 0 == launcher.main(["new-plugin", name, *of_kinds(kinds), "--folder", str(place)])
    return place


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line in which the command refuses."""
    code = launcher.main(["new-plugin", *arguments])
    captured = capsys.readouterr()
    assert (2, "") == (code, captured.out)
    (line,) = captured.err.splitlines()
    return line.removeprefix("error: ")


# What it writes


def test_a_loss_is_written_unless_another_kind_is_asked_for(here, capsys):
    assert 0 == launcher.main(["new-plugin", "ddrank-acme"])
    assert [
        "README.md",
        "ddrank_acme/__init__.py",
        "ddrank_acme/focal.py",
        "example/distill.yaml",
        "example/run.yaml",
        "pyproject.toml",
        "tests/test_contract.py",
        "tests/test_focal.py",
    ] == files(here / "ddrank-acme")
    said = capsys.readouterr().out.splitlines()
    assert ["wrote ddrank-acme", "  loss  acme/focal  ddrank-acme/ddrank_acme/focal.py", "next:"] == said[:3]


def test_the_commands_that_come_next_are_those_of_the_readme(here, capsys):
    assert 0 == launcher.main(["new-plugin", "ddrank-acme"])
    said = capsys.readouterr().out
    enter, *commands = [line.strip() for line in said.partition("next:\n")[2].splitlines()]
    assert "cd ddrank-acme" == enter
    readme = (here / "ddrank-acme" / "README.md").read_text().splitlines()
    assert commands == [line for line in readme if line in commands]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_brings_its_component_in_a_manifest_that_is_read_and_not_imported(
    tmp_path, monkeypatch, kind
):
    place = written(tmp_path, kind)
    monkeypatch.syspath_prepend(place)
    ((hook, (spec,)),) = manifest.read("ddrank_acme").components.items()
    assert "ddrank_acme" not in sys.modules
    assert (HOOKS[kind], NAMES[kind]) == (hook, spec.name)
    module, _, cls = spec.target.partition(":")
    assert f"class {cls}:" in (place / f"{module.replace('.', '/')}.py").read_text()
    assert f"| {kind} | `{spec.name}` | {spec.summary} |" in (place / "README.md").read_text()


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids=" ".join)
@pytest.mark.parametrize("name", ["x", "zeta", f"ddrank-{'long-' * 9}name"])
def test_the_code_compiles_and_is_clean(tmp_path, kinds, name):
    place = written(tmp_path, *kinds, name=name)
    sources = list(place.rglob("*.py"))
    assert 2 + 2 * len(kinds) == len(sources)
    for file in sources:
        compile(file.read_text(), file, "exec")
    for command in (["check"], ["format", "--check"]):
        options = ["--no-cache", "--config", ROOT / "pyproject.toml"]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options, "."], cwd=place, capture_output=True, text=True
        )
        assert 0 == done.returncode, done.stdout


def test_the_package_says_what_it_is_and_needs(tmp_path):
    place = written(tmp_path)
    project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    assert "ddrank-acme" == project["name"]
    assert [f"ddrank>={__version__}"] == project["dependencies"]
    assert {"ddrank.v1": {"acme": "ddrank_acme"}} == project["entry-points"]
    assert "license" not in project


def test_kinds_come_together_in_one_package_and_each_once(tmp_path):
    place = written(tmp_path, "method", "loss", "method")
    assert ["__init__.py", "focal.py", "herding.py"] == files(place / "ddrank_acme")
    distil = yaml.safe_load((place / "example" / "distill.yaml").read_text())
    run = yaml.safe_load((place / "example" / "run.yaml").read_text())
    assert ("acme/herding", "acme/focal") == (distil["method"], run["recipe"]["loss"]["use"])


def test_a_teacher_is_trained_where_labels_ask_one(tmp_path):
    run = yaml.safe_load((written(tmp_path, "label-mapping") / "example" / "run.yaml").read_text())
    assert 1 == len(run["teachers"])


def test_the_folder_is_as_open_as_any_other(here):
    launcher.main(["new-plugin", "ddrank-acme"])
    Path("other").mkdir()
    assert Path("other").stat().st_mode == Path("ddrank-acme").stat().st_mode


def test_writing_imports_nothing_heavy(here):
    script = "import sys; from ddrank_core.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", script, "new-plugin", "ddrank-acme"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "yaml", "cattrs"}.isdisjoint(done.stdout.splitlines()[-1].split())


# What becomes of it


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Install a package with every kind as pip does; return its folder, and the environment that has it."""
    folder = tmp_path_factory.mktemp("installed")
    place = written(folder, *KINDS)
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", folder / "site", place]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return place, {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DDRANK_CACHE": str(folder / "cache")}


def in_package(installed: tuple[Path, dict[str, str]], *arguments: str) -> str:
    """Run a module of Python in the package's folder and return what it says."""
    place, environment = installed
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=place, env=environment, capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass_at_once_and_hold_as_many_checks_as_was_written(installed):
    said = in_package(installed, "pytest", "-v", "-p", "no:cacheprovider")
    assert re.search(r"= \d+ passed in", said.splitlines()[-1])
    of = re.findall(r"^tests/test_contract.py::test_contract\[(\S+): ", said, flags=re.MULTILINE)
    for kind, name in NAMES.items():
        assert new_plugin._STARTERS[kind].checks == of.count(name)
    assert new_plugin._PACKAGE_CHECKS == of.count("ddrank-acme")


def test_its_components_are_listed_and_shown(installed):
    listed = in_package(installed, "ddrank_core", "list")
    assert all(name in listed for name in NAMES.values())
    assert "ddrank-acme 0.1.0" in in_package(installed, "ddrank_core", "show", "loss", "acme/focal")


def test_an_evaluation_runs_with_all_of_it(installed):
    place, _ = installed
    in_package(installed, "ddrank_core", "distill", "example/distill.yaml")
    fewer = ["recipe.epochs=2", "protocol.repeats=2", "protocol.learning_rates=[0.05]"]
    overrides = [word for override in fewer for word in ("--set", override)]
    options = ["--out", "run", "--quiet", "--sink", "acme/markdown-table"]
    in_package(installed, "ddrank_core", "run", "example/run.yaml", *options, *overrides)
    record = json.loads((place / "run" / "record.json").read_text())
    used = {part["name"] for part in record["components"] if part["distribution"] == "ddrank-acme"}
    # The method's name stands in the distilled set, for a run does not use it; a sink changes no result.
    assert set(NAMES.values()) - {"acme/herding", "acme/markdown-table"} == used
    assert len((place / "run" / "trials.md").read_text().splitlines()) == 4 + len(record["trials"])
    assert "acme/herding" in json.dumps(record)


# What it refuses

FREE = "letters, digits and, inside, '.', '_' and '-'; such as ddrank-acme"
BAD_NAMES = {
    "": f"'' cannot be a package's name: {FREE}",
    "acme!": f"'acme!' cannot be a package's name: {FREE}",
    "-acme": "no such option -a; see 'ddrank new-plugin --help'",
    "acme-": f"'acme-' cannot be a package's name: {FREE}",
    "../acme": f"'../acme' cannot be a package's name: {FREE}",
    "acmé": f"'acmé' cannot be a package's name: {FREE}",
    "3d": "'3d': Python cannot import '3d'; 'ddrank-3d' would do",
    "class": "'class': Python cannot import 'class'; 'ddrank-class' would do",
    "json": "'json': there is a module 'json' already; choose another name",
    "torch": "'torch': there is a module 'torch' already; choose another name",
    "tests": "'tests': the package has a folder 'tests' for others; choose another name",
    "ddrank-losses": "'ddrank-losses': there is a module 'ddrank_losses' already; choose another name",
    "ddrank": "'ddrank' is the project's own name; choose another, such as ddrank-acme",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_package_can_have_is_refused_and_nothing_is_written(here, capsys, name):
    assert BAD_NAMES[name] == refusal(capsys, name)
    assert [] == list(here.iterdir())


@pytest.mark.parametrize("spelling", ["DDRank_Acme", "ddrank.acme", "ddrank--acme"])
def test_all_spellings_of_a_name_are_one(here, spelling):
    assert 0 == launcher.main(["new-plugin", spelling])
    assert ["ddrank-acme"] == [path.name for path in here.iterdir()]


def test_a_number_may_follow_the_prefix(here):
    assert 0 == launcher.main(["new-plugin", "ddrank-123"])
    assert "123" == yaml.safe_load(Path("ddrank-123", "example", "run.yaml").read_text())["name"]


def test_without_the_prefix_the_name_is_the_vendor_too(here):
    assert 0 == launcher.main(["new-plugin", "acme"])
    assert '"acme/focal"' in (here / "acme" / "acme" / "__init__.py").read_text()


def test_a_plugin_that_is_installed_can_be_written_again(here, install):
    install("ddrank-acme", "")
    assert 0 == launcher.main(["new-plugin", "ddrank-acme"])


def test_the_module_of_another_distribution_cannot(here, install, capsys):
    install("acme-tools", "", value="acme_tools")
    (here.parent / "site-packages" / "ddrank_acme.py").write_text("")
    expected = "'ddrank-acme': there is a module 'ddrank_acme' already; choose another name"
    assert expected == refusal(capsys, "ddrank-acme")


@pytest.mark.parametrize("content", [None, "mine"])
def test_a_folder_that_exists_is_left_as_it_is(here, capsys, content):
    Path("ddrank-acme").mkdir()
    if content:
        Path("ddrank-acme", "notes.txt").write_text(content)
    assert "ddrank-acme: exists; remove it, or give another --folder" == refusal(capsys, "ddrank-acme")
    assert (["ddrank-acme/notes.txt"] if content else []) == files(here)


def test_a_folder_without_a_parent_is_refused(here, capsys):
    assert "a/b: no such folder: a" == refusal(capsys, "ddrank-acme", "--folder", "a/b")
    assert [] == list(here.iterdir())


def test_what_the_disk_refuses_is_one_line_and_leaves_nothing(here, capsys):
    long = "a" * 300
    assert f"{long}: cannot be written: File name too long" == refusal(capsys, "acme", "--folder", long)
    assert [] == list(here.iterdir())


def test_a_kind_that_no_plugin_brings_is_refused(here, capsys):
    said = refusal(capsys, "ddrank-acme", "--kind", "optimizer")
    assert "'optimizer' is not one of 'loss', 'label-mapping'" in said
    assert [] == list(here.iterdir())
