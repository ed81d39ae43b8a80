"""The folder of a site: nothing of somebody else's is lost, and a killed build leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddrank_core.cli.main import main
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.site import folder as folders
from ddrank_core.leaderboard.site.folder import (
    INDEX,
    LIST,
    MARK,
    PAGES,
    check_apart,
    check_target,
    is_site,
    listing,
    put,
    unfinished,
)


def write(site: Path, words: str) -> None:
    """Write a small site as a build does."""
    check_target(site)
    with unfinished(site) as new:
        (new / PAGES / "m").mkdir(parents=True)
        (new / PAGES / "m/digits-ipc1.html").write_text(words)
        (new / PAGES / LIST).write_bytes(listing(["m/digits-ipc1.html"]))
        (new / INDEX).write_text(f"{MARK} {words}")
        put(new, site)


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write(tmp_path / "site", "old")
    return tmp_path / "site"


# -- submissions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "apart"),
    [
        (".", False),
        ("submissions", False),
        ("submissions/site", False),
        ("link", False),
        ("link/site", False),
        ("other", False),
        ("site", True),
        ("submissions-site", True),
        ("submissions/../site", True),
    ],
)
def test_a_site_lies_apart_from_the_submissions(tmp_path, monkeypatch, folder, apart):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "submissions").mkdir()
    (tmp_path / "link").symlink_to("submissions")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / PAGES).symlink_to(tmp_path)
    if apart:
        check_apart(Path(folder), Path("submissions"))
    else:
        with pytest.raises(DataError, match="would mix with the submissions in submissions; choose another"):
            check_apart(Path(folder), Path("submissions"))


def test_building_into_the_repository_leaves_the_submissions_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / INDEX).write_text(MARK)
    about = tmp_path / "submissions/m/digits-ipc1/submission.yaml"
    about.parent.mkdir(parents=True)
    about.write_text("mine")
    assert 2 == main(["leaderboard", "build", "."])
    (line,) = capsys.readouterr().err.splitlines()
    assert "would mix with the submissions" in line
    assert {INDEX: MARK, "submissions/m/digits-ipc1/submission.yaml": "mine"} == files(tmp_path)
    # As little where the submissions that are shown are others.
    with pytest.raises(DataError, match="no leaderboard; choose another folder"):
        check_target(tmp_path)


# -- what is replaced ----------------------------------------------------------------------------


def test_a_new_site_takes_the_place_of_the_old_one(site):
    (site / "CNAME").write_text("example.org")
    write(site, "new")
    assert {"CNAME", INDEX, f"{PAGES}/{LIST}", f"{PAGES}/m/digits-ipc1.html"} == set(files(site))
    assert "new" == files(site)[f"{PAGES}/m/digits-ipc1.html"]
    assert {"CNAME", INDEX, PAGES} == {path.name for path in site.iterdir()}


@pytest.mark.parametrize("name", ["note.txt", "m/note.txt", "m/new/note.txt", "m/link"])
def test_a_file_among_the_pages_that_no_build_wrote_is_named(site, name):
    path = site / PAGES / name
    path.parent.mkdir(exist_ok=True)
    if name == "m/link":
        path.symlink_to(site.parent)
    else:
        path.write_text("mine")
    with pytest.raises(DataError, match=f"{PAGES}/{name}: is no file of the site that is there; move it"):
        write(site, "new")
    assert "old" == files(site)[f"{PAGES}/m/digits-ipc1.html"]
    assert path.is_symlink() or "mine" == path.read_text()


def without_list(site: Path) -> None:
    (site / PAGES / LIST).unlink()


def linked_pages(site: Path) -> None:
    (site / PAGES).rename(site.parent / "precious")
    (site / PAGES).symlink_to(site.parent / "precious")


def linked_index(site: Path) -> None:
    (site / INDEX).rename(site.parent / "precious.html")
    (site / INDEX).symlink_to(site.parent / "precious.html")


def dead_link(site: Path) -> None:
    shutil.rmtree(site / PAGES)
    (site / PAGES).symlink_to("nowhere")


@pytest.mark.parametrize("change", [without_list, linked_pages, linked_index, dead_link])
def test_pages_without_their_list_and_links_are_not_replaced(site, change):
    change(site)
    before = files(site.parent)
    with pytest.raises(DataError, match="no leaderboard; choose another folder"):
        write(site, "new")
    assert before == files(site.parent)


@pytest.mark.parametrize("fails", [PAGES, INDEX])
def test_an_error_while_the_new_site_is_put_in_place_brings_the_old_one_back(site, monkeypatch, fails):
    before = files(site)
    rename, replace = Path.rename, os.replace

    def renamed(self, target):
        if fails == PAGES and self.parent.name.startswith(".") and self.name == PAGES:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    def replaced(source, target):
        if fails == INDEX:
            raise OSError(5, "Input/output error")
        return replace(source, target)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(folders.os, "replace", replaced)
    with pytest.raises(OSError, match="Input/output error"):
        write(site, "new")
    assert before == files(site)


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path):
    with pytest.raises(DataError), unfinished(tmp_path / "site"):
        raise DataError("no submission can be shown")
    assert [] == list(tmp_path.iterdir())


# -- killed --------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from ddrank_core.leaderboard.site import folder

site, moment = Path(sys.argv[1]), sys.argv[2]
with folder.unfinished(site) as new:
    (new / folder.PAGES).mkdir()
    (new / folder.PAGES / folder.LIST).write_bytes(folder.listing([]))
    (new / folder.INDEX).write_text(folder.MARK + " killed")
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    rename = Path.rename

    def renamed(self, target):
        if moment == "aside" and self.parent == new:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    def replaced(source, target):
        os.kill(os.getpid(), signal.SIGKILL)

    Path.rename, os.replace = renamed, replaced
    folder.put(new, site)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals as Unix has them")
@pytest.mark.parametrize("moment", ["writing", "aside", "pages"])
def test_what_a_killed_build_has_left_goes_with_the_next(site, moment):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(site), moment], capture_output=True)
    assert -9 == killed.returncode, killed.stderr
    assert [path for path in site.iterdir() if path.name.startswith(".")]
    assert is_site(site)
    write(site, "new")
    assert {INDEX, PAGES} == {path.name for path in site.iterdir()}
    assert "new" == files(site)[f"{PAGES}/m/digits-ipc1.html"]


def test_a_build_that_writes_just_now_keeps_what_it_has_made(site):
    with unfinished(site) as new:
        (new / INDEX).write_text("mine")
        write(site, "new")
        assert "mine" == (new / INDEX).read_text()


def test_hidden_files_of_others_stay(site):
    (site / ".ddrank-site-notes").mkdir()
    (site / ".ddrank-site-notes/mine.txt").write_text("mine")
    write(site, "new")
    assert "mine" == (site / ".ddrank-site-notes/mine.txt").read_text()
