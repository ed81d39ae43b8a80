"""Trials in several processes: the same results to the last bit, and nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import attrs
import pytest
import torch
from tiny_case import prepared_case, write_case
from torch.nn.functional import cross_entropy

from ddrank_core.engine import workers as pool
from ddrank_core.engine.run import execute
from ddrank_core.engine.workers import count_workers
from ddrank_core.errors import RunFailed
from ddrank_core.store import TrialStore

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or torch.cuda.is_available(), reason="workers are forked"
)


@pytest.fixture(autouse=True)
def one_thread():
    """Workers have one thread each; the runs that they are compared with get one too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(prepared, cache, count, emit=lambda hook, event: None):
    store = TrialStore(cache)
    try:
        return execute(prepared, store, emit, count)
    finally:
        store.close()


def essence(outcome):
    return [attrs.evolve(trial, seconds=0.0, reused=False) for trial in outcome.trials]


def children():
    me = os.getpid()
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == me and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.mark.parametrize("protocol", ["strict", "ddranking-0.2"])
def test_the_number_of_workers_changes_no_bit_of_a_result(tmp_path, protocol):
    prepared = prepared_case(tmp_path, f"protocol.use={protocol}", *_for(protocol))
    alone, three = (run(prepared, tmp_path / str(count), count) for count in (1, 3))
    assert essence(alone) == essence(three)
    assert alone.scores == three.scores
    assert not children()


def _for(protocol):
    # `validation` is a parameter of strict alone.
    if protocol == "strict":
        return ()
    return ("protocol={use: ddranking-0.2, repeats: 2, learning_rates: [0.01, 0.1], test_interval: 2}",)


def test_what_workers_trained_is_read_back_alone(tmp_path):
    prepared = prepared_case(tmp_path)
    first = run(prepared, tmp_path / "cache", 2)
    again = run(prepared, tmp_path / "cache", 1)
    assert all(trial.reused for trial in again.trials)
    assert first.scores == again.scores


def test_teachers_reach_the_workers(tmp_path):
    changes = {
        "recipe": {
            "labels": "teacher",
            "loss": "kl",
            "optimizer": "sgd",
            "schedule": "constant",
            "epochs": 2,
            "batch_size": 4,
        },
        "teachers": [{"use": "convnet", "depth": 1, "width": 8}],
        "scores": ["ior"],
    }
    os.environ["DDRANK_CACHE"] = str(tmp_path / "teachers")
    try:
        prepared = prepared_case(tmp_path, **changes)
        alone, two = (run(prepared, tmp_path / str(count), count) for count in (1, 2))
    finally:
        del os.environ["DDRANK_CACHE"]
    assert essence(alone) == essence(two)


def test_listeners_hear_of_every_trial_and_all_of_the_work(tmp_path):
    prepared = prepared_case(tmp_path)
    events = []
    run(prepared, tmp_path / "cache", 2, lambda hook, event: events.append((hook, event)))
    started = next(event for hook, event in events if hook == "ddrank_run_started")
    done = [event.done for hook, event in events if hook == "ddrank_trial_finished"]
    work = sum(event.work for hook, event in events if hook.endswith(("epoch_finished", "trial_finished")))
    assert list(range(1, prepared.plan.count() + 1)) == done
    assert started.work == pytest.approx(work)


class Failing:
    """A loss that raises in a training, and not on the rehearsal with its two images."""

    def __call__(self, logits, targets):
        if len(logits) > 2:
            raise RuntimeError("cannot go on")
        return cross_entropy(logits, targets.hard)


def broken(prepared, component):
    """Return the run with the loss of all arms exchanged."""
    arms = []
    for arm in prepared.plan.arms:
        loss = attrs.evolve(arm.training.loss, component=component)
        arms.append(attrs.evolve(arm, training=attrs.evolve(arm.training, loss=loss)))
    return attrs.evolve(prepared, plan=attrs.evolve(prepared.plan, arms=tuple(arms)))


def test_a_component_that_fails_in_a_worker_is_one_line(tmp_path):
    prepared = broken(prepared_case(tmp_path), Failing())
    with pytest.raises(
        RunFailed, match=r"full-hard 1/2.*RuntimeError: cannot go on \(it uses convnet of ddrank"
    ):
        run(prepared, tmp_path / "cache", 2)
    assert not children()


class Suicidal:
    """A loss whose process is killed, as the system does when memory runs out, `times` times in all."""

    def __init__(self, folder, times):
        self.folder, self.times = folder, times

    def __call__(self, logits, targets):
        if len(logits) > 2:
            deaths = len(list(self.folder.iterdir()))
            if deaths < self.times:
                (self.folder / f"{deaths}-{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return cross_entropy(logits, targets.hard)


def test_workers_that_are_always_killed_are_one_line(tmp_path):
    (deaths := tmp_path / "deaths").mkdir()
    prepared = broken(prepared_case(tmp_path), Suicidal(deaths, 1000))
    failures = []

    def note(hook, event):
        if hook == "ddrank_trial_failed":
            failures.append((event.arm, event.attempt, event.final))

    with pytest.raises(RunFailed, match=r"a worker process was killed.*--workers"):
        run(prepared, tmp_path / "cache", 2, note)
    assert not children()
    # All but the final trials of full-hard, whose search has failed: each is tried three times.
    assert 3 * (prepared.plan.count() - 2) == len(failures)
    assert prepared.plan.count() - 2 == sum(final for _, _, final in failures)
    assert {attempt == 3 for _, attempt, final in failures if final} == {True}


def test_a_worker_that_is_killed_is_replaced_and_its_trial_tried_again(tmp_path):
    (deaths := tmp_path / "deaths").mkdir()
    component = Suicidal(deaths, 2)
    prepared = broken(prepared_case(tmp_path), component)
    hurt = run(prepared, tmp_path / "cache", 2)
    assert 2 == len(list(deaths.iterdir()))
    component.times = 0
    unhurt = run(prepared, tmp_path / "other", 2)
    assert essence(unhurt) == essence(hurt)
    assert unhurt.scores == hurt.scores
    assert any(note.startswith("2 worker processes were killed") for note in hurt.notes)
    assert not children()


def test_an_interrupted_run_stops_its_workers_and_goes_on_where_it_was(tmp_path):
    prepared = prepared_case(tmp_path)

    def interrupt(hook, event):
        if hook == "ddrank_trial_finished" and event.done == 7:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path / "cache", 2, interrupt)
    assert not children()
    assert time.monotonic() - started < 60
    again = run(prepared, tmp_path / "cache", 2)
    assert sum(trial.reused for trial in again.trials) >= 7
    assert essence(run(prepared, tmp_path / "other", 1)) == essence(again)


def test_there_is_a_worker_for_each_core_unless_memory_or_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(pool, "_free_memory", lambda: 100_000)
    assert 6 == count_workers(None, CPU, 1)
    assert 2 == count_workers(None, CPU, 2_000)
    assert 1 == count_workers(None, CPU, 1_000_000)
    assert 4 == count_workers(4, CPU, 1_000_000)
    assert 1 == count_workers(4, torch.device("cuda"), 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert 1 == count_workers(None, CPU, 1)


def test_a_case_with_workers_runs_from_the_launcher(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from ddrank_core.cli.main import launcher

    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    path = write_case(tmp_path)
    arguments = [
        "run",
        str(path),
        "--set",
        "recipe.epochs=1",
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "2",
    ]
    done = CliRunner().invoke(launcher, [*arguments, "--quiet"], catch_exceptions=False)
    assert 0 == done.exit_code
    assert "2 processes of 1 thread" in done.output


def test_workers_that_cannot_be_had_are_refused(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from ddrank_core.cli.main import launcher
    from ddrank_core.errors import ConfigError

    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pool.sys, "platform", "darwin")
    arguments = ["run", str(write_case(tmp_path)), "--out", str(tmp_path / "out"), "--workers", "2"]
    with pytest.raises(ConfigError, match=r"--workers 2: several processes train only on the CPU of a Linux"):
        CliRunner().invoke(launcher, arguments, catch_exceptions=False)
    assert not (tmp_path / "out").exists()
