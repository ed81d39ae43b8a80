"""The store of finished trials: nothing is lost, and nothing is trained twice that need not be."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import attrs
import pytest
from tiny_case import prepared_case

from ddrank_core.engine.keys import Keys
from ddrank_core.errors import DataError, DDRankError, RunFailed
from ddrank_core.store import About, StoredTrial, TrialStore, database

OUTCOME = {"validation_accuracy": 0.5, "accuracy": None, "epoch": 4, "diverged": False, "seconds": 1.5}
ABOUT = About(
    run="quickstart",
    dataset="digits",
    student="convnet",
    distilled="ab" * 32,
    arm="syn-any",
    phase="final",
    repeat=1,
    learning_rate=0.01,
    seed=2**53 - 1,
    subset_seed=None,
    determinants={"engine": "1f", "components": [{"name": "convnet", "parameters": {"depth": 3}}]},
)
TRIAL = StoredTrial(outcome=OUTCOME, predictions=b"\x01\x00\x02\x00\xff\x03", about=ABOUT)


def open_store(folder: Path) -> closing[TrialStore]:
    return closing(TrialStore(folder))


def numbered(number: int) -> StoredTrial:
    """Return a trial that can be told from others, of 4,000 predictions that no compression shrinks."""
    predictions = random.Random(number).randbytes(8000)
    return StoredTrial(outcome={**OUTCOME, "epoch": number}, predictions=predictions, about=ABOUT)


def is_sound(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "trials.sqlite")) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def said(raised: pytest.ExceptionInfo[DDRankError]) -> str:
    """Return the one line of an error."""
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    return text


# -- keeping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("predictions", [None, b"", b"\x00\x00", bytes(range(256)) * 40])
def test_a_trial_comes_back_as_it_was_put(tmp_path, predictions):
    trial = attrs.evolve(TRIAL, predictions=predictions)
    with open_store(tmp_path) as store:
        store.put({"a": trial})
    with open_store(tmp_path) as store:
        assert store.get("a") == trial
        assert store.get_many(["a", "b"]) == {"a": attrs.evolve(trial, about=None)}
        assert store.get("b") is None


def test_a_name_that_is_not_utf_8_can_be_kept(tmp_path):
    with open_store(tmp_path) as store:
        store.put({"a": attrs.evolve(TRIAL, about=attrs.evolve(ABOUT, run="caf\udce9"))})
        assert store.get("a").about.run == "caf\\udce9"


def test_trials_are_put_all_or_none(tmp_path):
    too_large = attrs.evolve(TRIAL, about=attrs.evolve(ABOUT, seed=2**64))
    with open_store(tmp_path) as store:
        with pytest.raises(OverflowError):
            store.put({"a": TRIAL, "b": too_large})
        assert store.get_many(["a", "b"]) == {}
        store.put({"a": TRIAL})
        assert set(store.get_many(["a", "b"])) == {"a"}


def test_a_trial_that_is_put_again_is_replaced(tmp_path):
    with open_store(tmp_path) as store:
        store.put({"a": attrs.evolve(TRIAL, predictions=None)})
        store.put({"a": TRIAL})
        assert store.get("a") == TRIAL


@pytest.mark.parametrize("column", ["predictions", "outcome", "determinants"])
def test_a_trial_that_is_damaged_is_to_be_trained_again(tmp_path, column):
    with open_store(tmp_path) as store:
        store.put({"a": TRIAL, "b": TRIAL})
        with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
            db.execute(f"UPDATE trials SET {column} = x'01' WHERE digest = 'a'")
        assert (store.get("a"), store.get("b")) == (None, TRIAL)
        assert store.claim(["a", "b"]) == {"a"}


def test_thousands_of_trials_are_asked_for_at_once(tmp_path):
    digests = [str(number) for number in range(40_000)]
    with open_store(tmp_path) as store:
        assert store.claim(digests) == set(digests)
        store.put({"7": TRIAL})
        assert set(store.get_many(digests)) == {"7"}
        store.release(digests)


def test_a_failed_trial_is_remembered_but_never_served(tmp_path):
    with open_store(tmp_path) as store:
        store.fail("a", "RuntimeError: out of luck", 3, ABOUT)
        assert store.get("a") is None
        assert failures(tmp_path) == [("a", "RuntimeError: out of luck", 3, "quickstart")]
        assert store.claim(["a"]) == {"a"}
        store.put({"a": TRIAL})
        assert (store.get("a"), failures(tmp_path)) == (TRIAL, [])


def failures(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "trials.sqlite")) as db:
        return db.execute("SELECT digest, error, attempts, run FROM failed").fetchall()


def test_a_test_accuracy_that_is_noted_is_for_people_only(tmp_path):
    with open_store(tmp_path) as store:
        store.put({"a": TRIAL})
        store.note_accuracy({"a": 0.75, "gone": 0.5})
        assert store.get("a") == TRIAL
        with closing(sqlite3.connect(store.path)) as db:
            assert db.execute("SELECT digest, test_accuracy FROM trials").fetchall() == [("a", 0.75)]


def test_what_a_run_read_counts_as_used(tmp_path):
    long_ago = "2020-01-01 00:00:00"
    with open_store(tmp_path) as store:
        store.put({"a": TRIAL, "b": TRIAL, "c": TRIAL})
        with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
            db.execute("UPDATE trials SET used = ?", [long_ago])
    with open_store(tmp_path) as store:
        store.get("a")
        store.get_many(["b"])
    with closing(sqlite3.connect(store.path)) as db:
        used = dict(db.execute("SELECT digest, used FROM trials"))
    assert used["c"] == long_ago < min(used["a"], used["b"])


def test_a_trial_takes_about_2_kb_of_the_file_beside_its_predictions(tmp_path):
    prepared = prepared_case(tmp_path)
    keys, arm = Keys(prepared), prepared.plan.trained[0]
    trial = prepared.plan.first_trials(arm, arm.rungs[0], arm.candidates)[0]
    about = attrs.evolve(ABOUT, determinants=keys.determinants(arm, trial, ()))
    # Of 10,000 images over 10 classes, of which the right one is predicted in 7 of 10.
    draws = random.Random(0)
    classes = [k % 10 if draws.random() < 0.7 else draws.randrange(10) for k in range(10_000)]
    predictions = b"".join(k.to_bytes(2, "little") for k in classes)
    one = StoredTrial(outcome=OUTCOME, predictions=predictions, about=about)
    with open_store(tmp_path) as store:
        before = file_bytes(store.path)
        store.put({f"{number:064}": one for number in range(200)})
        each = (file_bytes(store.path) - before) / 200
    # The reference: classes that need a byte each, as small as zlib makes them.
    assert each < 2250 + len(zlib.compress(bytes(classes), 1))


def file_bytes(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA page_count").fetchone()[0] * db.execute("PRAGMA page_size").fetchone()[0]


# -- claims ------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[TrialStore, TrialStore]]:
    """Two runs on one folder."""
    with open_store(tmp_path) as one, open_store(tmp_path) as other:
        yield one, other


def test_a_trial_is_claimed_by_one_run_only(two):
    one, other = two
    assert one.claim(["a", "b"]) == {"a", "b"}
    assert other.claim(["b", "c"]) == {"c"}
    assert one.claim(["a", "b", "c"]) == {"a", "b"}


def test_what_is_stored_is_not_claimed(two):
    one, other = two
    one.claim(["a"])
    one.put({"a": TRIAL})
    assert (one.claim(["a"]), other.claim(["a"])) == (set(), set())


@pytest.mark.parametrize("end", ["release", "fail", "close"])
def test_a_claim_that_is_given_back_is_free(two, end):
    one, other = two
    one.claim(["a"])
    assert other.claim(["a"]) == set()
    {"release": lambda: one.release(["a"]), "fail": lambda: one.fail("a", "no", 3, None), "close": one.close}[
        end
    ]()
    assert other.claim(["a"]) == {"a"}


def test_a_run_gives_back_its_own_claims_only(two):
    one, other = two
    one.claim(["a"])
    other.release(["a"])
    other.put({"b": TRIAL})
    assert other.claim(["a"]) == set()


def test_no_lock_is_left_of_a_run_that_ends(tmp_path):
    with open_store(tmp_path) as store:
        store.claim(["a"])
        assert len(list((tmp_path / "claims").iterdir())) == 1
    assert list((tmp_path / "claims").iterdir()) == []


CLAIMS = """
import sys, time
from pathlib import Path
from ddrank_core.store import TrialStore
store = TrialStore(Path(sys.argv[1]))
print(len(store.claim(sys.argv[2:])), flush=True)
time.sleep(600)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_at_once(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let processes that wait for a line go on together; return what each then says."""
    assert ["ready\n"] * len(processes) == [process.stdout.readline() for process in processes]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    assert [0] * len(processes) == [process.returncode for process in processes]
    return said


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_the_claims_of_a_killed_run_are_free_at_once(tmp_path):
    owner = start(CLAIMS, tmp_path, "a", "b")
    assert owner.stdout.readline() == "2\n"
    with open_store(tmp_path) as store:
        assert store.claim(["a"]) == set()
        kill(owner)
        assert store.claim(["a"]) == {"a"}
        # That of this run, which lives.
        assert len(list((tmp_path / "claims").iterdir())) == 1
        with closing(sqlite3.connect(store.path)) as db:
            assert db.execute("SELECT digest FROM claims").fetchall() == [("a",)]


def test_locks_of_killed_runs_are_cleared_away(tmp_path):
    owner = start(CLAIMS, tmp_path)
    assert owner.stdout.readline() == "0\n"
    kill(owner)
    with open_store(tmp_path) as store:
        store.claim(["z"])
        assert len(list((tmp_path / "claims").iterdir())) == 1


def test_a_forked_worker_that_ends_does_not_end_the_claims(two):
    one, other = two
    one.claim(["a"])
    worker = multiprocessing.get_context("fork").Process(target=int)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert other.claim(["a"]) == set()


# -- many processes ----------------------------------------------------------------------------

TRAINS = """
import json, random, sys
from pathlib import Path
from ddrank_core.store import StoredTrial, TrialStore
folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
digests = [f"trial {number}" for number in range(count)]
random.Random(seed).shuffle(digests)
print("ready", flush=True)
sys.stdin.readline()
store, trained = TrialStore(folder), []
for start in range(0, count, 20):
    group = digests[start : start + 20]
    ours = store.claim([digest for digest in group if digest not in store.get_many(group)])
    store.put({digest: StoredTrial(outcome={"by": seed}, predictions=b"1" * 2000) for digest in ours})
    trained += ours
store.close()
print(json.dumps(trained))
"""


def test_four_processes_share_2000_trials_and_train_each_once(tmp_path):
    processes = [start(TRAINS, tmp_path, seed, 2000) for seed in range(4)]
    trained = [json.loads(said) for said in run_at_once(processes)]
    assert all(trained)
    assert sorted(f"trial {number}" for number in range(2000)) == sorted(chain(*trained))
    with open_store(tmp_path) as store:
        stored = store.get_many(chain(*trained))
        for seed, own in enumerate(trained):
            assert {seed} == {stored[digest].outcome["by"] for digest in own}
    assert is_sound(tmp_path)


OPENS = """
import sys
from pathlib import Path
from ddrank_core.store import TrialStore
print("ready", flush=True)
sys.stdin.readline()
store = TrialStore(Path(sys.argv[1]))
print(len(store.get_many(["old 0", "old 1", "old 2"])))
"""


@pytest.mark.parametrize("trials", [0, 3])
def test_a_store_may_be_made_or_brought_up_to_date_by_several_processes_at_once(tmp_path, trials):
    if trials:
        write_version_1(tmp_path, trials)
    processes = [start(OPENS, tmp_path) for _ in range(6)]
    assert [f"{trials}\n"] * 6 == run_at_once(processes)
    assert is_sound(tmp_path)


# -- versions ----------------------------------------------------------------------------------


def write_version_1(folder: Path, trials: int, predictions: bytes = b"\x01\x00\x02\x01") -> None:
    """Write a store as version 1 did."""
    with closing(sqlite3.connect(folder / "trials.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(
            "CREATE TABLE IF NOT EXISTS trials ("
            "digest TEXT PRIMARY KEY, outcome TEXT NOT NULL, predictions BLOB, "
            "created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) WITHOUT ROWID"
        )
        db.execute("PRAGMA user_version = 1")
        for number in range(trials):
            packed = None if number == 1 else predictions
            db.execute(
                "INSERT OR REPLACE INTO trials (digest, outcome, predictions, created) VALUES (?, ?, ?, ?)",
                (f"old {number}", json.dumps({"epoch": number}), packed, f"2026-01-0{9 - number} 12:00:00"),
            )


def version(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "trials.sqlite")) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def test_the_trials_of_a_version_1_store_are_still_there(tmp_path):
    write_version_1(tmp_path, 3)
    with open_store(tmp_path) as store:
        assert store.get_many([f"old {number}" for number in range(3)]) == {
            "old 0": StoredTrial(outcome={"epoch": 0}, predictions=b"\x01\x00\x02\x01"),
            "old 1": StoredTrial(outcome={"epoch": 1}, predictions=None),
            "old 2": StoredTrial(outcome={"epoch": 2}, predictions=b"\x01\x00\x02\x01"),
        }
        assert store.get("old 0").about is None
        store.put({"new": TRIAL})
        with closing(sqlite3.connect(store.path)) as db:
            newest_first = db.execute("SELECT digest, created FROM trials ORDER BY rowid DESC").fetchall()
        assert ["new", "old 0", "old 1", "old 2"] == [digest for digest, _ in newest_first]
        assert newest_first[1:] == [(f"old {n}", f"2026-01-0{9 - n} 12:00:00") for n in range(3)]
    assert (version(tmp_path), is_sound(tmp_path)) == (2, True)


def test_a_process_of_version_1_that_still_runs_cannot_write_any_more(tmp_path):
    write_version_1(tmp_path, 1)
    with closing(sqlite3.connect(tmp_path / "trials.sqlite", isolation_level=None)) as old:
        old.execute("SELECT outcome FROM trials").fetchall()
        with open_store(tmp_path) as store:
            with pytest.raises(sqlite3.IntegrityError):
                old.execute(
                    "INSERT OR REPLACE INTO trials (digest, outcome, predictions) VALUES ('x', '{}', x'00')"
                )
            assert store.get_many(["old 0", "x"]).keys() == {"old 0"}


def test_a_version_1_store_that_was_left_before_it_had_a_number_is_used(tmp_path):
    write_version_1(tmp_path, 0)
    with closing(sqlite3.connect(tmp_path / "trials.sqlite")) as db:
        db.execute("PRAGMA user_version = 0")
    with open_store(tmp_path) as store:
        store.put({"a": TRIAL})
        assert store.get("a") == TRIAL


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "trials.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 3")
    before = path.read_bytes()
    with pytest.raises(DataError) as raised:
        TrialStore(tmp_path)
    assert said(raised) == (
        f"{path}: written by a newer version of ddrank (schema 3, this one knows 2); update ddrank, or set "
        "DDRANK_CACHE to another folder"
    )
    assert path.read_bytes() == before


# -- damage and full disks ---------------------------------------------------------------------


def whole_file(folder: Path) -> bytes:
    with open_store(folder) as store:
        store.put({str(number): numbered(number) for number in range(20)})
    return (folder / "trials.sqlite").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: random.Random(0).randbytes(len(whole)),
        lambda whole: b"digest,outcome\n" * 1000,
        lambda whole: whole[:2048] + random.Random(0).randbytes(len(whole) - 2048),
    ],
    ids=["cut off", "random bytes", "text", "random after the first page"],
)
def test_a_damaged_store_is_one_line_that_says_what_to_do(tmp_path, damage):
    path = tmp_path / "trials.sqlite"
    damaged = damage(whole_file(tmp_path))
    path.write_bytes(damaged)
    with pytest.raises(DataError) as raised, open_store(tmp_path) as store:
        store.get_many([str(number) for number in range(20)])
    assert said(raised).startswith(f"{path}: the store of finished trials is damaged (DatabaseError: ")
    assert said(raised).endswith(
        "); move it away, with trials.sqlite-wal and trials.sqlite-shm where they exist, and its trials are "
        "trained anew"
    )
    assert path.read_bytes() == damaged


def test_a_store_that_another_process_holds_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with open_store(tmp_path) as store, closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunFailed) as raised:
            store.put({"a": TRIAL})
        assert said(raised) == (
            f"{store.path}: another process has held it for 0.05 s; finished trials are safe: run again when "
            "it has ended"
        )
        other.execute("ROLLBACK")
        store.put({"a": TRIAL})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no 'mount' here")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk but for so many bytes; return the file that does."""
    ballast = disk / "ballast"
    about = os.statvfs(disk)
    ballast.write_bytes(bytes(about.f_bavail * about.f_frsize - leave))
    return ballast


def refusal(store: TrialStore, number: int) -> str:
    """Put a trial; return why it does not go in, or nothing where it does."""
    try:
        store.put({str(number): numbered(number)})
    except RunFailed as error:
        return str(error)
    return ""


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk):
    ballast = fill(small_disk, leave=512 << 10)
    with open_store(small_disk) as store:
        count, why = next((n, why) for n in range(1000) if (why := refusal(store, n)))
        assert why == f"{store.path}: the disk is full; finished trials are safe: make room and run again"
        assert count > 10
        assert len(store.get_many(map(str, range(count + 1)))) == count
        ballast.unlink()
        assert store.claim([str(count)]) == {str(count)}
        store.put({str(count): numbered(count)})
    assert is_sound(small_disk)
    with open_store(small_disk) as store:
        assert {str(n): numbered(n).predictions for n in range(count + 1)} == {
            digest: trial.predictions for digest, trial in store.get_many(map(str, range(count + 1))).items()
        }


def test_a_run_that_is_killed_on_a_full_disk_loses_nothing(small_disk):
    ballast = fill(small_disk, leave=512 << 10)
    owner = start(PUTS, small_disk, "full")
    said = owner.communicate()[0].split()
    assert owner.returncode == -signal.SIGKILL
    ballast.unlink()
    with open_store(small_disk) as store:
        assert len(said) > 10
        assert len(store.get_many(said)) == len(said)
    assert is_sound(small_disk)


@pytest.mark.parametrize("room", [0, 4096, 8192, 16384, 32768, 65536, 131072])
def test_a_disk_with_little_room_is_one_line_wherever_it_fills_up(small_disk, room):
    ballast = fill(small_disk, leave=room)
    with pytest.raises(RunFailed) as raised:
        open_and_put_large(small_disk)
    assert said(raised).startswith(f"{small_disk / 'trials.sqlite'}: the disk is full; ")
    ballast.unlink()
    with open_store(small_disk) as store:
        store.claim(["b"])
        store.put({"b": TRIAL})
    assert is_sound(small_disk)


def open_and_put_large(folder: Path) -> None:
    with open_store(folder) as store:
        store.claim(["a"])
        store.put({str(number): numbered(number) for number in range(20)})


def test_a_store_that_cannot_be_brought_up_to_date_for_lack_of_room_stays_as_it_was(small_disk):
    draws = random.Random(0)
    write_version_1(small_disk, 9, draws.randbytes(20_000))
    ballast = fill(small_disk, leave=60_000)
    with pytest.raises(RunFailed, match="the disk is full"):
        TrialStore(small_disk)
    ballast.unlink()
    assert version(small_disk) == 1
    with open_store(small_disk) as store:
        assert len(store.get_many([f"old {number}" for number in range(9)])) == 9
    assert (version(small_disk), is_sound(small_disk)) == (2, True)


def test_a_store_that_cannot_be_written_is_one_line(small_disk):
    with open_store(small_disk) as store:
        store.put({"a": TRIAL})
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(DataError) as raised, open_store(small_disk) as store:
        store.claim(["b"])
    assert said(raised).startswith(f"{store.path}: the store of finished trials cannot be used (")
    assert said(raised).endswith("make its folder writable, or set DDRANK_CACHE to a folder on a local disk")


SYNCS = """
import sys
from pathlib import Path
from ddrank_core.store import StoredTrial, TrialStore
store = TrialStore(Path(sys.argv[1]))
trial = StoredTrial(outcome={}, predictions=b"1" * 200)
for number in range(3):
    store.claim([str(number)])
    print("put", flush=True)
    store.put({str(number): trial})
    print("done", flush=True)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_trial_is_synced_to_the_disk_before_put_returns_and_a_claim_is_not(tmp_path):
    log = tmp_path / "calls"
    command = ["strace", "-f", "-o", log, "-e", "trace=write,fsync,fdatasync", sys.executable, "-c", SYNCS]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip(f"no process can be traced here: {done.stderr.strip()}")
    assert done.returncode == 0
    calls = re.findall(r"(put|done|fsync|fdatasync)\b", log.read_text())
    steps = " ".join(calls).partition("put")[2].replace("fdatasync", "sync").replace("fsync", "sync")
    # Between putting and claiming again; closing the store syncs what it writes back.
    assert re.fullmatch(r"( sync)+ done put( sync)+ done put( sync)+ done( sync)*", steps)


# -- a power cut -------------------------------------------------------------------------------

PUTS = """
import os, random, signal, sys
from pathlib import Path
from ddrank_core.errors import RunFailed
from ddrank_core.store import StoredTrial, TrialStore
store = TrialStore(Path(sys.argv[1]))
for number in range(100_000):
    predictions = random.Random(number).randbytes(8000)
    try:
        store.put({str(number): StoredTrial(outcome={"epoch": number}, predictions=predictions)})
    except RunFailed:
        os.kill(os.getpid(), signal.SIGKILL)
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(5))
def test_what_is_on_the_disk_at_any_moment_is_whole_and_holds_all_that_was_put(tmp_path, seed):
    """The writer is stopped in the middle of something, and the files are taken as they are then."""
    draws, live, copy = random.Random(seed), tmp_path / "live", tmp_path / "copy"
    live.mkdir()
    copy.mkdir()
    writer = start(PUTS, live)
    told = [int(writer.stdout.readline()) for _ in range(draws.randrange(1, 400))][-1]
    time.sleep(draws.random() / 100)
    writer.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
    for name in ("trials.sqlite", "trials.sqlite-wal"):
        (copy / name).write_bytes((live / name).read_bytes())
    kill(writer)

    with open_store(copy) as store:
        found = store.get_many(map(str, range(told + 400)))
    assert is_sound(copy)
    assert len(found) > told
    assert found == {str(n): as_put_by_number(n) for n in range(len(found))}


def as_put_by_number(number: int) -> StoredTrial:
    return attrs.evolve(numbered(number), outcome={"epoch": number}, about=None)
