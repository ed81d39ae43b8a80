"""A finished run, started once more: it trains nothing, leaves its folder as it is, and is soon done."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from tiny_case import prepared_case, write_case

from ddrank_core.cli import main as launcher
from ddrank_core.engine.rehearse import rehearse_training, step_activations

ROOT = Path(__file__).resolve().parent.parent
GENEROUS = 10.0
"""Seconds of a processor, which other work on the machine hardly changes; about three are needed."""
IN_PLAIN = "import sys; from ddrank_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
IN_A_RERUN = """
import sys
from ddrank_core.cli.main import main
code = main(sys.argv[1:])
heavy = [name for name in ("torch._dynamo", "sklearn", "matplotlib") if name in sys.modules]
print(*heavy, sep=",", file=sys.stderr)
sys.exit(code)
"""
"""Runs the launcher and tells which of the modules that only a training or a picture needs were imported."""


def quickstart(folder, *given, code=IN_PLAIN):
    """Run the quickstart, shortened; return the process and the processor's seconds that it took."""
    short = ("recipe.epochs=8", "full_data.recipe.epochs=2", "protocol.repeats=2")
    settings = [word for one in short for word in ("--set", one)]
    asked = ["run", "configs/quickstart.yaml", "--out", folder / "run", *settings, *given]
    before = spent()
    done = subprocess.run(
        [sys.executable, "-c", code, *asked],
        cwd=ROOT,
        env={**os.environ, "DDRANK_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    return done, spent() - before


def spent():
    """Return the processor's seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the quickstart once; return the folder that has its run folder and its cache."""
    folder = tmp_path_factory.mktemp("rerun")
    done, _ = quickstart(folder, "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


def stored(folder):
    """Return what the store has of every trial: a trial that is trained anew has another time."""
    with closing(sqlite3.connect(folder / "cache" / "trials.sqlite")) as db:
        return db.execute("SELECT * FROM trials ORDER BY digest").fetchall()


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_rerun_trains_nothing_changes_nothing_and_is_soon_done(finished):
    trials, files = stored(finished), contents(finished / "run")
    done, seconds = quickstart(finished, "--quiet", code=IN_A_RERUN)
    # Nothing is imported that only training and drawing need.
    assert (0, "\n") == (done.returncode, done.stderr)
    assert f"({len(trials)} read back)" in done.stdout
    assert "nothing was left to train" in done.stdout
    assert trials == stored(finished)
    assert files == contents(finished / "run")
    assert seconds < GENEROUS


def test_what_is_gone_from_the_run_folder_is_made_again(finished):
    pictures = {name: contents(finished / "run")[name][0] for name in ("arms.png", "distilled.png")}
    (finished / "run" / "arms.png").unlink()
    done, _ = quickstart(finished, "--quiet")
    assert 0 == done.returncode
    assert pictures == {name: contents(finished / "run")[name][0] for name in pictures}


def test_a_record_that_says_something_else_is_written_again(finished):
    path = finished / "run" / "record.json"
    record = json.loads(path.read_text())
    record["scores"]["hlr"]["mean"] = 0.5
    path.write_text(json.dumps(record))
    done, _ = quickstart(finished, "--quiet")
    assert 0 == done.returncode
    again = json.loads(path.read_text())
    assert again["scores"]["hlr"]["mean"] != 0.5
    assert all(trial["reused"] for trial in again["trials"])


# -- what a rehearsal still finds ----------------------------------------------------------------


def test_the_activations_are_counted_without_a_backward_pass(tmp_path, monkeypatch):
    prepared = prepared_case(tmp_path)

    def refused(*_):
        raise AssertionError("a training step")

    monkeypatch.setattr(torch.autograd, "backward", refused)
    # 16 images of full-hard: convolution, norm and ReLU on 8x8, pooled and flattened 4x4, three logits.
    assert (3 * 512 + 2 * 128 + 3) * 16 == step_activations(prepared)


def test_counting_and_rehearsing_leave_the_generators_as_they_were(tmp_path):
    prepared = prepared_case(tmp_path)
    before = torch.get_rng_state()
    step_activations(prepared)
    rehearse_training(prepared)
    assert torch.equal(before, torch.get_rng_state())


SUMMING = '''
from ddrank_core import ComponentSpec, component, hookimpl


@component
class Summing:
    """A loss that forgets to take the mean."""

    def __call__(self, logits, targets):
        return logits.sum(dim=1)


@hookimpl
def ddrank_losses():
    return [ComponentSpec("acme/summing", "acme:Summing", "No scalar")]
'''


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_a_loss_that_cannot_be_trained_with_is_refused_before_anything_is_trained(
    tmp_path, install, capsys, monkeypatch, command
):
    install("acme", SUMMING)
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    path, out = write_case(tmp_path), tmp_path / "run"
    given = ["--out", str(out), "--quiet"] if command == "run" else []
    code = launcher.main([command, str(path), "--device", "cpu", "--set", "recipe.loss=acme/summing", *given])
    said = capsys.readouterr()
    assert (2, "") == (code, said.out)
    error = f"error: {path}: syn-any: loss: must return a scalar that depends on the logits"
    assert error == said.err.strip().splitlines()[-1]
    assert not out.exists()
    assert [] == stored(tmp_path) if command == "run" else not (tmp_path / "cache").exists()
