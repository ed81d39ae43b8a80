"""`ddrank submission new` from a run folder of somebody who means harm: no file of the user's goes along."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ddrank_networks.convnet import ConvNet
from submitted_case import DISTILLED, PLACE, RECORD, write_submission

from ddrank_core.cli.main import main
from ddrank_core.engine.checkpoints import weights_digest

FLAGS = (
    *("--method", "M", "--author", "A", "--licence", "MIT", "--saw", "train images"),
    *("--paper", "https://example.org/p", "--code", "https://example.org/c", "--gpu-hours", "1"),
    *("--gpu", "a CPU", "--claimed", "0.5", "--source", "table 1"),
)
TEACHER = {"use": "convnet", "depth": 1, "width": 8}
MINE = Path("submissions/mine/arrays-ipc2")
SECRET = "-----BEGIN PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    write_submission(root)
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> Path:
    """Give a folder with real data, a run folder, and a file of the user's own."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run").mkdir()
    (tmp_path / PLACE / DISTILLED).rename(tmp_path / "run" / DISTILLED)
    record = json.loads((tmp_path / PLACE / RECORD).read_text())
    record["config"]["distilled"]["path"] = f"run/{DISTILLED}"
    record["config"]["dataset"]["path"] = "real.npz"
    (tmp_path / "run" / "record.json").write_text(json.dumps(record))
    shutil.rmtree(tmp_path / "submissions")
    (tmp_path / "id_rsa").write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = root / "run" / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def taught(root: Path, checkpoint: str, digest: str | None) -> None:
    """Let the record name a teacher's checkpoint, with the digest of its weights unless that is None."""
    stated = [] if digest is None else [{"use": "convnet", "digest": digest, "accuracy": 0.5}]

    def change(record: dict[str, Any]) -> None:
        record["config"]["teachers"] = [{**TEACHER, "checkpoint": checkpoint, "accuracy": None}]
        record["teachers"] = stated

    edit(root, change)


def weights(path: Path, seed: int) -> str:
    """Write weights of the teacher; return their digest."""
    torch.manual_seed(seed)
    network = ConvNet(depth=1, width=8).build(3, (1, 8, 8))
    torch.save(network.state_dict(), path)
    return weights_digest(network)


def new(capsys: pytest.CaptureFixture[str], folder: Path = MINE) -> tuple[int, str, str]:
    code = main(["submission", "new", str(folder), "--from", "run", *FLAGS])
    return code, *capsys.readouterr()


def views(record: dict[str, Any]) -> None:
    record["config"].update(scores=["hlr"])
    record["config"]["recipe"].update(labels={"use": "stored-views"}, loss={"use": "kl"}, augmentation=[])
    record["config"]["distilled"]["views"] = "id_rsa"


def in_the_environment(record: dict[str, Any]) -> None:
    record["config"]["dataset"]["path"] = "${SECRET_OF_TESTS}/real.npz"


def other_weights(root: Path) -> None:
    digest = weights(root / "used.pt", 0)
    weights(root / "other.pt", 1)
    taught(root, "other.pt", digest)


def piped(root: Path) -> None:
    (root / "run" / "record.json").unlink()
    os.mkfifo(root / "run" / "record.json")


def doubled(root: Path) -> None:
    path = root / "run" / "record.json"
    path.write_text(path.read_text().rstrip()[:-1] + ', "teachers": []}')


def wide(root: Path) -> None:
    taught(root, "id_rsa", 64 * "0")
    edit(root, lambda record: record["config"]["teachers"][0].update(width=10**6))


CASES = [
    pytest.param(
        lambda root: taught(root, "id_rsa", 64 * "0"),
        "config.teachers[0].checkpoint: id_rsa ",
        id="key-for-weights",
    ),
    pytest.param(
        lambda root: taught(root, str(root / "id_rsa"), None),
        "record.json: teachers[0]: missing, for no training asked that teacher",
        id="weights-without-a-digest",
    ),
    pytest.param(
        other_weights,
        "record.json: teachers[0].digest: other.pt has changed since the run; run it again",
        id="other-weights-of-the-user",
    ),
    pytest.param(wide, "config.teachers[0].width: 1000000, but no network has", id="network-of-no-end"),
    pytest.param(lambda root: edit(root, views), "id_rsa", id="key-for-views"),
    pytest.param(
        lambda root: edit(root, in_the_environment),
        "record.json: config: holds '${', an environment variable, which no record does",
        id="environment",
    ),
    pytest.param(piped, "record.json: is not a plain file; give the folder", id="pipe"),
    pytest.param(doubled, "record.json: is not strict JSON; give the folder", id="key-twice"),
    pytest.param(
        lambda root: edit(root, lambda record: record["config"]["dataset"].update(path="/usr/real.npz")),
        "run.yaml: dataset.path: must begin as ../../../datasets does, and lie beside submissions/",
        id="data-elsewhere",
    ),
]


@pytest.mark.parametrize(("change", "line"), CASES)
def test_what_a_strangers_run_names_is_not_copied(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], Any],
    line: str,
) -> None:
    monkeypatch.setenv("SECRET_OF_TESTS", "hunter2")
    change(root)
    code, out, err = new(capsys)
    assert (code, out) == (2, "")
    assert line in err
    assert 1 == err.count("\n")
    assert "hunter2" not in err
    assert "PRIVATE" not in err
    assert not (root / "submissions").exists()


def test_a_file_that_is_copied_is_named_and_is_the_one_that_was_used(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught(root, "used.pt", weights(root / "used.pt", 0))
    code, out, err = new(capsys)
    assert (code, err) == (0, "")
    assert [
        f"copied run/{DISTILLED} as {DISTILLED}",
        "copied used.pt as teacher-0.pt",
    ] == [line for line in out.splitlines() if line.startswith("copied")]
    assert (root / "used.pt").read_bytes() == (root / MINE / "teacher-0.pt").read_bytes()
    assert SECRET not in "".join(path.read_text(errors="replace") for path in (root / MINE).iterdir())


def test_a_submission_does_not_fetch_the_data_that_its_run_fetched(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["config"]["dataset"] = {"use": "mnist", "root": "datasets", "download": True}

    edit(root, change)
    folder = MINE.with_name("mnist-ipc2")
    assert 0 == new(capsys, folder)[0]
    written = yaml.safe_load((folder / "run.yaml").read_text())["dataset"]
    assert {"use": "mnist", "root": "../../../datasets", "download": False} == written
    assert not (root / "datasets").exists()
