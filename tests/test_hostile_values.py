"""Values of somebody who means harm: endless numbers, names that nobody sees, costs that nobody can pay."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submitted_case import (
    DISTILLED,
    RECORD,
    copied,
    declare,
    edit_recipe,
    edit_record,
    write_submission,
)
from tiny_case import CONFIG, RECIPE

from ddrank_core import yaml
from ddrank_core.cli.main import main
from ddrank_core.data import distilled as distilled_file
from ddrank_core.errors import ConfigError, DataError
from ddrank_core.leaderboard import cost, texts
from ddrank_core.leaderboard.measured import read_json
from ddrank_core.report.tables import cell


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write_submission(root)
    return root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: Path) -> Path:
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    return copied(good, tmp_path)


# -- YAML --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 0x" + "f" * 100_000, "a whole number of 100002 characters is too large"),
        ("a: " + "9" * 5000, "a whole number of 5000 characters is too large"),
        ("a: 1" + ":59" * 80_000, "a whole number of 240001 characters is too large"),
        ("a: 1" + ":59" * 800 + ".5", "a number of 2403 characters is too long"),
        ("a: 9223372036854775809", "9223372036854775809 is too large for a whole number (at most 2^63)"),
        ("a: -0x8000000000000001", "-0x8000000000000001 is too large for a whole number (at most 2^63)"),
    ],
    ids=["hexadecimal", "decimal", "sexagesimal", "fraction", "large", "small"],
)
def test_a_number_without_end_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yaml.parse(text, "x.yaml")
    assert f"x.yaml: {problem}" == str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0x_ff", 255),
        ("1_000", 1000),
        ("1:30", 90),
        ("1e-3", 0.001),
        ("3.141592653589793238462643383279", 3.141592653589793),
        (".inf", float("inf")),
    ],
)
def test_a_number_of_ordinary_size_is_read_as_before(text: str, value: float) -> None:
    read = yaml.parse(text, "x.yaml")
    assert (value, type(value)) == (read, type(read))


@pytest.mark.parametrize("file", ["submission.yaml", "run.yaml"])
def test_a_number_without_end_refuses_a_submission(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    path = folder / file
    path.write_text(f"{path.read_text()}\nseed: 0x{'f' * 100_000}\n")
    assert 2 == main(["submission", "check", str(folder)])
    out, err = capsys.readouterr()
    assert ("", True) == (err, "a whole number of 100002 characters is too large" in out)


# -- names -------------------------------------------------------------------------------------

UNSEEN = "holds a line break, or a control or invisible character"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("\u3164", UNSEEN),
        ("DM\u115f", UNSEEN),
        ("DM\u1160", UNSEEN),
        ("DM\uffa0", UNSEEN),
        ("\u2800", UNSEEN),
        ("DM\ufe0f", UNSEEN),
        ("DM\U000e0101", UNSEEN),
        ("D\u034fM", UNSEEN),
        ("DM\u200f", UNSEEN),
        ("DM\u202e", UNSEEN),
        ("DM\u2066", UNSEEN),
        ("DM\u061c", UNSEEN),
        ("D\u00adM", UNSEEN),
        ("a\tb", UNSEEN),
        ("|---|", "holds no letter and no digit"),
        ("\u0301", "holds no letter and no digit"),
        ("Z" + "\u0300" * 3, "more than 2 marks above or below one letter"),
        ("Z" + "\u20dd\u0300\u0300", "more than 2 marks above or below one letter"),
        ("\uff1d1+1", "starts with =, which a spreadsheet takes for a formula"),
        ("\uff20SUM", "starts with @, which a spreadsheet takes for a formula"),
        (" =1", "starts with =, which a spreadsheet takes for a formula"),
        ("\uff1cb\uff1e", "holds < or >, which looks like markup; write it in words"),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_a_name_that_nobody_sees_or_that_harms_is_refused(name: str, problem: str) -> None:
    assert problem == texts.short_line(60)(name)


@pytest.mark.parametrize(
    "name",
    [
        "محمد بن موسى",
        "مُحَمَّد",
        "דוד בן־גוריון",
        "王小明",
        "ज़िंटा",
        "Nguyễn Thị Hồng",
        "น้ำทิพย์",
        "Łukasz Müller-O'Neil (2nd)",
        "α-DM",
        "DM²",
        "7",
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_many_scripts_are_names(name: str, form: Any) -> None:
    assert texts.short_line(60)(unicodedata.normalize(form, name)) is None


# -- records -----------------------------------------------------------------------------------


def set_at(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *steps, last = field.split(".")

    def change(record: dict[str, Any]) -> None:
        for step in steps:
            record = record[step]
        record[last] = value

    return change


@pytest.mark.parametrize("field", ["device", "versions.ddrank", "protocol.version", "config.protocol.use"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [("A" * 1_000_000, "1000000 characters, of which at most 300 are shown"), ("a\tb", UNSEEN)],
    ids=["long", "tab"],
)
def test_a_text_of_a_record_is_one_short_line(
    folder: Path, capsys: pytest.CaptureFixture[str], field: str, value: str, problem: str
) -> None:
    edit_record(folder, set_at(field, value))
    main(["rank", str(folder.parents[1])])
    err = capsys.readouterr().err
    assert f"{RECORD}: {field}: {problem}" in err


def test_a_thousand_repeats_are_not_ranked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_record(folder, set_at("arms.syn-any.accuracy.values", [0.5] * 101))
    main(["rank", str(folder.parents[1])])
    assert "101 repeats, of which at most 100 are ranked" in capsys.readouterr().err


def test_a_key_that_stands_twice_is_no_strict_json(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"a": [{"device": "CPU", "device": "A100"}]}')
    with pytest.raises(DataError, match=r"record\.json: is not strict JSON$"):
        read_json(tmp_path / "record.json")


@pytest.mark.parametrize("command", ["check", "rank"])
def test_records_have_a_bound_together(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for number in range(9):
        place = folder / f"results/own/method-student-s{number}/record.json"
        place.parent.mkdir()
        with place.open("wb") as file:
            file.truncate(15 << 20)
    line = "record.json: the records have more than 128 MiB, which no submission's have"
    arguments = (
        ["submission", "check", str(folder)] if command == "check" else ["rank", str(folder.parents[1])]
    )
    assert 2 == main(arguments)
    out, err = capsys.readouterr()
    assert 1 == (out + err).count(line)


def test_what_is_left_out_is_said_in_a_line_of_bounded_length(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_recipe(folder)
    text = (folder / "submission.yaml").read_text()
    (folder / "submission.yaml").write_text(f"? '{'distilled' * 20_000}'\n: 1\n{text}")
    assert 2 == main(["rank", str(folder.parents[1])])
    first, *_ = capsys.readouterr().err.splitlines()
    assert (600, "left out: stripes/arrays-ipc2: ", "...") == (len(first), first[:31], first[-3:])


# -- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("check",), ("evaluate", "--device", "cpu", "--track", "own")])
def test_the_size_is_compared_before_a_digest_of_so_many_bytes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    with (folder / DISTILLED).open("r+b") as file:
        file.truncate(20 << 30)
    digest = distilled_file.digest

    def short(path: Path) -> str:
        assert path.stat().st_size < 1 << 30
        return digest(path)

    monkeypatch.setattr(distilled_file, "digest", short)
    verb, *options = command
    assert 2 == main(["submission", verb, str(folder), *options])
    out, err = capsys.readouterr()
    assert f"has {20 << 30} bytes, but submission.yaml declares" in out + err


def test_a_declared_size_has_a_bound(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = {"path": DISTILLED, "sha256": 64 * "0", "bytes": (64 << 30) + 1}
    declare(folder, distilled=declared)
    assert 2 == main(["submission", "check", str(folder)])
    out = capsys.readouterr().out
    assert "distilled.bytes: 68719476737, which is more than the 64 GiB of the largest" in out


# -- costs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"protocol": {**CONFIG["protocol"], "repeats": 10**9}},
            "protocol.repeats: 1000000000, of which at most 100 are ranked",
        ),
        (
            {"protocol": {**CONFIG["protocol"], "learning_rates": [0.001 * (i + 1) for i in range(2000)]}},
            "trainings, of which at most 10000 are done for a submission; take fewer repeats or",
        ),
        (
            {"recipe": {**RECIPE, "epochs": 10**9}},
            "recipe.epochs: 1000000000 of 6 images show 6,000,000,000 images in one training",
        ),
        (
            {"full_data": {"recipe": {**CONFIG["full_data"]["recipe"], "epochs": 10**8}}},
            "full_data.recipe.epochs: 100000000 of 60 images show 6,000,000,000 images in one training",
        ),
        (
            {"student": {"use": "convnet", "depth": 1, "width": 10**6}},
            "student.width: 1000000, but no network has a parameter above 65536",
        ),
    ],
    ids=["repeats", "rates", "epochs", "full-data-epochs", "width"],
)
def test_a_recipe_that_nobody_can_train_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], line: str
) -> None:
    edit_recipe(folder, **changes)
    assert 2 == main(["submission", "check", str(folder)])
    out, err = capsys.readouterr()
    found = [one for one in out.splitlines() if one.startswith(f"  cost: {folder}/run.yaml: ")]
    assert ("", 1, True) == (err, len(found), line in found[0])


def test_a_pass_that_no_device_holds_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four images of 8x8 pixels have 1,024 bytes; six, the whole set, 1,536.
    monkeypatch.setattr(cost, "MAX_PASS_BYTES", 1_100)
    edit_recipe(folder, full_data={"accuracy": 0.9, "source": "x"})
    main(["submission", "check", str(folder)])
    assert "recipe.batch_size" not in capsys.readouterr().out
    edit_recipe(folder, recipe={**RECIPE, "batch_size": 10**9})
    main(["submission", "check", str(folder)])
    assert "run.yaml: recipe.batch_size: 6 images at once have " in capsys.readouterr().out


def test_a_long_evaluation_is_a_warning_with_its_trainings_and_steps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_recipe(folder, recipe={**RECIPE, "epochs": 10**6})
    (folder / RECORD).unlink()
    main(["submission", "check", str(folder)])
    # Two rates and two repeats. syn-hard, syn-any, rdm-any and rdm-naug do 2 steps an epoch: the other arms
    # are trained like these, for the recipe's labels are hard. full-hard does 4 steps an epoch for 2 epochs,
    # and its 2 repeats again at the rate that its search has found.
    steps = 4 * 4 * 2 * 10**6 + (4 + 2) * 4 * 2
    line = f"  cost: {folder}/run.yaml: 22 trainings of the method alone take {steps:,} steps"
    assert line in capsys.readouterr().out.splitlines()


# -- spreadsheets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (' =HYPERLINK("x")', '\' =HYPERLINK("x")'),
        ("x;=1+1", "x;'=1+1"),
        ("x; @SUM(A1)", "x;' @SUM(A1)"),
        ("x\t+1", "x\t'+1"),
        ("x\n-1", "x\n'-1"),
        ("x\r=1", "x =1"),
        ("x\u2028=1", "x\u2028'=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("x;\uff20y", "x;'\uff20y"),
        ("\ufeff=1", "'\ufeff=1"),
        ("a - b; c + d", "a - b; c + d"),
        ("a=b", "a=b"),
    ],
)
def test_no_part_of_a_cell_is_a_formula_wherever_it_is_split(text: str, written: str) -> None:
    assert written == cell(text)


def test_the_csv_of_a_ranking_runs_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(folder, method="a;=1+1")
    assert 0 == main(["rank", str(folder.parents[1]), "--csv", str(tmp_path / "o.csv")]), capsys.readouterr()
    text = (tmp_path / "o.csv").read_text()
    assert "a;'=1+1" in text
    assert ";=" not in text
