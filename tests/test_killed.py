"""Runs that are killed, stopped, doubled or out of disk: the next one goes on, to the same record."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from tiny_case import RECIPE, write_case

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or torch.cuda.is_available(), reason="runs are forked"
)

HARNESS = """
import os, sys
import ddrank_core.engine.run, ddrank_core.report.figures, torch.optim
from ddrank_core.cli.main import main

# A process of its own for every command, without the seconds that imports take.
for line in sys.stdin:
    word, *rest = line.rstrip("\\n").split("\\t")
    if word == "wait":
        _, status = os.waitpid(int(rest[0]), 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.setsid()
        out = os.open(rest[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ["DDRANK_CACHE"] = rest[1]
        os.environ["STARTS"] = rest[2]
        code = 99
        try:
            code = main(rest[3:])
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
"""

LISTENER = """
import os
from ddrank_core import hookimpl


@hookimpl
def ddrank_trial_started(event):
    line = f"{event.arm} {event.phase} {event.repeat} {event.learning_rate}\\n"
    file = os.open(os.environ["STARTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)
"""


class Harness:
    """Starts the launcher again and again, in forked processes with a group of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = write_case(
            folder,
            recipe={**RECIPE, "epochs": 60},
            full_data={
                "recipe": {"optimizer": "sgd", "schedule": "constant", "epochs": 30, "batch_size": 16}
            },
        )
        (folder / "listener.py").write_text(LISTENER)
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HARNESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )

    def start(self, *options: str, out: str = "out", cache: str = "cache") -> int:
        """Start a run, and return the number of its process."""
        files = [f"{out}.log", cache, f"{cache}-starts"]
        plugin = ["--plugin", str(self.folder / "listener.py")]
        arguments = [*plugin, "run", str(self.config), "--out", out, *options]
        return self._say("start", *files, *arguments)

    def end(self, pid: int) -> int:
        """Wait for a run, and return its exit code; minus a signal's number."""
        return self._say("wait", str(pid))

    def _say(self, *words: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def run(self, *options: str, **names: str) -> int:
        """Run to the end, and return the exit code."""
        return self.end(self.start(*options, **names))

    def begun(self, cache: str = "cache") -> Counter[str]:
        """Return how often each trial has been begun."""
        return Counter((self.folder / f"{cache}-starts").read_text().splitlines())

    def said(self, out: str = "out") -> str:
        """Return what runs to that folder have printed."""
        return (self.folder / f"{out}.log").read_text()

    def record(self, out: str = "out") -> dict:
        """Return a record without its clock times, and without who trained what when."""
        record = json.loads((self.folder / out / "record.json").read_text())
        for name in ("started", "seconds"):
            del record[name]
        for trial in record["trials"]:
            del trial["seconds"], trial["reused"]
        record["notes"] = [note for note in record["notes"] if "read back from the store" not in note]
        return record

    def is_intact(self, cache: str = "cache") -> bool:
        """Return whether SQLite finds the store in order."""
        with sqlite3.connect(self.folder / cache / "trials.sqlite") as store:
            return store.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def harness(tmp_path):
    made = Harness(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a run and all its workers a signal."""
    # It may have ended by itself: then there is no such group.
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


WAYS = {"one by one": ("--workers", "1"), "two workers": ("--workers", "2"), "cohorts": ("--cohort", "2")}


@pytest.mark.parametrize(
    ("way", "kills"),
    [
        ("two workers", 5),
        *(pytest.param(way, 20, marks=pytest.mark.slow) for way in WAYS),
    ],
)
def test_a_run_that_is_killed_at_random_moments_ends_with_the_record_of_an_undisturbed_one(
    harness, way, kills
):
    options = ("--quiet", *WAYS[way])
    clock = time.monotonic()
    assert 0 == harness.run(*options, out="undisturbed", cache="other"), harness.said("undisturbed")
    seconds = time.monotonic() - clock
    planned = harness.begun("other")

    draws = random.Random(way)
    for _ in range(kills):
        pid = harness.start(*options)
        time.sleep(draws.uniform(0.1, 0.8) * seconds)
        kill(pid)
        assert harness.end(pid) in (-signal.SIGKILL, 0)
    assert 0 == harness.run(*options), harness.said()
    assert harness.is_intact()
    assert harness.record("undisturbed") == harness.record()
    begun, at_once = harness.begun(), 1 if way == "one by one" else 2
    assert begun.keys() == planned.keys()
    assert max(planned.values()) == 1
    assert begun.total() <= planned.total() + kills * at_once


@pytest.mark.parametrize(
    ("way", "number", "code"),
    [
        ("one by one", signal.SIGINT, 130),
        ("two workers", signal.SIGINT, 130),
        ("two workers", signal.SIGTERM, 143),
    ],
)
def test_a_run_that_is_asked_to_end_does_so_within_seconds_and_says_how_to_go_on(harness, way, number, code):
    options = ("--quiet", *WAYS[way])
    pid = harness.start(*options)
    while not (harness.folder / "cache-starts").exists() or harness.begun().total() < 4:
        time.sleep(0.05)
    clock = time.monotonic()
    kill(pid, number)
    assert code == harness.end(pid)
    assert time.monotonic() - clock < 5
    (line,) = harness.said().splitlines()
    word = "interrupted" if number == signal.SIGINT else "terminated"
    found = re.fullmatch(
        rf"error: {word}; (\d+) of 22 trials are finished and kept, the same command goes on", line
    )
    assert found, line
    assert int(found[1]) >= 2
    assert not (harness.folder / "out").exists()
    assert 0 == harness.run(*options)
    assert f"({found[1]} read back)" in harness.said()


def test_two_runs_on_one_store_share_the_work(harness):
    assert 0 == harness.run("--quiet", out="alone", cache="other")
    planned = harness.begun("other")
    pids = [harness.start("--quiet", "--workers", "1", out=out) for out in ("one", "two")]
    assert [0, 0] == [harness.end(pid) for pid in pids], harness.said("one") + harness.said("two")
    assert planned == harness.begun()
    one, two = harness.record("one"), harness.record("two")
    assert one == two
    assert [trial["accuracy"] for trial in harness.record("alone")["trials"]] == [
        trial["accuracy"] for trial in one["trials"]
    ]
    assert harness.is_intact()


def test_what_a_killed_run_had_claimed_another_that_waits_for_it_trains(harness):
    first = harness.start("--quiet", "--workers", "2", out="one")
    while not (harness.folder / "cache-starts").exists():
        time.sleep(0.05)
    second = harness.start("--quiet", "--workers", "1", out="two")
    time.sleep(1)
    kill(first)
    assert -signal.SIGKILL == harness.end(first)
    assert 0 == harness.end(second), harness.said("two")
    assert harness.begun().total() <= 22 + 2
    assert 0 == harness.run("--quiet", "--workers", "2", out="one")
    assert harness.record("one") == harness.record("two") | {"device": harness.record("one")["device"]}


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Give a file system of its own with so little room."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("only root can mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_after_room_is_made_the_run_goes_on(harness):
    assert 0 == harness.run("--quiet", out="undisturbed", cache="other")
    with small_disk(harness.folder / "cache", 400):
        ballast = harness.folder / "cache" / "ballast"
        ballast.write_bytes(b"0" * 230 * 1024)
        assert 1 == harness.run("--quiet")
        (line,) = harness.said().splitlines()
        assert line.startswith("error: cache/trials.sqlite: ")
        assert "disk is full" in line
        assert "make room" in line
        assert not (harness.folder / "out").exists()
        ballast.unlink()
        assert harness.is_intact()
        subprocess.run(["mount", "-o", "remount,size=8m", str(harness.folder / "cache")], check=True)
        before = harness.begun().total()
        assert 0 == harness.run("--quiet"), harness.said()
        assert harness.is_intact()
        assert harness.record("undisturbed") == harness.record()
        assert before > 1
        assert harness.begun().total() <= 22 + 2


def test_a_run_that_is_terminated_while_it_starts_ends_without_a_fault_of_its_own(tmp_path):
    """While torch is imported an exception can get lost; a signal then is the system's own end."""
    config = write_case(tmp_path)
    environment = {**os.environ, "DDRANK_CACHE": str(tmp_path / "cache")}
    launcher = [sys.executable, "-m", "ddrank_core"]
    command = [*launcher, "run", str(config), "--out", str(tmp_path / "out"), "--quiet"]
    for seconds in (0.5, 1.0, 1.4, 1.8):
        started = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(seconds)
        started.terminate()
        _, said = started.communicate(timeout=60)
        assert started.returncode in (-signal.SIGTERM, 143, 0), said
        assert "Traceback" not in said
