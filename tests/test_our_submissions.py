"""The rows that are in the repository: whole, checked, and ranked as README.md shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddrank_core.cli.main import main
from ddrank_core.leaderboard.check import check_folder
from ddrank_core.leaderboard.entries import load_board
from ddrank_core.registry import default_registry

ROOT = Path(__file__).parents[1]
SUBMISSIONS = ROOT / "submissions"


def test_every_row_was_measured_and_checked_as_it_is():
    board = load_board(SUBMISSIONS)
    assert ((), ()) == (board.problems, board.waiting)
    methods = {(entry.submission.slug, entry.track) for entry in board.entries if entry.variant is None}
    digits = {f"{name}/digits-ipc10" for name in ("random", "herding", "k-means", "dm")}
    assert methods >= {(slug, track) for slug in digits for track in ("own", "fixed")}
    assert [] == [(entry.command, f) for entry in board.entries for f in entry.findings if f.check == "check"]
    assert {"augmentation", "labels", "student"} == {e.variant.axis for e in board.entries if e.variant}


def test_the_check_still_passes():
    submission, real, findings = check_folder(SUBMISSIONS / "dm/digits-ipc10", default_registry())
    assert submission is not None
    assert real is not None
    assert [] == [finding.text for finding in findings if finding.level == "error"]


def test_the_readme_shows_what_rank_prints(capsys: pytest.CaptureFixture[str]):
    assert 0 == main(["rank", str(SUBMISSIONS), "--track", "fixed"])
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    readme = (ROOT / "README.md").read_text()
    shown = readme.partition("```\ndigits, IPC 10, track fixed")[2].partition("\n```")[0].splitlines()[1:]
    assert len(shown) > 5
    assert [] == [line for line in shown if line.rstrip() not in printed]


def test_no_file_of_a_row_names_a_place_on_somebodys_machine():
    texts = [path for path in SUBMISSIONS.rglob("*") if path.suffix in (".json", ".yaml")]
    assert len(texts) > 40
    assert [] == [path for path in texts if '": "/' in path.read_text() or ": /" in path.read_text()]
