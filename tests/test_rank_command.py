"""`ddrank rank`: its tables in a terminal, and its files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from ranked_case import config, measuring, ranked, record, submit, with_arm


def test_the_terminal_shows_ties_and_fits_100_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    claimed, cost = [{"accuracy": 0.8312, "source": "t"}], {"gpu_hours": 123.4, "device": "A100"}
    long = "a-method-with-a-name-that-is-far-too-long"
    controls = {f"own/{name}": record(-0.3) for name in ("noise", "random")}
    submit(tmp_path, long, {"own/method": record(0.05), **controls}, claimed=claimed, cost=cost)
    submit(tmp_path, "close", {"own/method": with_arm("syn-any", [0.86, 0.86, 0.88])})
    submit(tmp_path, "worse", {"own/method": record(-0.2), "fixed/method": record()})
    submit(tmp_path, "diverged", {"own/method": with_arm("syn-any", [0.8, None, 0.8])})
    submit(tmp_path, "broken", {"own/method": "{"})
    code, out, err = ranked(capsys, str(tmp_path), "--track", "own")
    assert code == 0
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["left out"]
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "digits, IPC 1, track own, protocol strict 1: by LRS, w = 0.5"
    shown = {cells[2]: cells for line in lines if len(cells := line.split()) > 3 and "0." in line}
    assert [cells[0] for cells in shown.values() if cells[0][0].isdigit()] == ["1=", "1=", "3"]
    assert shown["worse"][1] == "3-3"
    assert all(value in out for value in ("2 of 2", "123.4", "83.12"))
    assert "diverged: undefined: syn-any: 1 of 3 repeats without accuracy" in lines


def test_the_terminal_says_where_the_first_place_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # By hand: IOR 0.1 and HLR 0.16 against IOR 0.05 and HLR 0.06, equal where 0.05 w = 0.1 (1 - w).
    arms = {"full-hard": [0.9] * 2, "rdm-any": [0.5] * 2}
    for name, ior, hlr in (("late", 0.1, 0.16), ("early", 0.05, 0.06)):
        values = {**arms, "syn-hard": [0.9 - hlr] * 2, "syn-any": [0.5 + ior] * 2}
        found = measuring(values)
        submit(tmp_path, name, {"own/method": found})
    out = ranked(capsys, str(tmp_path))[1].splitlines()
    assert "first: early for w from 0 to 0.667, late for w from 0.667 to 1" in out
    assert "order: Kendall's tau to this one 1.00 at w = 0, -1.00 at w = 1; least -1.00 at w = 0.7" in out
    out = ranked(capsys, str(tmp_path), "--by", "ars")[1].splitlines()
    assert "early: undefined: not measured: syn-aug" in out


def test_filters_choose_tables_and_say_when_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    submit(tmp_path, "dm", {"own/method": record(), "fixed/method": record()})
    assert ranked(capsys, str(tmp_path), "--track", "fixed")[1].count("protocol") == 1
    assert ranked(capsys, str(tmp_path), "--dataset", "digits", "--ipc", "1")[1].count("protocol") == 2
    assert ranked(capsys, str(tmp_path), "--ipc", "2") == (
        2,
        "",
        f"error: {tmp_path}: no evaluated submission of that kind\n",
    )
    assert ranked(capsys, str(tmp_path / "nowhere"))[0] == 2
    code, out, _ = ranked(capsys, str(tmp_path), "--by", "ars", "--weight", "0.25", "--track", "own")
    assert (code, "by ARS, g = 0.25" in out, "dm: undefined: not measured: syn-aug" in out) == (0, True, True)


def test_a_name_that_stands_twice_is_followed_by_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    same = {"method": "Distribution matching, large"}
    submit(tmp_path, "dm-of-one-author-a", {"own/method": record(0.02)}, **same)
    submit(tmp_path, "dm-of-one-author-b", {"own/method": record(-0.3)}, **same)
    submit(tmp_path, "lost", {"own/method": with_arm("syn-any", [0.8, None, 0.8])}, **same)
    submit(tmp_path, "alone", {"own/method": record()})
    lines = ranked(capsys, str(tmp_path))[1].splitlines()
    assert max(map(len, lines)) <= 100
    names = [line[12:33].strip() for line in lines if line[:1].isdigit()]
    assert names == ["Distr… (dm-of-…hor-a)", "alone", "Distr… (dm-of-…hor-b)"]
    assert "Distribution … (lost): undefined: syn-any: 1 of 3 repeats without accuracy" in lines
    assert "first: Distr… (dm-of-…hor-a) at every w" in lines


def test_the_footer_says_what_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    submit(tmp_path, "dm", {"own/method": record()})
    words = " ".join(ranked(capsys, str(tmp_path))[1].split())
    assert (
        "ties and beats compare these distilled sets: each is one set, and the control random one draw"
        in words
    )


def test_a_record_of_absurd_size_is_a_line_and_the_others_are_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    absurd = record()
    absurd["data"]["dataset"]["image_shape"] = [2**39] * 500
    submit(tmp_path / "board", "absurd", {"own/method": absurd})
    submit(tmp_path / "board", "good", {"own/method": record()})
    files = ["--csv", str(tmp_path / "r.csv"), "--json", str(tmp_path / "r.json")]
    code, out, err = ranked(capsys, str(tmp_path / "board"), *files)
    assert code == 0
    said = [line for line in (out + err).splitlines() if line.startswith(("absurd", "left out: absurd"))]
    assert len(said) == 1
    assert any(cells[2] == "good" for text in out.splitlines() if len(cells := text.split()) > 3)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert {row["slug"]: row["image_bytes"] for row in rows}["good/digits-ipc1"] == "2560"
    json.loads((tmp_path / "r.json").read_text())


def test_files_are_safe_for_spreadsheets_and_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    board = tmp_path / "board"
    hostile = config(
        recipe__labels={"use": '=HYPERLINK("http://x")'}, student={"use": "@net\x1b[2J", "text": "<b>\ud800"}
    )
    submit(board, "a", {"own/method": record(0.05, config=hostile)}, method="Method, A")
    submit(board, "b", {"own/method": record(config=hostile)})
    code, out, _ = ranked(
        capsys, str(board), "--csv", str(tmp_path / "r.csv"), "--json", str(tmp_path / "r.json")
    )
    assert code == 0
    assert "\x1b" not in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert {(row["labels"], row["student"][:5]) for row in rows} == {('\'=HYPERLINK("http://x")', "'@net")}
    assert [row["method"] for row in rows] == ["Method, A", "b"]
    assert [(row["place"], row["slug"]) for row in rows] == [("1", "a/digits-ipc1"), ("2", "b/digits-ipc1")]

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    (table,) = found["tables"]
    first = table["rows"][0]
    assert first["mean"] == pytest.approx(float(rows[0]["mean"])) == pytest.approx(np.mean(first["values"]))
    assert first["seeds"] == [100, 101, 102]
    assert table["p_values"][0][1] == table["p_values"][1][0]


def test_a_file_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    submit(tmp_path / "board", "a", {"own/method": record()})
    code, out, err = ranked(capsys, str(tmp_path / "board"), "--csv", str(tmp_path))
    assert (code, out, err) == (2, "", f"error: --csv {tmp_path}: is a folder; name a file\n")


def test_a_claim_stands_beside_the_method_and_not_beside_its_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    records = {
        "own/method": record(),
        "own/method-augmentation-none": record(config=config(recipe__augmentation=[])),
    }
    submit(tmp_path, "dm", records, claimed=[{"accuracy": 0.8312, "source": "t"}])
    assert 0 == ranked(capsys, str(tmp_path), "--json", str(tmp_path / "rank.json"))[0]
    *_, table = json.loads((tmp_path / "rank.json").read_text())["tables"]
    assert {None: 0.8312, "none": None} == {row["variant"]: row["claimed"] for row in table["rows"]}
