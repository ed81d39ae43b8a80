"""`ddrank trials`: finished trials are found, read, exported and deleted by people."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from test_light_imports import HEAVY, launch

from ddrank_core.cli import main as launcher
from ddrank_core.cli.trials import SHORT
from ddrank_core.store import About, StoredTrial, TrialStore

DETERMINANTS = {
    "engine": "1f",
    "learning_rate": 0.01,
    "components": [{"name": "convnet", "parameters": {"depth": 3}}, {"name": "ce", "parameters": {}}],
}
ABOUT = About(
    run="quickstart",
    dataset="digits",
    student="convnet",
    distilled="ab" * 32,
    arm="syn-any",
    phase="final",
    repeat=0,
    learning_rate=0.01,
    seed=11,
    subset_seed=None,
    determinants=DETERMINANTS,
)
OUTCOME = {
    "validation_accuracy": 0.625,
    "accuracy": None,
    "epoch": 4,
    "diverged": False,
    "seconds": 1.25,
    "how": "alone",
}
CLASSES = [0, 1, 2, 999]
PREDICTIONS = b"".join(number.to_bytes(2, "little") for number in CLASSES)


def digest(number: int) -> str:
    return f"{number:02x}" * 32


def trial(number: int) -> StoredTrial:
    """Return one of four trials that differ in what people search by."""
    changes: dict[str, Any] = [
        {},
        {"arm": "rdm-any", "repeat": 1, "subset_seed": 7},
        {"run": "cifar [sweep]", "dataset": "cifar10", "student": "convnet(depth=4)", "phase": "search"},
        {"learning_rate": 0.1},
    ][number]
    outcome = {**OUTCOME, "diverged": number == 3, "validation_accuracy": None if number == 3 else 0.625}
    return StoredTrial(
        outcome=outcome, predictions=b"" if number == 3 else PREDICTIONS, about=attrs.evolve(ABOUT, **changes)
    )


DAYS_OLD = (40, 10, 2, 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache folder with four finished trials of different ages and one that failed."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DDRANK_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    with closing(TrialStore(folder)) as store:
        for number in range(4):
            store.put({digest(number): trial(number)})
        store.fail(digest(9), "RuntimeError: out of luck", 3, attrs.evolve(ABOUT, arm="full-hard"))
        store.note_accuracy({digest(0): 0.75})
    for number, days in enumerate(DAYS_OLD):
        set_age(folder, number, days)
    return folder


def set_age(folder: Path, number: int, days: float) -> None:
    when = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S")
    change(folder, "UPDATE trials SET created = ?, used = ? WHERE digest = ?", when, when, digest(number))


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "trials.sqlite", isolation_level=None)) as db:
        db.execute(statement, values)


def ddrank(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run `ddrank trials` and return what it said; nothing may go wrong."""
    code = launcher.main(["trials", *arguments])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run `ddrank trials` and return its one line of error."""
    found = launcher.main(["trials", *arguments])
    captured = capsys.readouterr()
    assert (found, captured.out) == (code, "")
    (line,) = captured.err.splitlines()
    return line.removeprefix("error: ")


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[int]:
    """Return the numbers of the trials that a list shows, in its order."""
    rows = [json.loads(line) for line in ddrank(capsys, *arguments, "--json").splitlines()]
    return [int(row["digest"][:2], 16) for row in rows]


def left(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "trials.sqlite")) as db:
        found = db.execute("SELECT digest FROM trials UNION SELECT digest FROM failed").fetchall()
    return sorted(int(name[:2], 16) for (name,) in found)


# -- list --------------------------------------------------------------------------------------


def test_trials_are_listed_with_the_newest_first(cache, capsys):
    header, *rows, blank, totals = ddrank(capsys, "list").splitlines()
    assert header.split("  ")[0] == "DIGEST"
    cells = [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows]
    assert [digest(number)[:SHORT] for number in (3, 2, 1, 0)] == [row[0] for row in cells]
    assert [
        ["quickstart", "digits", "convnet", "syn-any", "final", "0", "0.1", "diverged", "-", "1.2"],
        [
            "cifar [sweep]",
            "cifar10",
            "convnet(depth=4)",
            "syn-any",
            "search",
            "0",
            "0.01",
            "62.5",
            "-",
            "1.2",
        ],
        ["quickstart", "digits", "convnet", "rdm-any", "final", "1", "0.01", "62.5", "-", "1.2"],
        ["quickstart", "digits", "convnet", "syn-any", "final", "0", "0.01", "62.5", "75.0", "1.2"],
    ] == [row[1:11] for row in cells]
    size = (cache / "trials.sqlite").stat().st_size
    assert (blank, totals) == (
        "",
        f"4 trials, 1 failed ('ddrank trials --failed' lists them); {cache / 'trials.sqlite'}, "
        f"{size / 1024:.1f} KiB",
    )


def test_the_list_is_what_comes_without_a_command(cache, capsys):
    assert ddrank(capsys) == ddrank(capsys, "list")
    assert ddrank(capsys, "--arm", "rdm-any") == ddrank(capsys, "list", "--arm", "rdm-any")


def test_help_is_that_of_the_group(cache, capsys):
    assert "prune" in ddrank(capsys, "--help")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--run", "quickstart"], [3, 1, 0]),
        (["--run", "quick*"], [3, 1, 0]),
        (["--run", "cifar [sweep]"], [2]),
        (["--run", "QUICKSTART"], []),
        (["--dataset", "cifar10"], [2]),
        (["--student", "convnet(*"], [2]),
        (["--arm", "rdm-any"], [1]),
        (["--phase", "search"], [2]),
        (["--rate", "0.1"], [3]),
        (["--rate", "1e-2", "--arm", "syn-any"], [2, 0]),
        (["--diverged"], [3]),
        (["--since", "3d"], [3, 2]),
        (["--since", "12h"], [3]),
        (["--older-than", "3d"], [1, 0]),
        (["--older-than", "30d"], [0]),
        (["--older-than", "2000-01-31"], []),
        (["--since", "2000-01-31T12:00:00+02:00"], [3, 2, 1, 0]),
        (["--since", "50d", "--older-than", "1w"], [1, 0]),
        (["--failed"], [9]),
        (["--failed", "--arm", "syn-any"], []),
    ],
)
def test_filters_choose_trials(cache, capsys, arguments, expected):
    assert expected == listed(capsys, *arguments)


def test_a_date_with_a_time_zone_is_turned_into_utc(cache, capsys):
    change(cache, "UPDATE trials SET created = '2026-03-01 10:30:00' WHERE digest = ?", digest(1))
    assert 1 in listed(capsys, "--older-than", "2026-03-01T12:31:00+02:00")
    assert 1 not in listed(capsys, "--older-than", "2026-03-01T12:29:00+02:00")


def test_a_list_says_how_many_more_there_are(cache, capsys):
    assert ddrank(capsys, "--run", "quickstart", "--limit", "2").splitlines()[-2:] == [
        "1 more: --limit 3 shows them",
        ddrank(capsys, "--run", "quickstart").splitlines()[-1],
    ]
    assert ddrank(capsys, "--run", "quickstart").splitlines()[-1].startswith("3 of 4 trials, 1 failed (")


def test_json_says_on_stderr_how_many_more_there_are(cache, capsys):
    assert launcher.main(["trials", "--json", "--limit", "1"]) == 0
    captured = capsys.readouterr()
    assert (len(captured.out.splitlines()), captured.err) == (1, "3 more: --limit 4 shows them\n")


def test_failed_trials_are_listed_with_their_errors(cache, capsys):
    header, row, _, totals = ddrank(capsys, "--failed").splitlines()
    assert header.split()[-3:] == ["ATTEMPTS", "CREATED", "ERROR"]
    assert row.endswith("  RuntimeError: out of luck")
    assert totals.startswith(f"1 failed trial; {cache / 'trials.sqlite'}, ")


def test_a_trial_of_version_1_is_listed_by_what_is_known_of_it(cache, capsys):
    with closing(TrialStore(cache)) as store:
        store.put({digest(5): StoredTrial(outcome=OUTCOME, predictions=None)})
    first = ddrank(capsys).splitlines()[1].split()
    assert [digest(5)[:SHORT], *["-"] * 7, "62.5", "-", "1.2"] == first[:11]


def test_without_a_store_there_are_no_trials_and_none_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "trials.sqlite"
    assert ddrank(capsys) == f"no trials yet in {path}\n"
    for arguments in (["show", "ab"], ["export", "all.csv"], ["prune", "--all"]):
        assert refused(capsys, *arguments) == f"{path}: no such file; the first 'ddrank run' makes it"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "when", ["yesterday", "30", "30y", "-3d", "2026-13-01", "0000-00-00", "9999999d", "999999w"]
)
def test_a_time_that_is_none_is_one_line(cache, capsys, when):
    assert refused(capsys, f"--since={when}") == (
        f"invalid value for '--since': '{when}' is no age like 30d (m, h, d, w) and no date like 2026-01-31; "
        "see 'ddrank trials list --help'"
    )


def test_failed_and_diverged_exclude_each_other(cache, capsys):
    assert refused(capsys, "--failed", "--diverged").startswith("--failed: ")


HOSTILE = "=cmd()|\x1b[31m\x07\u202e[bold]{x}\n"


def test_hostile_names_are_shown_without_control_characters(cache, capsys):
    about = attrs.evolve(
        ABOUT, run=HOSTILE, student=HOSTILE * 50, determinants={HOSTILE: HOSTILE, "list": [HOSTILE]}
    )
    with closing(TrialStore(cache)) as store:
        store.put({digest(6): attrs.evolve(trial(0), about=about)})
        store.fail(digest(7), HOSTILE, 3, about)
    for arguments in (
        [],
        ["--json"],
        ["--failed"],
        ["show", digest(6)],
        ["show", digest(7)],
        ["show", digest(6), "--json"],
        ["show", digest(6), "--against", digest(0)],
        ["show", digest(6), "--against", digest(0), "--json"],
    ):
        said = ddrank(capsys, *arguments)
        assert all(character.isprintable() or character == "\n" for character in said)
        assert "=cmd()|" in said
        assert max(map(len, ddrank(capsys).splitlines())) < 250


# -- show --------------------------------------------------------------------------------------


def test_a_trial_is_shown_by_the_start_of_its_digest(cache, capsys):
    shown = yaml.safe_load(ddrank(capsys, "show", digest(0)[:3]))
    assert digest(0) == shown["digest"]
    assert ("quickstart", "digits", 0.75, 4) == tuple(
        shown[name] for name in ("run", "dataset", "test_accuracy", "predictions")
    )
    assert (OUTCOME, DETERMINANTS) == (shown["outcome"], shown["determinants"])


def test_json_shows_the_same_as_one_object(cache, capsys):
    as_json = json.loads(ddrank(capsys, "show", digest(1), "--json"))
    assert yaml.safe_load(ddrank(capsys, "show", digest(1))) == as_json


def test_a_failed_trial_is_shown_with_its_error(cache, capsys):
    shown = yaml.safe_load(ddrank(capsys, "show", digest(9)))
    assert ("RuntimeError: out of luck", 3) == (shown["error"], shown["attempts"])
    assert DETERMINANTS == shown["determinants"]


def test_an_unknown_or_ambiguous_digest_is_one_line(cache, capsys):
    assert refused(capsys, "show", "zz") == "no trial's digest starts with 'zz'; 'ddrank trials' lists them"
    assert refused(capsys, "show", "0") == (
        "the digests of several trials start with '0': 00000, 01010, ...; give more of it"
    )
    assert refused(capsys, "show", "%").startswith("no trial's digest starts with '%'")


def test_what_determines_two_trials_differently_is_shown_alone(cache, capsys):
    other = {
        "engine": "1f",
        "learning_rate": 0.1,
        "components": [{"name": "convnet", "parameters": {"depth": 4, "norm": "batch"}}],
    }
    with closing(TrialStore(cache)) as store:
        store.put({digest(8): attrs.evolve(trial(0), about=attrs.evolve(ABOUT, determinants=other))})
    lines = ddrank(capsys, "show", "0000", "--against", "08").splitlines()
    assert [line.split() for line in lines] == [
        ["DETERMINANT", "000000000000", "080808080808"],
        ["components[0].parameters.depth", "3", "4"],
        ["components[1].name", "ce", "-"],
        ["components[1].parameters", "{}", "-"],
        ["learning_rate", "0.01", "0.1"],
        ["components[0].parameters.norm", "-", "batch"],
    ]
    as_json = json.loads(ddrank(capsys, "show", "0000", "--against", "08", "--json"))
    assert {"000000000000": 3, "080808080808": 4} == as_json["components[0].parameters.depth"]
    assert {"080808080808": "batch"} == as_json["components[0].parameters.norm"]


def test_trials_that_cannot_be_compared_are_one_line(cache, capsys):
    assert refused(capsys, "show", "00", "--against", "00") == (
        "000000000000 and 000000000000: nothing that determines them differs"
    )
    with closing(TrialStore(cache)) as store:
        store.put({digest(5): StoredTrial(outcome=OUTCOME, predictions=None)})
    assert refused(capsys, "show", "00", "--against", "05") == (
        "050505050505: stored by a version that did not keep what determines a trial, so it "
        "cannot be compared"
    )


# -- export ------------------------------------------------------------------------------------


def test_trials_are_exported_as_csv(cache, capsys):
    assert ddrank(capsys, "export", "all.csv", "--run", "quickstart") == "all.csv: 3 trials\n"
    rows = list(csv.DictReader(io.StringIO(Path("all.csv").read_text())))
    assert [digest(3), digest(1), digest(0)] == [row["digest"] for row in rows]
    assert {"rate": "0.01", "seed": "7", "diverged": "false", "test": ""} == {
        "rate": rows[1]["learning_rate"],
        "seed": rows[1]["subset_seed"],
        "diverged": rows[1]["diverged"],
        "test": rows[1]["test_accuracy"],
    }


def test_a_formula_in_a_name_is_text_in_csv(cache, capsys):
    with closing(TrialStore(cache)) as store:
        store.put({digest(6): attrs.evolve(trial(0), about=attrs.evolve(ABOUT, run='=HYPERLINK("x")\r\n"y'))})
    ddrank(capsys, "export", "all.csv")
    rows = list(csv.DictReader(io.StringIO(Path("all.csv").read_bytes().decode(), newline="")))
    assert [digest(n) for n in (6, 3, 2, 1, 0)] == [row["digest"] for row in rows]
    assert rows[0]["run"] == '\'=HYPERLINK("x") \n"y'


def test_json_lines_hold_what_the_list_holds(cache, capsys):
    ddrank(capsys, "export", "all.jsonl")
    assert Path("all.jsonl").read_text() == ddrank(capsys, "--json")


def test_predictions_are_exported_as_classes(cache, capsys):
    ddrank(capsys, "export", "all.jsonl", "--predictions")
    rows = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert [[], CLASSES, CLASSES, CLASSES] == [row["predictions"] for row in rows]


@pytest.mark.parametrize("predictions", [False, True])
def test_parquet_holds_typed_columns(cache, capsys, predictions):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    asked = ["--predictions"] if predictions else []
    assert ddrank(capsys, "export", "all.parquet", *asked) == "all.parquet: 4 trials\n"
    ddrank(capsys, "export", "all.jsonl", *asked)
    table = parquet.read_table("all.parquet")
    rows = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    for found, row in zip(table.to_pylist(), rows, strict=True):
        for name in ("created", "used"):
            assert found.pop(name).strftime("%Y-%m-%d %H:%M:%S") == row.pop(name)
        assert row == found
    types = {name: str(table.schema.field(name).type) for name in ("seed", "diverged", "created")}
    assert {"seed": "int64", "diverged": "bool", "created": "timestamp[ms, tz=UTC]"} == types


def test_failed_trials_are_exported_too(cache, capsys):
    assert ddrank(capsys, "export", "all.csv", "--failed") == "all.csv: 1 failed trial\n"
    (row,) = csv.DictReader(io.StringIO(Path("all.csv").read_text()))
    assert ("RuntimeError: out of luck", "3", "") == (row["error"], row["attempts"], row["epoch"])


def test_parquet_without_pyarrow_is_one_line(cache, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("all.parquet").write_text("before")
    assert refused(capsys, "export", "all.parquet") == (
        "a Parquet file needs pyarrow, which is not installed: pip install pyarrow, or export to .csv"
    )
    assert Path("all.parquet").read_text() == "before"


def test_what_cannot_be_exported_is_one_line(cache, capsys):
    assert refused(capsys, "export", "all.xlsx") == "all.xlsx: must end in .csv, .jsonl, .parquet"
    assert refused(capsys, "export", "all.csv", "--predictions") == (
        "--predictions: a table of text holds none; export to all.parquet or .jsonl"
    )
    Path("folder.csv").mkdir()
    assert refused(capsys, "export", "folder.csv") == "folder.csv: is a folder; name a file in it"
    Path("file").touch()
    assert refused(capsys, "export", "file/all.csv", code=1).startswith("file/all.csv: cannot be written: ")


def test_a_file_is_written_whole_or_not_at_all(cache, capsys):
    change(cache, "UPDATE trials SET predictions = x'0102' WHERE digest = ?", digest(0))
    Path("all.jsonl").write_text("before")
    assert refused(capsys, "export", "all.jsonl", "--predictions") == (
        f"{cache / 'trials.sqlite'}: what is kept of trial 000000000000 is damaged; 'ddrank trials prune' "
        "deletes trials, and a run that needs them trains them anew"
    )
    assert Path("all.jsonl").read_text() == "before"
    assert {"cache", "all.jsonl"} == set(os.listdir())


# -- prune -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--older-than", "30d"], [1, 2, 3, 9]),
        (["--unused-for", "5d"], [2, 3, 9]),
        (["--run", "quickstart"], [2]),
        (["--run", "cifar [sweep]"], [0, 1, 3, 9]),
        (["--failed"], [0, 1, 2, 3]),
        (["--diverged"], [0, 1, 2, 9]),
        (["--run", "quickstart", "--older-than", "5d"], [2, 3, 9]),
        (["--all"], []),
    ],
)
def test_what_the_filters_mean_is_deleted(cache, capsys, arguments, expected):
    ddrank(capsys, "prune", *arguments, "--dry-run")
    assert left(cache) == [0, 1, 2, 3, 9]
    ddrank(capsys, "prune", *arguments, "--yes")
    assert expected == left(cache)


def test_a_trial_that_was_used_since_is_not_unused(cache, capsys):
    with closing(TrialStore(cache)) as store:
        store.get(digest(0))
    ddrank(capsys, "prune", "--unused-for", "5d", "--yes")
    assert left(cache) == [0, 2, 3, 9]


@pytest.mark.parametrize("arguments", [[], ["--yes"], ["--dry-run"], ["--all", "--failed"]])
def test_nothing_is_deleted_without_a_filter(cache, capsys, arguments):
    assert refused(capsys, "prune", *arguments) == (
        "give what to delete, such as --unused-for 90d, or --all, and not both"
    )
    assert left(cache) == [0, 1, 2, 3, 9]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "trials.sqlite", folder / "trials.sqlite-wal"))


def test_the_room_goes_back_to_the_disk(cache, capsys):
    noise = [os.urandom(20_000) for _ in range(50)]
    with closing(TrialStore(cache)) as store:
        store.put(
            {f"{number:063}f": attrs.evolve(trial(0), predictions=one) for number, one in enumerate(noise)}
        )
        before = size_of(cache)
        assert ddrank(capsys, "prune", "--all", "--dry-run").endswith(" would go\n")
        said = ddrank(capsys, "prune", "--all", "--yes")
        after = size_of(cache)
    assert before > 1_000_000 > 100_000 > after
    went = float(said.split(", ")[1].removesuffix(" MiB\n")) * 2**20
    assert said.startswith(f"{cache / 'trials.sqlite'}: deleted 55 trials, ")
    assert 1_000_000 < went < 3_000_000


def test_it_asks_before_it_deletes(cache, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert launcher.main(["trials", "prune", "--older-than", "30d"]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("delete 1 trial, ")
    assert captured.err == "error: nothing was deleted\n"
    assert left(cache) == [0, 1, 2, 3, 9]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert launcher.main(["trials", "prune", "--older-than", "30d"]) == 0
    assert left(cache) == [1, 2, 3, 9]


def test_it_does_not_delete_where_nobody_answers(cache, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert launcher.main(["trials", "prune", "--all"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "error: --yes: missing, and nobody is there to answer; nothing was deleted"
    assert left(cache) == [0, 1, 2, 3, 9]


def unfinished(folder: Path, name: str, days: float) -> Path:
    """Write a file as an interrupted training leaves it."""
    file = folder / "unfinished" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x" * 3000)
    then = time.time() - days * 86400
    os.utime(file, (then, then))
    return file


def test_old_files_of_interrupted_trainings_are_deleted_too(cache, capsys):
    old = unfinished(cache, f"{digest(20)}.pt", 40)
    new = unfinished(cache, f"{digest(21)}.pt", 1)
    said = ddrank(capsys, "prune", "--older-than", "30d", "--dry-run")
    assert "1 trial and 1 of interrupted trainings, " in said
    ddrank(capsys, "prune", "--run", "quickstart", "--yes")
    assert old.exists()
    ddrank(capsys, "prune", "--older-than", "30d", "--yes")
    assert (old.exists(), new.exists()) == (False, True)
    ddrank(capsys, "prune", "--all", "--yes")
    assert not new.exists()


def test_what_a_live_run_trains_stays(cache, capsys):
    with closing(TrialStore(cache)) as run:
        run.claim([digest(9), digest(22)])
        its = unfinished(cache, f"{digest(22)}.a1b2.part", 40)
        others = unfinished(cache, f"{digest(23)}.pt", 40)
        ddrank(capsys, "prune", "--all", "--yes")
        assert (left(cache), its.exists(), others.exists()) == ([9], True, False)
    ddrank(capsys, "prune", "--all", "--yes")
    assert (left(cache), its.exists()) == ([], False)


def test_claims_of_a_run_that_ended_keep_nothing(cache, capsys):
    change(cache, "INSERT INTO claims (digest, owner) VALUES (?, 'gone')", digest(9))
    ddrank(capsys, "prune", "--failed", "--yes")
    assert left(cache) == [0, 1, 2, 3]


# -- light -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["trials"],
        ["trials", "show", "00"],
        ["trials", "export", "all.csv"],
        ["trials", "prune", "--all", "--yes"],
    ],
    ids=" ".join,
)
def test_the_command_starts_light(cache, tmp_path, arguments):
    code, said, modules = launch(*arguments, folder=tmp_path)
    assert (code, modules & {*HEAVY, "pyarrow"}) == (0, set())
    assert said
