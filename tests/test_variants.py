"""Variants: the same distilled set evaluated with one part of its recipe changed, in a table of its own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from submitted_case import copied, write_submission

from ddrank_core.cli.main import main
from ddrank_core.errors import ConfigError
from ddrank_core.leaderboard.check import check_folder
from ddrank_core.leaderboard.entries import load_board
from ddrank_core.leaderboard.rank import tables
from ddrank_core.leaderboard.types import Variant
from ddrank_core.leaderboard.variants import contestant_of, named, variant_of
from ddrank_core.registry import default_registry

NONE = ("--variant", "augmentation-none", "--set", "recipe.augmentation=none")
HOW = ("--device", "cpu", "--workers", "1", "--quiet")


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a submission that was evaluated on its own recipe."""
    root = tmp_path_factory.mktemp("submitted")
    write_submission(root)
    return root


@pytest.fixture
def folder(submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    return copied(submitted, tmp_path)


def evaluate(folder: Path, *options: str) -> int:
    return main(["submission", "evaluate", str(folder), *HOW, *options])


def test_a_variant_has_the_folder_of_its_name():
    one = Variant(axis="labels", name="teacher-kl")
    assert (one, "method-labels-teacher-kl") == (named("labels-teacher-kl"), contestant_of(one))
    assert one == variant_of(contestant_of(one))
    assert [None, None, None] == [variant_of(name) for name in ("method", "random", "labels-teacher-kl")]


@pytest.mark.parametrize("text", ["augmentation", "loss-kl", "labels-../x", "labels-", "student-a b"])
def test_another_name_is_refused(text: str):
    with pytest.raises(ConfigError, match="is not augmentation-NAME, labels-NAME or student-NAME"):
        named(text)


def test_a_variant_is_evaluated_checked_and_ranked_beside_the_method(folder: Path, tmp_path: Path):
    before = sorted((folder / "results").glob("*/*"))
    assert 0 == evaluate(folder, *NONE)
    place = folder / "results/own/method-augmentation-none"
    assert sorted([*before, place]) == sorted((folder / "results").glob("*/*"))
    config = json.loads((place / "record.json").read_text())["config"]
    assert [{"use": "none"}] == config["recipe"]["augmentation"]
    assert "distilled.safetensors" == config["distilled"]["path"]

    _, _, findings = check_folder(folder, default_registry())
    assert [] == [finding.text for finding in findings if finding.level != "info"]
    *_, table = tables(load_board(tmp_path / "submissions").entries)
    assert ("augmentation", {"dsa", "none"}) == (
        table.key.axis,
        {row.entry.augmentation for row in table.rows},
    )


def test_the_command_of_a_row_makes_the_same_record(folder: Path, tmp_path: Path, monkeypatch):
    assert 0 == evaluate(folder, *NONE)
    path = folder / "results/own/method-augmentation-none/record.json"
    first = json.loads(path.read_text())
    (entry,) = [entry for entry in load_board(tmp_path / "submissions").entries if entry.variant]
    path.unlink()
    monkeypatch.chdir(tmp_path)
    assert 0 == main([*shlex.split(entry.command)[1:], *HOW])
    again = json.loads(path.read_text())
    assert [first["config"], first["scores"]] == [again["config"], again["scores"]]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--variant", "augmentation-x", "--set", "recipe.epochs=3"),
            "recipe.epochs: differs from the method's own",
        ),
        (
            ("--variant", "augmentation-x", "--set", "recipe.augmentation={use: dsa}"),
            "recipe.augmentation: as in the method's own, so this is no variant",
        ),
        (("--variant", "student-x", "--set", "recipe.augmentation=none"), "only student and full_data may"),
        (
            ("--variant", "colour-x", "--set", "recipe.augmentation=none"),
            "'colour-x' is not augmentation-NAME",
        ),
        (("--variant", "augmentation-x"), "give both"),
        (("--set", "recipe.augmentation=none"), "give both"),
        ((*NONE, "--track", "fixed"), "a variant is of the method's own recipe"),
    ],
)
def test_what_is_no_variant_is_one_line_and_trains_nothing(folder: Path, capsys, options, line: str):
    capsys.readouterr()
    before = sorted(folder.rglob("*"))
    assert 2 == evaluate(folder, *options)
    out, err = capsys.readouterr()
    assert ("", 1) == (out, err.count("\n"))
    assert line in err
    assert before == sorted(folder.rglob("*"))


def test_another_student_is_trained_on_the_full_data_too(folder: Path, tmp_path: Path):
    wide = "student={use: convnet, depth: 1, width: 16}"
    assert 0 == evaluate(folder, "--variant", "student-wide", "--set", wide)
    students = {table.key.student for table in tables(load_board(tmp_path / "submissions").entries)}
    assert 2 == len(students)
