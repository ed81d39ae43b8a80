"""A submission whose distilled set lies elsewhere, as `ddrank submission new --url` starts it."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from submitted_case import PLACE, write_submission

from ddrank_core.cli.main import main
from ddrank_core.data.distilled import digest
from ddrank_core.errors import ConfigError
from ddrank_core.leaderboard.entries import load_board
from ddrank_core.leaderboard.submission import load
from ddrank_core.leaderboard.track import config_of
from ddrank_core.registry import default_registry

URL, MADE = "https://example.org/sets", "ddrank import res.pt distilled.safetensors --dataset mnist"
SAID = ("--method", "Pinned", "--author", "A", "--licence", "MIT", "--saw", "train images", "--url", URL)


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("submitted")
    write_submission(root)
    return root


@pytest.fixture
def new(submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start a pinned submission from the record of another one, and return its folder."""
    shutil.copytree(submitted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / PLACE)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    folder = tmp_path / "submissions/pinned/arrays-ipc2"
    code = main(
        ["submission", "new", str(folder), "--from", "results/own/method", *SAID, "--made-with", MADE]
    )
    assert 0 == code
    return folder


def test_a_pinned_set_is_named_shown_and_left_out_of_the_repository(new: Path):
    path = new / "distilled.safetensors"
    about = yaml.safe_load((new / "submission.yaml").read_text())
    pinned = {"url": URL, "made_with": MADE, "sha256": digest(path), "bytes": path.stat().st_size}
    assert pinned == about["distilled"]
    with Image.open(new / "distilled.png") as picture:
        # Three classes of two images: three rows of two.
        assert picture.height > picture.width > 0
    root = new.parents[2]
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    listed = ["git", "-C", str(root), "ls-files", "--others", "--exclude-standard", str(new)]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    assert {".gitignore", "distilled.png", "run.yaml", "submission.yaml"} == {
        Path(name).name for name in names
    }


def test_it_is_checked_where_the_set_is_and_says_how_to_get_it_where_not(new: Path, capsys):
    assert 0 == main(["submission", "check", str(new)])
    (new / "distilled.safetensors").unlink()
    capsys.readouterr()
    assert 2 == main(["submission", "check", str(new)])
    out = "".join(capsys.readouterr())
    assert f"distilled.path: not here; it is made from {URL} by: {MADE}" in out
    assert load_board(new.parents[1]).waiting == ("pinned/arrays-ipc2",)


def test_how_it_is_made_goes_with_an_address(submitted: Path, tmp_path: Path, capsys):
    folder = tmp_path / "pinned/arrays-ipc2"
    said = [text for text in SAID if text not in ("--url", URL)]
    assert 2 == main(["submission", "new", str(folder), "--from", str(submitted), *said, "--made-with", MADE])
    assert "--made-with: goes with --url" in capsys.readouterr().err
    assert not folder.parent.exists()


@pytest.mark.parametrize("chosen", [{"seed": 1}, {"subset_seed": 7}])
def test_a_seed_cannot_be_chosen(submitted: Path, tmp_path: Path, chosen: dict[str, int]):
    shutil.copytree(submitted, tmp_path, dirs_exist_ok=True)
    recipe = yaml.safe_load((tmp_path / PLACE / "run.yaml").read_text())
    (tmp_path / PLACE / "run.yaml").write_text(yaml.safe_dump({**recipe, **chosen}))
    with pytest.raises(ConfigError, match="seed, subset_seed: a submission is evaluated with 0"):
        config_of(load(tmp_path / PLACE), "own", default_registry())
