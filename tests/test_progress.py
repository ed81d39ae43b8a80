"""The progress display: how far a run is, on a terminal and in a log."""

from __future__ import annotations

import heapq
import io
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import ddrank_progress
import pytest
from ddrank_progress.listener import Listener
from ddrank_progress.status import Status

from ddrank_core import (
    EpochFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
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
        **{**identity(), "subset_seed": None, "epoch": 2, "seconds": 1.0, **values, **changes},
    )
    return TrialFinished(result=result, done=done, total=4, work=work)


def identity(repeat=0, arm="syn-any"):
    return {"arm": arm, "phase": "final", "repeat": repeat, "learning_rate": 0.01, "seed": 1}


def begun(repeat=0, arm="syn-any", *, attempt=1, at_once=1):
    return TrialStarted(**identity(repeat, arm), attempt=attempt, at_once=at_once)


def lost(repeat=0, arm="syn-any", *, attempt=1, final=False, done=0, work=0.0):
    return TrialFailed(
        **identity(repeat, arm),
        error="its worker died",
        attempt=attempt,
        final=final,
        done=done,
        total=4,
        work=work,
    )


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


# The estimate, where many train at once


@attrs.frozen
class Planned:
    """A trial of a made-up run: an epoch of it takes so long, and is as much work."""

    arm: str
    repeat: int
    epochs: int
    seconds: float
    stored: bool = False

    @property
    def work(self) -> float:
        return self.epochs * self.seconds


def simulated(plan: Sequence[Planned], workers: int) -> Iterator[tuple[float, object]]:
    """Yield the events of a run on so many workers, each with its time; what is stored is read back first."""
    total = len(plan)
    stored, due = [one for one in plan if one.stored], deque(one for one in plan if not one.stored)
    arms = tuple(dict.fromkeys(one.arm for one in plan))
    work = sum(one.work for one in plan)
    yield 0.0, RunStarted(name="toy", device="cpu", arms=arms, trials=total, work=work, at_once=workers)
    done = 0
    for one in stored:
        done += 1
        yield 0.001 * done, ended(one, done, total, work=one.work, reused=True)
    queue: list[tuple[float, int, int, Planned]] = []
    # No two workers are quite as fast, so that what they report comes within a second, and not at once.
    pace = [1 + 0.01 * worker / workers for worker in range(workers)]
    for worker in range(min(workers, len(due))):
        one = due.popleft()
        yield 0.001 * done, begun(one.repeat, one.arm)
        heapq.heappush(queue, (0.001 * done + one.seconds * pace[worker], worker, 1, one))
    while queue:
        now, worker, epoch_number, one = heapq.heappop(queue)
        title = f"{one.arm} {one.repeat + 1}, learning rate 0.01"
        yield now, epoch(title, epoch_number, one.epochs, one.seconds)
        if epoch_number < one.epochs:
            heapq.heappush(queue, (now + one.seconds * pace[worker], worker, epoch_number + 1, one))
            continue
        done += 1
        yield now, ended(one, done, total)
        if due:
            one = due.popleft()
            yield now, begun(one.repeat, one.arm)
            heapq.heappush(queue, (now + one.seconds * pace[worker], worker, 1, one))


def ended(one: Planned, done: int, total: int, *, work: float = 0.0, reused: bool = False) -> TrialFinished:
    finished = trial(done, work=work, reused=reused)
    result = attrs.evolve(finished.result, arm=one.arm, repeat=one.repeat)
    return attrs.evolve(finished, result=result, total=total)


def estimates(events: Sequence[tuple[float, object]]) -> Iterator[tuple[float, float | None]]:
    """Yield for each event the true time to the end, and what the status says of it."""
    end = max(when for when, _ in events)
    (_, first), *others = events
    status = Status(first, now=0.0)
    take: dict[type, Callable[[object, float], None]] = {
        TrialStarted: status.trial_started,
        EpochFinished: status.epoch_finished,
        TrialFinished: status.trial_finished,
    }
    for when, event in others:
        take[type(event)](event, when)
        yield end - when, status.seconds_left()


SHORT = [Planned("syn-any", repeat, 20, 10.0) for repeat in range(100)]
RUNS = {
    "one worker": (SHORT[:10], 1),
    "as many workers as trials": (SHORT, 100),
    "more trials than workers": (SHORT, 20),
    "a thousand workers": ([Planned("syn-any", repeat, 4, 60.0) for repeat in range(3000)], 1000),
    "half of it is read back": (
        [attrs.evolve(one, stored=one.repeat % 2 == 0) for one in SHORT],
        10,
    ),
    "one takes much longer than the others": ([Planned("full-hard", 0, 50, 20.0), *SHORT], 25),
}


@pytest.mark.parametrize("case", RUNS)
def test_time_left_is_right_to_15_percent_at_every_event_but_the_first_reports(case):
    plan, workers = RUNS[case]
    found = list(estimates(list(simulated(plan, workers))))
    whole = found[0][0]
    known = [(true, said) for true, said in found if said is not None]
    # Until each worker has reported once nothing can be known, and then it is.
    longest_epoch = max(one.seconds for one in plan)
    assert whole - known[0][0] <= 1.02 * longest_epoch
    assert len(known) >= 0.9 * sum(1 + one.epochs for one in plan if not one.stored) - 2 * workers
    for true, said in known:
        assert abs(said - true) <= 0.15 * true + 0.01 * whole, f"{said:.0f} s left of {true:.0f} s"


def test_the_first_report_of_many_says_nothing_yet():
    status = Status(RunStarted(name="toy", device="8", arms=(), trials=3, work=600.0), now=0.0)
    for repeat in range(3):
        status.trial_started(begun(repeat), now=0.0)
    said = []
    for repeat in range(3):
        status.epoch_finished(epoch(f"syn-any {repeat}", work=100.0), now=50.0)
        said.append(status.seconds_left())
    # All three: 300 in 50 s, and 300 remain.
    assert [None, None, 50.0] == said


def test_reports_that_come_together_are_counted_together():
    status = Status(RunStarted(name="toy", device="8", arms=(), trials=2, work=600.0), now=0.0)
    for repeat in range(2):
        status.trial_started(begun(repeat), now=0.0)
    for number, when in ((1, 50.0), (2, 100.0)):
        for repeat in range(2):
            status.epoch_finished(epoch(f"syn-any {repeat}", number, 3, work=100.0), now=when)
            if (number, repeat) == (2, 0):
                # Half of the second 50 s is reported: 200 in 50 s it was before, and 400 from there on.
                assert 50.0 == status.seconds_left()
    assert 50.0 == status.seconds_left()


def test_time_that_a_read_back_trial_ends_was_for_what_was_under_way():
    status = Status(RunStarted(name="toy", device="8", arms=(), trials=4, work=400.0), now=0.0)
    for repeat in range(2):
        status.trial_started(begun(repeat), now=0.0)
    # Another run on the same store has trained it meanwhile.
    status.trial_finished(trial(1, work=100.0, reused=True, repeat=3), now=60.0)
    for repeat in range(2):
        status.epoch_finished(epoch(f"syn-any {repeat}", 1, 1, work=100.0), now=100.0)
    # 200 in 100 s, not in 40; 100 remain.
    assert 50.0 == status.seconds_left()


def test_a_trial_that_is_given_up_shortens_the_rest():
    status = Status(STARTED, now=0.0)
    for repeat in range(2):
        status.trial_started(begun(repeat), now=0.0)
    for repeat in range(2):
        status.epoch_finished(epoch(f"syn-any {repeat}", work=50.0), now=10.0)
    status.trial_failed(lost(1, final=True, done=1, work=50.0), now=10.0)
    # 100 in 10 s; 400 - 100 - 50 remain.
    assert (25.0, 1, 1) == (status.seconds_left(), status.failed, status.trials_done)
    assert "syn-any failed" == status.last


def test_a_trial_that_is_tried_again_is_no_failure_and_its_work_is_done_again():
    status = Status(STARTED, now=0.0)
    status.trial_started(begun(), now=0.0)
    status.epoch_finished(epoch(work=100.0), now=10.0)
    status.trial_failed(lost(work=-100.0), now=10.0)
    assert (0.0, 0, 40.0) == (status.fraction(), status.failed, status.seconds_left())
    assert "syn-any lost (attempt 1)" == status.last


# What is under way


def test_one_training_is_named_with_its_epoch():
    status = Status(STARTED, now=0.0)
    status.trial_started(begun(), now=0.0)
    status.epoch_finished(epoch(), now=1.0)
    assert "syn-any 1/2, learning rate 0.01: epoch 1/2" == status.training


def test_a_cohort_on_one_device_is_one_training():
    status = Status(STARTED, now=0.0)
    for repeat in range(25):
        status.trial_started(begun(repeat, at_once=25), now=0.0)
    status.epoch_finished(epoch("syn-any, 25 trials at once", 3, 60), now=1.0)
    assert "syn-any, 25 trials at once: epoch 3/60" == status.training


def test_several_trainings_are_counted_by_arm():
    status = Status(STARTED, now=0.0)
    for repeat in range(3):
        status.trial_started(begun(repeat), now=0.0)
    assert "syn-any: 3 running" == status.training
    for arm, count in (("rdm-any", 22), ("full-hard", 5), ("syn-aug", 1), ("rdm-aug", 1)):
        for repeat in range(count):
            status.trial_started(begun(repeat, arm), now=0.0)
    assert "32 running: rdm-any 22, full-hard 5, syn-any 3 and 2 more arms" == status.training


def test_what_has_ended_was_lost_or_begins_again_is_not_counted_twice():
    status = Status(STARTED, now=0.0)
    for repeat in range(5):
        status.trial_started(begun(repeat), now=0.0)
    # The rest of a cohort that was split is handed out anew.
    status.trial_started(begun(4), now=1.0)
    status.trial_finished(trial(1, repeat=0), now=2.0)
    status.trial_failed(lost(1), now=2.0)
    assert "syn-any: 3 running" == status.training
    status.trial_started(begun(1, attempt=2), now=3.0)
    assert "syn-any: 4 running" == status.training


# The last trial


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


def test_a_log_says_what_failed(clock, log):
    listener = Listener(log, clock)
    listener.run_started(STARTED)
    for repeat in range(2):
        listener.trial_started(begun(repeat))
    clock.now += 10.0
    listener.trial_failed(lost(0, attempt=3, final=True, done=1, work=100.0))
    listener.run_failed(FAILED)
    at_failure = "toy: 25 %, trials 1/4, 1 failed, 0:10 elapsed, time left unknown"
    assert [
        f"{at_failure}, starting, last: syn-any failed",
        "toy: stopped after 0:10, 1/4 trials, 1 failed",
    ] == log.getvalue().splitlines()[1:]


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


def test_a_thousand_workers_fit_two_lines_of_80_columns(clock, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    listener = Listener(terminal, clock)
    arms = ("full-hard", "syn-hard", "syn-any", "rdm-any")
    name = "a-run-with-a-name-that-is-longer-than-it-should-be"
    listener.run_started(RunStarted(name=name, device="1000", arms=arms, trials=50_000, work=1e6))
    for repeat in range(1000):
        listener.trial_started(begun(repeat, arms[repeat % 4]))
    for repeat in range(1000):
        listener.epoch_finished(epoch(f"syn-any {repeat}", work=1.0))
    clock.now += 36_000.0
    failed = attrs.evolve(lost(0, "full-hard", final=True, done=12_345), total=50_000)
    listener.trial_failed(failed)
    listener.run_failed(FAILED)
    bar, below = shown(terminal)
    assert re.fullmatch(r"a-run-\S*… [━╸╺ ]+ 0 % trials 12345/50000 10:00:00 left \?", bar.strip())
    assert "1 failed  |  999 running: syn-hard 250, syn-any 250, rdm-any 250 and 1 more arm" in below
    assert len(bar) <= 80 >= len(below)


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
    host.notify("ddrank_trial_started", begun())
    host.notify("ddrank_epoch_finished", epoch())
    host.notify("ddrank_trial_failed", lost())
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
