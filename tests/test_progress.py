"""The progress display: how far a run is, on a terminal and in a log."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from pathlib import Path

import ddrank_progress
import pytest
from ddrank_progress.listener import Listener
from ddrank_progress.status import Status

from ddrank_core import EpochFinished, RunFailed, RunFinished, RunStarted, TrialFinished
from ddrank_core.plugins import Plugin, PluginHost
from ddrank_core.results import TrialResult

STARTED = RunStarted(name="toy", device="cpu", arms=("syn-any", "rdm-any"), trials=4, work=400.0)
FINISHED = RunFinished(name="toy", folder=Path("runs/toy"), scores={}, arms={}, seconds=40.0)
FAILED = RunFailed(name="toy", error="out of memory", seconds=12.0)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


class ClosedPipe(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def epoch(training="syn-any 1/2, learning rate 0.01", number=1, epochs=2, work=50.0):
    return EpochFinished(training=training, epoch=number, epochs=epochs, work=work)


def trial(done, *, work=0.0, **changes):
    values = {"accuracy": 0.8125, "diverged": False, "reused": False, "validation_accuracy": None}
    result = TrialResult(
        arm="syn-any",
        phase="final",
        repeat=0,
        learning_rate=0.01,
        seed=1,
        subset_seed=None,
        epoch=2,
        seconds=1.0,
        **{**values, **changes},
    )
    return TrialFinished(result=result, done=done, total=4, work=work)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


# The estimate


def test_time_left_is_what_remains_at_the_speed_so_far():
    status = Status(STARTED, now=0.0)
    status.epoch_finished(epoch(work=50.0), now=10.0)
    # 50 of 400 in 10 s: 350 remain, at 5 a second.
    assert (0.125, 70.0) == (status.fraction(), status.seconds_left())


def test_time_left_is_unknown_before_anything_is_trained():
    status = Status(STARTED, now=0.0)
    status.trial_finished(trial(1, work=100.0, reused=True), now=0.001)
    assert (0.25, None) == (status.fraction(), status.seconds_left())


def test_a_trial_that_was_read_back_shortens_the_rest_and_says_nothing_about_speed():
    status = Status(STARTED, now=0.0)
    status.trial_finished(trial(1, work=100.0, reused=True), now=2.0)
    status.epoch_finished(epoch(work=50.0), now=12.0)
    # 50 in the 10 s of the epoch; 400 - 100 - 50 remain.
    assert 50.0 == status.seconds_left()


def test_a_teachers_training_says_nothing_about_the_students_speed():
    status = Status(STARTED, now=0.0)
    status.epoch_finished(epoch("teacher 1", 1, 1, work=0.0), now=100.0)
    status.epoch_finished(epoch(work=50.0), now=110.0)
    assert 70.0 == status.seconds_left()


def test_the_time_of_a_trials_test_counts():
    status = Status(STARTED, now=0.0)
    status.epoch_finished(epoch(work=50.0), now=10.0)
    status.trial_finished(trial(1), now=15.0)
    # 50 in 15 s: the other 350 take seven times as long.
    assert 105.0 == pytest.approx(status.seconds_left())


def test_what_a_diverged_trial_leaves_out_says_nothing_about_speed():
    status = Status(STARTED, now=0.0)
    status.epoch_finished(epoch(work=50.0), now=10.0)
    status.trial_finished(trial(1, work=50.0, accuracy=None, diverged=True), now=10.0)
    assert 60.0 == status.seconds_left()


def test_a_run_that_does_more_than_was_planned_is_never_over_its_end():
    status = Status(STARTED, now=0.0)
    status.epoch_finished(epoch(work=500.0), now=10.0)
    assert (1.0, 0.0) == (status.fraction(), status.seconds_left())


def test_a_run_without_work_is_measured_by_its_trials():
    status = Status(RunStarted(name="toy", device="cpu", arms=(), trials=4, work=0.0), now=0.0)
    status.trial_finished(trial(1), now=1.0)
    assert 0.25 == status.fraction()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "syn-any 81.2 %"),
        ({"accuracy": None, "validation_accuracy": 0.5}, "syn-any 50.0 % (validation)"),
        ({"accuracy": None, "diverged": True}, "syn-any diverged"),
        ({"accuracy": None}, "syn-any done"),
    ],
)
def test_the_last_trial_is_shown_with_what_it_reached(changes, expected):
    status = Status(STARTED, now=0.0)
    status.trial_finished(trial(1, **changes), now=1.0)
    assert expected == status.last


# In a log


def test_a_log_gets_a_line_at_the_start_at_most_every_ten_seconds_and_at_the_end(clock, log):
    listener = Listener(log, clock)
    listener.run_started(STARTED)
    for second in range(1, 26):
        clock.now = 1000.0 + second
        listener.epoch_finished(epoch(number=1 + second % 2, work=10.0))
    listener.trial_finished(trial(1))
    clock.now = 1040.0
    listener.run_finished(FINISHED)
    training = "syn-any 1/2, learning rate 0.01: epoch 1/2"
    expected = [
        "toy: 4 trials (syn-any, rdm-any) on cpu",
        f"toy: 25 %, trials 0/4, 0:10 elapsed, about 0:30 left, {training}",
        f"toy: 50 %, trials 0/4, 0:20 elapsed, about 0:20 left, {training}",
        "toy: finished after 0:40, 1/4 trials",
    ]
    assert expected == log.getvalue().splitlines()


def test_a_log_shows_a_teachers_epochs_as_text(clock, log):
    listener = Listener(log, clock)
    listener.run_started(STARTED)
    clock.now += 10.0
    listener.epoch_finished(epoch("teacher 1", 3, 10, work=0.0))
    expected = "toy: 0 %, trials 0/4, 0:10 elapsed, time left unknown, teacher 1: epoch 3/10"
    assert expected == log.getvalue().splitlines()[-1]


def test_a_log_shows_the_accuracy_of_the_last_trial(clock, log):
    listener = Listener(log, clock)
    listener.run_started(STARTED)
    clock.now += 10.0
    listener.trial_finished(trial(1, work=100.0))
    assert log.getvalue().endswith("about 0:30 left, starting, last: syn-any 81.2 %\n")


def test_a_log_of_a_failed_run_says_where_it_stopped(clock, log):
    listener = Listener(log, clock)
    listener.run_started(STARTED)
    clock.now += 12.0
    listener.run_failed(FAILED)
    assert "toy: stopped after 0:12, 0/4 trials" == log.getvalue().splitlines()[-1]


def test_a_dumb_terminal_is_treated_like_a_log(clock, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    listener = Listener(terminal, clock)
    listener.run_started(STARTED)
    listener.run_failed(FAILED)
    assert "\x1b" not in terminal.getvalue()


def test_events_outside_of_a_run_are_ignored(clock, log):
    listener = Listener(log, clock)
    listener.epoch_finished(epoch())
    listener.trial_finished(trial(1))
    listener.run_finished(FINISHED)
    listener.run_failed(FAILED)
    assert "" == log.getvalue()


def test_a_second_run_starts_from_nothing(clock, log):
    listener = Listener(log, clock)
    listener.run_started(STARTED)
    listener.epoch_finished(epoch(work=400.0))
    listener.run_finished(FINISHED)
    listener.run_started(STARTED)
    clock.now += 10.0
    listener.epoch_finished(epoch(work=40.0))
    assert "toy: 10 %, trials 0/4, 0:10 elapsed, about 1:30 left" in log.getvalue().splitlines()[-1]


# On a terminal


def shown(terminal):
    """Return the last two lines that the terminal was sent, without control sequences."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n")
    return [line for line in text.splitlines() if line.strip()][-2:]


def test_a_terminal_shows_how_far_the_run_is_and_what_it_does(clock, terminal):
    listener = Listener(terminal, clock)
    listener.run_started(STARTED)
    clock.now += 10.0
    listener.trial_finished(trial(1, work=100.0))
    listener.epoch_finished(epoch(work=100.0))
    listener.run_failed(FAILED)
    bar, below = shown(terminal)
    assert re.fullmatch(r"toy [━╸╺ ]+ 50 % trials 1/4 0:10 left 0:10", bar.strip())
    assert "syn-any 1/2, learning rate 0.01: epoch 1/2  |  last: syn-any 81.2 %" == below.strip()


def test_a_finished_run_is_shown_full(clock, terminal):
    listener = Listener(terminal, clock)
    listener.run_started(STARTED)
    listener.trial_finished(trial(4, work=399.0))
    listener.run_finished(FINISHED)
    assert "100 % trials 4/4" in shown(terminal)[0]


@pytest.mark.parametrize("end", ["finished", "failed", "restarted", "broken"])
def test_the_terminal_is_given_back_however_the_run_ends(clock, terminal, end):
    before = set(threading.enumerate())
    listener = Listener(terminal, clock)
    listener.run_started(STARTED)
    if end == "finished":
        listener.run_finished(FINISHED)
    elif end == "failed":
        listener.run_failed(FAILED)
    elif end == "restarted":
        listener.run_started(STARTED)
        listener.run_failed(FAILED)
    else:
        with pytest.raises(AttributeError):
            listener.epoch_finished("no event")
    hidden, visible = terminal.getvalue().count("\x1b[?25l"), terminal.getvalue().count("\x1b[?25h")
    assert hidden == visible > 0
    # The drawing thread has been told to stop, and is not waited for.
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
    assert before >= set(threading.enumerate())


def test_a_process_that_ends_without_a_last_event_gives_the_terminal_back():
    code = (
        "import io, sys\n"
        "from ddrank_core import RunStarted\n"
        "from ddrank_progress.listener import Listener\n"
        "class Terminal(io.TextIOWrapper):\n"
        "    def isatty(self): return True\n"
        "stream = Terminal(sys.stderr.buffer, encoding='utf-8')\n"
        "Listener(stream).run_started(RunStarted(name='toy', device='cpu', arms=(), trials=1, work=1.0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={"TERM": "xterm"}, check=True
    )
    assert done.stderr.rstrip(b"\n").endswith(b"\x1b[?25h")


# As a plugin


@pytest.fixture
def host():
    return PluginHost([Plugin("progress", "ddrank_progress", "ddrank", "0.1.0", lambda: ddrank_progress)])


def test_the_plugin_keeps_the_contract_of_each_lifecycle_hook(host, capsys):
    host.notify("ddrank_run_started", STARTED)
    host.notify("ddrank_epoch_finished", epoch())
    host.notify("ddrank_trial_finished", trial(1))
    host.notify("ddrank_run_finished", FINISHED)
    host.notify("ddrank_run_started", STARTED)
    host.notify("ddrank_run_failed", FAILED)
    assert [] == host.faults
    expected = ["4 trials (syn-any, rdm-any) on cpu", "finished after 0:00, 1/4 trials"]
    expected += ["4 trials (syn-any, rdm-any) on cpu", "stopped after 0:00, 0/4 trials"]
    captured = capsys.readouterr()
    assert [f"toy: {line}" for line in expected] == captured.err.splitlines()
    assert "" == captured.out


def test_a_stderr_that_is_gone_takes_only_the_display_out(host, monkeypatch):
    monkeypatch.setattr(sys, "stderr", ClosedPipe())
    faults = host.notify("ddrank_run_started", STARTED)
    assert ["its hook ddrank_run_started failed: BrokenPipeError: [Errno 32] Broken pipe"] == [
        fault.reason for fault in faults
    ]
    assert [] == host.notify("ddrank_run_finished", FINISHED)


def test_loading_the_plugin_does_not_import_rich():
    code = "import sys, ddrank_progress; print([m for m in ('rich', 'torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
