"""What a submission's data set is called: one's own data by any free name, all else by its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from submitted_case import copied, declare, edit_record, write_submission

from ddrank_core.errors import ConfigError, DataError
from ddrank_core.leaderboard.check import check_folder
from ddrank_core.leaderboard.entries import load_board
from ddrank_core.leaderboard.rank import tables
from ddrank_core.leaderboard.start import read_run
from ddrank_core.leaderboard.start import write_submission as start
from ddrank_core.leaderboard.track import check_dataset
from ddrank_core.registry import default_registry


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a submission whose data set is `arrays`."""
    root = tmp_path_factory.mktemp("submitted")
    write_submission(root)
    return root


def renamed(root: Path, method: str, dataset: str) -> Path:
    """Give the submission below root another method's folder and another data set's name."""
    place = root / "submissions" / method / f"{dataset}-ipc2"
    place.parent.mkdir(exist_ok=True)
    shutil.copytree(root / "submissions/stripes/arrays-ipc2", place)
    declare(place, dataset=dataset, method=method)
    return place


@pytest.mark.parametrize(
    ("use", "name"),
    [("digits", "digits"), ("arrays", "stripes"), ("image-folder", "pets"), ("acme/birds", "birds")],
)
def test_a_name_that_may_be(use: str, name: str):
    check_dataset(use, name, "run.yaml: dataset")


@pytest.mark.parametrize(
    ("use", "name"),
    [("arrays", "cifar10"), ("acme/birds", "imagenet"), ("digits", "mnist"), ("arrays", "image-folder")],
)
def test_a_name_that_is_another_data_sets_is_refused(use: str, name: str):
    with pytest.raises(ConfigError, match=f"run.yaml: dataset: {use}, but the submission is of {name}"):
        check_dataset(use, name, "run.yaml: dataset")


def test_arrays_of_ones_own_go_by_the_folders_name(submitted: Path, tmp_path: Path):
    copied(submitted, tmp_path)
    folder = renamed(tmp_path, "bars", "my-stripes")
    _, real, findings = check_folder(folder, default_registry())
    assert real is not None
    assert [] == [finding for finding in findings if finding.level != "info"]
    entries = load_board(tmp_path / "submissions").entries
    assert {"my-stripes", "arrays"} == {entry.submission.dataset for entry in entries}


def test_a_submission_that_is_started_takes_the_name_of_its_folder(
    submitted: Path, tmp_path: Path, monkeypatch
):
    copied(submitted, tmp_path)
    run = tmp_path / "submissions/stripes/arrays-ipc2"
    monkeypatch.chdir(run)
    registry = default_registry()
    finished = read_run(Path("results/own/method"), registry)
    said = {"method": "Bars", "authors": ["A"], "licence": "MIT", "saw": ["train images"]}
    folder = tmp_path / "submissions/bars/my-stripes-ipc2"
    start(folder, finished, said, registry)
    assert "dataset: my-stripes" in (folder / "submission.yaml").read_text()
    with pytest.raises(DataError, match="must be a folder METHOD/DATASET-ipc2, such as"):
        start(folder.parent / "my-stripes-ipc3", finished, said, registry)
    with pytest.raises(ConfigError, match="arrays, but the submission is of mnist"):
        start(folder.parent / "mnist-ipc2", finished, said, registry)


def test_data_sets_of_one_name_that_differ_share_no_table(submitted: Path, tmp_path: Path):
    copied(submitted, tmp_path)
    other = renamed(tmp_path, "bars", "arrays")
    board = load_board(tmp_path / "submissions")
    assert ["arrays"] == [table.key.dataset for table in tables(board.entries)]

    edit_record(other, lambda record: record["data"]["dataset"].update(test_sha256="0" * 64))
    both = tables(load_board(tmp_path / "submissions").entries)
    assert 2 == len(both)
    assert all(table.key.dataset.startswith("arrays (real data ") for table in both)
