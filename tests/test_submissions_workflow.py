"""The workflow that checks the submissions of a pull request: its step, run as the runner runs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "submissions.yml").read_text())
STEP: dict[str, Any] = WORKFLOW["jobs"]["check"]["steps"][-1]
NOTING = """#!/bin/sh
echo "$2 $3" >> "$DDRANK_NOTES"
case "$2 $3" in *bad*|fetch*made*) exit 2;; esac
"""
"""Stands for ddrank: notes what it is asked for, refuses what is bad, does not fetch what is made."""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("git") is None,
    reason="the step runs on Ubuntu, with git",
)


class Repository:
    """A repository with a base commit, in which a pull request changes things."""

    def __init__(self, root: Path, launcher: str) -> None:
        self.root = root / "proposal"
        self._scripts, self._notes = root / "bin", root / "notes"
        self._scripts.mkdir()
        (self._scripts / "ddrank").write_text(launcher)
        (self._scripts / "ddrank").chmod(0o755)
        self.root.mkdir()
        self._git("init", "-q")

    def _git(self, *arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.root), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self._git("add", "-A")
        self._git("commit", "-q", "--allow-empty", "-m", "x")
        return self._git("rev-parse", "HEAD")

    def write(self, *paths: str) -> None:
        for path in paths:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(path)

    def run(self, base: str) -> tuple[int, str]:
        """Run the step; return its exit code and what it printed."""
        places = [str(self._scripts), os.environ["PATH"]]
        env = {
            **os.environ,
            "BASE": base,
            "RUNNER_TEMP": str(self._scripts),
            "DDRANK_NOTES": str(self._notes),
            "PATH": os.pathsep.join(places),
        }
        # As the runner starts a step whose shell is bash.
        bash = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEP["run"]]
        done = subprocess.run(
            bash, cwd=self.root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return done.returncode, done.stdout

    def check(self, base: str) -> tuple[int, str]:
        """Run the step; return its exit code and what it printed that the runner takes for no command."""
        code, out = self.run(base)
        found = re.fullmatch(r"::stop-commands::([0-9a-f]{32})\n(.*)::\1::\n", out, re.DOTALL)
        return code, out if found is None else found[2]

    def asked(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    found = Repository(tmp_path, NOTING)
    found.write("submissions/old/digits-ipc1/run.yaml", "submissions/old/digits-ipc1/submission.yaml")
    return found


def test_the_step_is_run_by_bash_in_the_proposal_and_knows_its_base():
    assert ("bash", "proposal") == (STEP["shell"], STEP["working-directory"])
    assert {"BASE": "${{ github.event.pull_request.base.sha }}"} == STEP["env"]
    assert {"contents": "read"} == WORKFLOW["permissions"]


def test_each_changed_submission_is_fetched_and_checked_once(repository: Repository):
    base = repository.commit()
    for name in ("a", "b"):
        repository.write(*(f"submissions/{name}/digits-ipc1/{file}" for file in ("run.yaml", "results/x")))
    repository.write("README.md", "submissions/README.md")
    repository.commit()
    code, out = repository.check(base)
    folders = ("submissions/a/digits-ipc1", "submissions/b/digits-ipc1")
    assert [f"{verb} {folder}" for folder in folders for verb in ("fetch", "check")] == repository.asked()
    assert 0 == code
    assert [f"== {folder}" for folder in folders] == out.splitlines()


@pytest.mark.parametrize("name", ["bad", "made"])
def test_one_that_fails_fails_the_job_and_does_not_hide_the_others(repository: Repository, name: str):
    base = repository.commit()
    repository.write("submissions/a/digits-ipc1/run.yaml", f"submissions/{name}/digits-ipc1/run.yaml")
    repository.write("submissions/z/digits-ipc1/run.yaml")
    repository.commit()
    assert 1 == repository.check(base)[0]
    checked = [line for line in repository.asked() if line.startswith("check")]
    assert [f"check submissions/{name}/digits-ipc1" for name in ("a", "z")] == checked


def test_one_that_is_deleted_is_left_out(repository: Repository):
    base = repository.commit()
    shutil.rmtree(repository.root / "submissions" / "old")
    repository.commit()
    line = "== submissions/old/digits-ipc1: no folder, nothing to check\n"
    assert ((0, line), []) == (repository.check(base), repository.asked())


def test_one_that_loses_a_file_to_another_is_checked_too(repository: Repository):
    base = repository.commit()
    old, new = (
        repository.root / "submissions/old/digits-ipc1",
        repository.root / "submissions/new/digits-ipc1",
    )
    new.mkdir(parents=True)
    (old / "run.yaml").rename(new / "run.yaml")
    repository.commit()
    assert 0 == repository.check(base)[0]
    folders = [line.removeprefix("check ") for line in repository.asked() if line.startswith("check")]
    assert ["submissions/new/digits-ipc1", "submissions/old/digits-ipc1"] == folders


@pytest.mark.parametrize("name", ["two words", "ü", "a'b", "-x", "$(exit 3)", "a\nb"])
def test_any_name_comes_to_the_check_whole(repository: Repository, name: str):
    base = repository.commit()
    repository.write(f"submissions/{name}/digits-ipc1/run.yaml")
    repository.commit()
    code, out = repository.check(base)
    whole = "\n".join(repository.asked())
    folder = f"submissions/{name}/digits-ipc1"
    assert (0, f"fetch {folder}\ncheck {folder}", 1) == (code, whole, len(out.splitlines()))


@pytest.mark.parametrize(
    "path",
    [
        "submissions/real.npz",
        "submissions/a/real.npz",
        "submissions/a/digits-ipc1",
        "submissions/a/other/run.yaml",
        "submissions/a/digits-ipcx/run.yaml",
        "submissions/a/README.md",
        "submissions/x\n::error::forged/y",
    ],
)
def test_a_file_in_no_submission_fails_the_job(repository: Repository, path: str):
    base = repository.commit()
    repository.write(path, "submissions/README.md", "submissions/.gitignore", "submissions/b/digits-ipc1/x")
    repository.commit()
    code, out = repository.check(base)
    first, *_, last = out.splitlines()
    assert (1, "== submissions/b/digits-ipc1") == (code, last)
    assert first.startswith("== ")
    assert first.endswith(": lies in no submissions/METHOD/DATASET-ipcN/; remove it")
    assert not re.search("^::", out, re.MULTILINE)
    assert ["fetch submissions/b/digits-ipc1", "check submissions/b/digits-ipc1"] == repository.asked()
    # To take it away is no fault.
    later = repository.commit()
    (repository.root / path).unlink()
    repository.commit()
    assert 0 == repository.check(later)[0]


def test_what_a_stranger_writes_is_no_command_of_the_runner(repository: Repository):
    launcher = "#!/bin/sh\necho '::error::forged'\necho '::stop-commands::x'\necho '::x::'\n"
    (repository.root.parent / "bin" / "ddrank").write_text(launcher)
    base = repository.commit()
    repository.write("submissions/a/digits-ipc1/run.yaml")
    repository.commit()
    outs = [repository.run(base)[1] for _ in range(2)]
    firsts = [out.splitlines()[0] for out in outs]
    for first, out in zip(firsts, outs, strict=True):
        assert re.fullmatch(r"::stop-commands::[0-9a-f]{32}", first)
        # The token ends it, once, behind all that was printed.
        token = first.removeprefix("::stop-commands::")
        assert (2, f"::{token}::") == (out.count(token), out.splitlines()[-1])
    assert firsts[0] != firsts[1]


def test_a_base_that_git_does_not_know_fails_the_job(repository: Repository):
    repository.commit()
    assert 0 != repository.check("1" * 40)[0]
    assert [] == repository.asked()


@pytest.mark.slow
def test_real_checks_pass_what_is_good_and_name_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Imports torch, which the other tests do without.
    from submitted_case import DISTILLED, PLACE, write_submission

    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    places = [str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    repository = Repository(tmp_path, f'#!/bin/sh\nexec "{sys.executable}" -m ddrank_core "$@"\n')
    base = repository.commit()
    good = write_submission(repository.root)
    first = repository.commit()
    code, out = repository.check(base)
    assert (0, f"{PLACE}: can be submitted") == (code, out.splitlines()[-1])
    for name in ("bad", "two words"):
        shutil.copytree(good, repository.root / "submissions" / name / good.name)
    shutil.rmtree(good)
    with (repository.root / "submissions" / "bad" / good.name / DISTILLED).open("ab") as file:
        file.write(b"x")
    repository.commit()
    code, out = repository.check(first)
    assert 1 == code
    assert "  digest: submissions/bad/arrays-ipc2/distilled.safetensors: distilled.bytes: has " in out
    assert "/submissions/two words: a method's folder has letters, digits, '.', '_' and '-' only" in out
    assert f"== {PLACE}: no folder, nothing to check" in out
