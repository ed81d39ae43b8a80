"""Distributions of others, installed by pip: one that uses all there is, and broken ones beside it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from tiny_case import RECIPE, write_case

import ddrank_core
from ddrank_core.testing import suite
from ddrank_core.testing.case import ContractBroken

THIRD_PARTY = Path(__file__).parent / "third_party"
ACME = THIRD_PARTY / "ddrank-acme"
BROKEN = sorted((THIRD_PARTY / "broken").iterdir())


def not_used(distribution: str, reason: str, advice: str | None = None, plugin: str = "main") -> str:
    """Return the one line about a plugin that is out of use."""
    usual = f"update {distribution} or leave it out (--without {distribution})"
    return f"plugin {plugin} of {distribution} 0.1 is not used: {reason}; {advice or usual}"


def why(line: str) -> str:
    """Return the reason and the advice of such a line."""
    return line.partition(" is not used: ")[2]


BARE = not_used("broken-bare", "'ce' is a bare name, which only ddrank may use; call it 'vendor/ce'")
FUTURE = not_used("broken-future", "it needs plugin API 2, this ddrank has 1", "update ddrank")
SIGNATURE = not_used("broken-signature", "its hook ddrank_losses asks for config, and is given nothing")
SPELLING = not_used(
    "broken-spelling",
    "it implements ddrank_loses, which is not a hook of ddrank.v1 (did you mean 'ddrank_losses'?)",
)
IMPORT = not_used(
    "broken-import",
    "its import failed: ModuleNotFoundError: No module named 'a_backend_that_nobody_has'",
)
TWINS = (
    "loss 'twin/loss' is claimed by broken-twin-one 0.1 and broken-twin-two 0.1; neither is used: "
    "uninstall one, or give --without"
)
READ = [FUTURE, SIGNATURE, SPELLING, BARE]
"""What every command says of plugins that it does not use: it shows in their sources."""


def not_loaded(name: str, distribution: str, target: str, error: str) -> str:
    """Return the one line about a component that is not there."""
    whose = f"loss '{name}' of {distribution} 0.1 cannot be loaded from {target}"
    return f"{whose}: {error}; update or reinstall {distribution}"


# A loss that a config uses -> what is said of it.
USED = {
    "import/loss": f"no loss 'import/loss'; {IMPORT}",
    "import-late/loss": not_loaded(
        "import-late/loss",
        "broken-import-late",
        "broken_import_late:Loss",
        "ModuleNotFoundError: No module named 'a_backend_that_nobody_has'",
    ),
    "signature/loss": f"no loss 'signature/loss'; {SIGNATURE}",
    "spelling/loss": f"no loss 'spelling/loss'; {SPELLING}",
    "future/loss": f"no loss 'future/loss'; {FUTURE}",
    "twin/loss": TWINS,
    "target/module": not_loaded(
        "target/module",
        "broken-target",
        "broken_target_losses:Loss",
        "ModuleNotFoundError: No module named 'broken_target_losses'",
    ),
    "target/class": not_loaded(
        "target/class",
        "broken-target",
        "broken_target:Los",
        "AttributeError: module 'broken_target' has no attribute 'Los'",
    ),
}

# A component of broken-midway -> where a config uses it, and what it says when it raises.
MIDWAY = {
    "loss": ("recipe.loss=midway/loss", "ArithmeticError: the loss has lost count"),
    "architecture": ("student=midway/network", "ArithmeticError: the network is tired"),
}

LAUNCH = """
import sys
from ddrank_core.cli.main import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""

Completed = subprocess.CompletedProcess[str]


@attrs.frozen
class Said:
    """What a command came to, in a process of its own."""

    code: int
    lines: list[str]
    """Of stdout."""
    errors: list[str]
    """Of stderr."""
    imported: frozenset[str]
    """The modules that are there at its end."""


@attrs.frozen
class Site:
    """A folder that pip has installed the distributions into."""

    folder: Path

    def python(self, *arguments: str | Path, at: Path, **environment: str) -> Completed:
        """Run Python in the folder `at`, with what is installed."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=at,
            env=self._environment(at) | environment,
            capture_output=True,
            text=True,
        )

    def ddrank(self, *arguments: str, at: Path, **environment: str) -> Said:
        """Run a command of the launcher."""
        done = self.python("-c", LAUNCH, *arguments, at=at, **environment)
        *errors, imported = done.stderr.splitlines()
        return Said(done.returncode, done.stdout.splitlines(), errors, frozenset(imported.split()))

    def modules(self) -> set[str]:
        """Return what the distributions bring for import."""
        found = {path.stem for path in self.folder.iterdir() if not path.name.endswith(".dist-info")}
        return found - {"__pycache__"}

    def _environment(self, at: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "DDRANK_PLUGINS"}
        path = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return inherited | {"PYTHONPATH": os.pathsep.join(path), "DDRANK_CACHE": str(at / "cache")}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--target", folder]
    subprocess.run([*pip, *options, ACME, *BROKEN], check=True, capture_output=True)
    return Site(folder)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    """Give a folder with a config of the project's own components, `case.yaml`, and one of acme's."""
    folder = tmp_path_factory.mktemp("cases")
    protocol = {"use": "strict", "repeats": 2, "learning_rates": [0.05]}
    recipe = RECIPE | {
        "labels": {"use": "acme/corrected", "temperature": 2.0},
        "loss": {"use": "acme/focal", "gamma": 1.0},
        "augmentation": [{"use": "acme/cutout", "size": 3}],
    }
    write_case(
        folder,
        student={"use": "acme/convmixer", "width": 8, "depth": 1, "kernel": 3, "patch": 2},
        teachers=[{"use": "convnet", "depth": 1, "width": 8}],
        recipe=recipe,
        protocol=protocol,
        scores=["hlr", "ior"],
    ).rename(folder / "acme.yaml")
    write_case(folder, protocol=protocol, scores=["ior"])
    return folder


# -- a distribution that uses all there is -------------------------------------------------------


@pytest.fixture(scope="module")
def acme_run(site, cases) -> Said:
    """Run acme's config beside everything that is broken."""
    journal = str(cases / "journal.jsonl")
    return site.ddrank("run", "acme.yaml", "--out", "run", "--quiet", at=cases, ACME_JOURNAL=journal)


def test_a_run_uses_a_component_of_each_kind_beside_plugins_that_are_broken(acme_run):
    listener = not_used(
        "broken-listener", "its hook ddrank_trial_finished failed: OSError: no space left for the journal"
    )
    said = [f"warning: {line}" for line in (*READ, TWINS, listener)]
    assert (0, said, "record and pictures: run") == (acme_run.code, acme_run.errors, acme_run.lines[-1])


def test_a_run_imports_no_plugin_that_it_does_not_use(site, acme_run):
    # broken-listener has asked to hear of the run.
    assert {"acme_ddrank", "broken_listener"} == acme_run.imported & site.modules()


def test_the_record_says_whose_each_component_is_from_which_source_with_which_parameters(
    site, cases, acme_run
):
    record = json.loads((cases / "run" / "record.json").read_text())
    found = {one["field"]: one for one in record["components"] if one["distribution"] == "ddrank-acme"}
    assert {"1.2.0"} == {one["version"] for one in found.values()}
    assert {digest(site.folder / "acme_ddrank")} == {one["source_digest"] for one in found.values()}
    assert {
        "student": ("architecture", "acme/convmixer", "acme_ddrank.convmixer:ConvMixer"),
        "recipe.labels": ("label-mapping", "acme/corrected", "acme_ddrank.corrected:CorrectedTeacher"),
        "recipe.loss": ("loss", "acme/focal", "acme_ddrank.focal:FocalLoss"),
        "recipe.augmentation[0]": ("augmentation", "acme/cutout", "acme_ddrank.cutout:Cutout"),
    } == {field: (one["kind"], one["name"], one["target"]) for field, one in found.items()}
    assert {"gamma": 1.0} == found["recipe.loss"]["parameters"]
    assert {"width", "depth", "kernel", "patch"} == set(found["student"]["given"])


def digest(package: Path) -> str:
    """Return the SHA-256 of a package's sources, each behind a line with its path."""
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        whole.update(path.relative_to(package).as_posix().encode() + b"\n" + path.read_bytes())
    return whole.hexdigest()


def test_a_listener_hears_of_the_whole_run(cases, acme_run):
    lines = [json.loads(line) for line in (cases / "journal.jsonl").read_text().splitlines()]
    record = json.loads((cases / "run" / "record.json").read_text())
    first, last = lines[0], lines[-1]
    assert ("run started", "acme") == (first["event"], first["name"])
    assert {name: score["mean"] for name, score in record["scores"].items()} == last["scores"]
    trials = [line for line in lines if line["event"] == "trial finished"]
    assert list(range(1, first["trials"] + 1)) == [line["done"] for line in trials]
    epochs = {line["training"] for line in lines if line["event"] == "epoch finished"}
    assert {"teacher 1/1, convnet", "syn-any 2/2, learning rate 0.05"} <= epochs


def test_what_works_is_listed_without_an_import_of_it(site, cases):
    said = site.ddrank("list", at=cases)
    listed = "\n".join(said.lines)
    assert [f"warning: {line}" for line in (*READ, IMPORT, TWINS)] == said.errors
    assert 4 == listed.count("(ddrank-acme 1.2.0)")
    assert "Cross-entropy with hard or soft labels" in listed
    assert set() == said.imported & site.modules()


def test_its_own_tests_hold_it_to_the_contract(site, tmp_path):
    # From elsewhere: in its own folder Python would import its sources, and not what is installed.
    said = site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", ACME / "tests", at=tmp_path)
    assert (0, "") == (said.returncode, said.stderr), said.stdout
    assert "\nddrank-acme: 67 checks of 4 components\n" in said.stdout
    assert "\n69 passed in " in said.stdout


def test_it_imports_of_ddrank_what_is_public():
    found = {name for path in (ACME / "acme_ddrank").glob("*.py") for name in imported_of_ddrank(path)}
    public = {f"ddrank_core.{name}" for name in ddrank_core.__all__}
    assert (True, set()) == ("ddrank_core.hookimpl" in found, found - public)


def imported_of_ddrank(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ddrank"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddrank"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# -- broken ones ---------------------------------------------------------------------------------


# A plugin -> its state, and what it brings or why it is not used.
STATES = {
    ("broken-bare", "main"): ("broken", why(BARE)),
    ("broken-future", "main"): ("broken", why(FUTURE)),
    ("broken-heavy", "main"): ("good", "loss: heavy/loss"),
    ("broken-import", "main"): ("computed", "loss; read when components are looked up"),
    ("broken-import-late", "main"): ("good", "loss: import-late/loss"),
    ("broken-listener", "main"): ("good", "listens: trial finished"),
    ("broken-midway", "main"): ("good", "loss: midway/loss; architecture: midway/network"),
    ("broken-signature", "main"): ("broken", why(SIGNATURE)),
    ("broken-slow", "main"): ("good", "loss: slow/loss"),
    ("broken-spelling", "main"): ("broken", why(SPELLING)),
    ("broken-target", "main"): (
        "in part",
        "loss: target/module, target/class; "
        "but target/module cannot be loaded from broken_target_losses:Loss: "
        "there is no module 'broken_target_losses'; "
        "but target/class cannot be loaded from broken_target:Los: broken_target has no 'Los'",
    ),
    ("broken-twin-one", "main"): ("in part", f"loss: twin/loss; {TWINS}"),
    ("broken-twin-two", "main"): ("in part", f"loss: twin/loss; {TWINS}"),
    ("ddrank-acme", "acme"): (
        "good",
        "loss: acme/focal; label-mapping: acme/corrected; augmentation: acme/cutout; "
        "architecture: acme/convmixer",
    ),
    ("ddrank-acme", "journal"): (
        "good",
        "listens: run started, epoch finished, trial finished, run finished, run failed",
    ),
}


def test_every_plugin_is_listed_with_its_state_and_none_is_imported(site, cases):
    said = site.ddrank("plugins", at=cases)
    rows = [re.split(r" {2,}", line) for line in said.lines[1:] if not line.startswith("ddrank ")]
    assert (0, [], set()) == (said.code, said.errors, said.imported & site.modules())
    assert STATES == {(distribution, plugin): tuple(rest) for distribution, _, _, plugin, *rest in rows}
    assert [("broken-future", "2")] == [(name, api) for name, _, api, *_ in rows if api != "1"]


@pytest.mark.parametrize("name", USED)
def test_a_config_that_uses_what_is_broken_is_refused_in_one_line(site, cases, name):
    said = site.ddrank("check", "case.yaml", "--set", f"recipe.loss={name}", at=cases)
    assert (2, [], f"error: case.yaml: recipe.loss: {USED[name]}") == (said.code, said.lines, said.errors[-1])


def test_of_two_that_claim_a_name_one_is_used_without_the_other(site, cases):
    said = site.ddrank("--without", "broken-twin-two", "show", "loss", "twin/loss", at=cases)
    assert 0 == said.code
    assert "distribution  broken-twin-one 0.1" in said.lines


@pytest.mark.parametrize("kind", MIDWAY)
def test_a_component_that_raises_in_the_middle_of_a_run_ends_it_in_one_line(site, cases, kind):
    override, error = MIDWAY[kind]
    said = site.ddrank(
        *("run", "case.yaml", "--set", override, "--out", f"midway-{kind}", "--quiet"),
        at=cases,
        DDRANK_PLUGINS="broken-midway,ddrank-acme",
        ACME_JOURNAL=str(cases / f"{kind}.jsonl"),
    )
    assert (1, []) == (said.code, said.lines)
    (line,) = said.errors
    assert re.fullmatch(rf"error: (syn|rdm)-any ./2, learning rate 0\.05: {error} \(it uses .*\)", line)
    assert re.search(r" midway/\w+ of broken-midway 0\.1[,)]", line)
    last = json.loads((cases / f"{kind}.jsonl").read_text().splitlines()[-1])
    assert {"event": "run failed", "name": "case", "error": line.removeprefix("error: ")} == last


def test_the_kit_finds_a_manifest_that_imports_torch(site, monkeypatch):
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("DDRANK_PLUGINS", "broken-heavy")
    checks = {check.title: check for check in suite.checks_of("broken-heavy", suite.Said())}
    del sys.modules["broken_heavy"]
    with pytest.raises(ContractBroken) as broken:
        checks["its manifests import nothing heavy"].run()
    assert str(broken.value) == (
        "the entry point main imports numpy, torch; a manifest names its targets as text and imports nothing "
        "heavy"
    )
