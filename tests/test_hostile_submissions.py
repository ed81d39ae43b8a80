"""Submissions of somebody who means harm: a line for each, nothing executed, nothing written outside."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
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

from ddrank_core.cli.main import main

EXPLODING = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nmethod: *c\n"


class Marker:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self._path}'",)


def replaced(folder: Path, content: bytes) -> None:
    """Put other bytes in place of the distilled set, and declare them rightly."""
    (folder / DISTILLED).write_bytes(content)
    declare(folder)


def header(images: list[int]) -> bytes:
    """Return a distilled set that claims images of that shape, and holds none of them."""
    size = 4 * images[0] * images[1] * images[2] * images[3]
    entries = {
        "__metadata__": {
            "format": "ddrank-distilled",
            "format_version": "1",
            "space": '{"kind": "unit"}',
            "num_classes": "3",
        },
        "labels": {"dtype": "I64", "shape": [images[0]], "data_offsets": [0, 8 * images[0]]},
        "images": {"dtype": "F32", "shape": images, "data_offsets": [8 * images[0], 8 * images[0] + size]},
    }
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8 * images[0])


def png(width: int, height: int) -> bytes:
    """Return a picture that is small on disk and claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    about = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", about) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def zip_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / DISTILLED, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 << 20))
    declare(folder)


def picture_bomb(folder: Path) -> None:
    for label in range(3):
        place = folder / "images" / str(label)
        place.mkdir(parents=True)
        (place / "0.png").write_bytes(png(60_000, 60_000))


def link(name: str) -> Any:
    def make(folder: Path) -> None:
        path = folder / name
        outside = folder.parents[3] / "outside"
        outside.mkdir()
        if path.exists():
            path.rename(outside / path.name)
        path.symlink_to(outside / path.name if path.suffix else outside)

    return make


def text(path: str, content: str) -> Any:
    return lambda folder: (folder / path).write_text(content)


def said(**changes: Any) -> Any:
    return lambda folder: declare(folder, **changes)


def recipe(**changes: Any) -> Any:
    return lambda folder: edit_recipe(folder, **changes)


def record(change: Any) -> Any:
    return lambda folder: edit_record(folder, change)


def moved(folder: Path, name: str) -> dict[str, Any]:
    declared = yaml.safe_load((folder / "submission.yaml").read_text())["distilled"]
    return {**declared, "path": name}


def put(*path: Any, value: Any) -> Any:
    """Return a change of a record that sets the value at a path."""

    def change(values: Any) -> None:
        for step in path[:-1]:
            values = values[step]
        values[path[-1]] = value

    return record(change)


def raise_accuracies(values: dict[str, Any]) -> None:
    """Make every trial of the distilled set better, and leave all else as it was."""
    for trial in values["trials"]:
        if trial["arm"].startswith("syn") and trial["accuracy"] is not None:
            trial["accuracy"] = 1.0


def choose_worse_rate(values: dict[str, Any]) -> None:
    """Let the random images count at the rate that was not chosen."""
    arm = values["arms"]["rdm-any"]
    rate = {0.01: 0.1, 0.1: 0.01}[arm["learning_rates"][0]]
    arm["learning_rates"] = [rate] * len(arm["learning_rates"])


CASES = [
    pytest.param(
        said(method="<script>alert(1)</script>"),
        "submission.yaml: method: holds < or >, which looks like markup",
        id="script-in-a-name",
    ),
    pytest.param(
        said(authors=["Ada", '=HYPERLINK("https://example.org")']),
        "submission.yaml: authors: number 2 starts with =, which a spreadsheet takes for a formula",
        id="formula-in-a-name",
    ),
    pytest.param(
        said(method="a\u202egnp.exe"),
        "submission.yaml: method: holds a line break, or a control or invisible character",
        id="text-that-runs-backwards",
    ),
    pytest.param(
        said(method="x" * 10_000), "method: 10000 characters, of which at most 60 are shown", id="long-name"
    ),
    pytest.param(
        said(paper="javascript:alert(1)"), "submission.yaml: paper: must start with https://", id="script-url"
    ),
    pytest.param(
        said(code="https://a@b.example/<img>"),
        "submission.yaml: code: is not an address of at most 500 characters",
        id="markup-in-a-url",
    ),
    pytest.param(
        lambda folder: declare(folder, distilled=moved(folder, "../../../real.npz")),
        "submission.yaml: distilled.path: '../../../real.npz' leads out of the submission",
        id="path-out-of-the-folder",
    ),
    pytest.param(
        said(recipe="/etc/passwd"),
        "submission.yaml: recipe: must be the name of a file in the submission, got '/etc/passwd'",
        id="absolute-path",
    ),
    pytest.param(
        link(DISTILLED), f"{DISTILLED}: is a symbolic link, which a submission must not hold", id="linked-set"
    ),
    pytest.param(
        link("results"), "results: is a symbolic link, which a submission must not hold", id="linked-folder"
    ),
    pytest.param(
        lambda folder: os.mkfifo(folder / "pipe"), "pipe: is not a plain file", id="pipe-that-never-ends"
    ),
    pytest.param(
        lambda folder: [(folder / f"{i}.txt").touch() for i in range(1001)],
        "more than 1000 files, which no submission has",
        id="too-many-files",
    ),
    pytest.param(
        lambda folder: (folder / "/".join("abcdefghij")).mkdir(parents=True),
        "folders within folders, more than 8 deep",
        id="too-deep",
    ),
    pytest.param(text("submission.yaml", EXPLODING), "aliases (*a) are not allowed", id="exploding-aliases"),
    pytest.param(
        text("submission.yaml", "method: !!python/object/apply:os.system ['touch marker']"),
        "tags (!!python/object/apply:os.system) are not allowed",
        id="yaml-with-code",
    ),
    pytest.param(
        text("submission.yaml", "a: " + "[" * 5000),
        "submission.yaml: ",
        id="deeply-nested-yaml",
    ),
    pytest.param(
        text("submission.yaml", "#" * (1 << 20)),
        "submission.yaml: larger than 256 KiB, which no such file is",
        id="huge-yaml",
    ),
    pytest.param(
        lambda folder: replaced(folder, struct.pack("<Q", 10 << 30) + b'{"a": 1}'),
        f"loading: {{folder}}/{DISTILLED}: not a distilled set (no safetensors header of at most 1024 KiB)",
        id="header-of-10-GB",
    ),
    pytest.param(
        lambda folder: replaced(folder, header([6, 3, 20_000, 20_000])),
        f"loading: {{folder}}/{DISTILLED}: images: cut off: ends at byte 288000",
        id="header-that-claims-pixels",
    ),
    pytest.param(
        zip_bomb,
        f"loading: {{folder}}/{DISTILLED}: not a distilled set (no safetensors header",
        id="zip-bomb",
    ),
    pytest.param(
        lambda folder: replaced(folder, pickle.dumps(Marker(folder.parents[3] / "executed"))),
        f"loading: {{folder}}/{DISTILLED}: not a distilled set (no safetensors header",
        id="pickle-with-code",
    ),
    pytest.param(picture_bomb, "decoding: {folder}/images/0/0.png: too many pixels", id="picture-bomb"),
    pytest.param(
        lambda folder: (folder / DISTILLED).write_bytes((folder / DISTILLED).read_bytes() + b" "),
        "digest: ",
        id="size-mismatch",
    ),
    pytest.param(
        lambda folder: declare(folder, distilled={**moved(folder, DISTILLED), "sha256": 64 * "0"}),
        "digest: {folder}/" + DISTILLED + ": distilled.sha256: is ",
        id="digest-mismatch",
    ),
    pytest.param(
        recipe(name="${HOME}"),
        "run.yaml: holds '${', an environment variable, which a submission must not ask for",
        id="asks-for-the-environment",
    ),
    pytest.param(
        recipe(teachers=[{"use": "convnet", "depth": 1, "checkpoint": "../../../real.npz"}]),
        "run.yaml: teachers[0].checkpoint: ",
        id="teacher-from-outside",
    ),
    pytest.param(
        lambda folder: (
            (folder.parents[2] / "real.npz").rename(folder / "real.npz"),
            edit_recipe(folder, dataset={"use": "arrays", "path": "real.npz"}),
        ),
        "run.yaml: dataset.path: real data must not come with the submission",
        id="own-real-data",
    ),
    pytest.param(
        recipe(recipe={**RECIPE, "epochs": 5}),
        f"record: {{folder}}/{RECORD}: config.recipe.epochs: 4, but the recipe says 5; evaluate it again",
        id="record-of-another-config",
    ),
    pytest.param(
        put("config", "recipe", "loss", "use", value="kl\x1b[31m\nok"),
        f"record: {{folder}}/{RECORD}: config.recipe.loss.use: kl[31m ok, but the recipe says ce",
        id="record-with-terminal-codes",
    ),
    pytest.param(
        put("data", "distilled", "sha256", value=64 * "0"),
        f"record: {{folder}}/{RECORD}: data.distilled.sha256: 0000",
        id="record-of-another-set",
    ),
    pytest.param(
        put("data", "dataset", "test_sha256", value=64 * "0"),
        f"record: {{folder}}/{RECORD}: data.dataset.test_sha256: 0000",
        id="record-of-other-test-data",
    ),
    pytest.param(
        put("scores", "lrs", "mean", value=0.99),
        f"record: {{folder}}/{RECORD}: scores.lrs.mean: states 0.99, but its trials give ",
        id="edited-score",
    ),
    pytest.param(
        put("scores", "ior", "ci95", value=0.0001),
        f"record: {{folder}}/{RECORD}: scores.ior.ci95: states 0.0001, but its trials give ",
        id="edited-interval",
    ),
    pytest.param(
        put("arms", "syn-any", "accuracy", "values", 0, value=0.0),
        f"record: {{folder}}/{RECORD}: arms.syn-any.accuracy.",
        id="edited-accuracy",
    ),
    pytest.param(
        record(raise_accuracies),
        f"record: {{folder}}/{RECORD}: arms.syn-",
        id="edited-trials",
    ),
    pytest.param(
        put("trials", -1, "accuracy", value=0.12345),
        "accuracy: 0.12345 is no share of 30 test images",
        id="accuracy-that-no-test-gives",
    ),
    pytest.param(
        put("trials", 0, "seed", value=7),
        f"record: {{folder}}/{RECORD}: trials[0].seed: 7, which is not repeat 0's",
        id="lucky-seed",
    ),
    pytest.param(
        record(lambda values: [trial.update(subset_seed=7) for trial in values["trials"]]),
        f"record: {{folder}}/{RECORD}: trials[0].subset_seed: 7, which is not repeat 0's",
        id="random-images-of-choice",
    ),
    pytest.param(
        record(choose_worse_rate),
        f"record: {{folder}}/{RECORD}: arms.rdm-any.learning_rates[0]: states ",
        id="baseline-at-a-worse-rate",
    ),
    pytest.param(
        record(lambda values: values["trials"].pop(0)),
        f"record: {{folder}}/{RECORD}: trials: ",
        id="trial-left-out",
    ),
    pytest.param(
        put("arms", "rdm-any", "same_as", value="syn-any"),
        f"record: {{folder}}/{RECORD}: arms.rdm-any.same_as: syn-any, but by the recipe it is None",
        id="arm-that-stands-in-for-another",
    ),
    pytest.param(
        put("scores", value={"lrs": {"mean": 1.0}}),
        f"record: {{folder}}/{RECORD}: ",
        id="scores-left-out",
    ),
    pytest.param(
        text(RECORD, "[" * 100_000), f"record: {{folder}}/{RECORD}: is not strict JSON", id="nested-record"
    ),
    pytest.param(
        text(RECORD, '{"config": NaN}'), f"record: {{folder}}/{RECORD}: is not strict JSON", id="NaN-record"
    ),
    pytest.param(
        put("trials", 0, "validation_accuracy", value="high"),
        f"record: {{folder}}/{RECORD}: trials[0]: validation_accuracy: must be a finite number",
        id="text-for-a-number",
    ),
    pytest.param(
        lambda folder: (folder / "results/own/best").mkdir(),
        "results/own/best: neither a contestant",
        id="unknown-contestant",
    ),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write_submission(root)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    # Where the submission was evaluated, so that its controls are there already.
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "root" / "cache"))


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return every file with its bytes, links and pipes without."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(("change", "line"), CASES)
def test_a_hostile_submission_is_refused_in_one_line(tmp_path, capsys, monkeypatch, good, change, line):
    root = tmp_path / "root"
    folder = copied(good, root)
    change(folder)
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    code = main(["submission", "check", str(folder), "--write"])
    out, err = capsys.readouterr()
    assert (code, err) == (2, "")
    first, *lines = out.splitlines()
    assert first == "errors: these refuse it"
    errors = lines[: next(index for index, text in enumerate(lines) if not text.startswith("  "))]
    # Where the set itself is another, its record is refused too.
    assert line.replace("{folder}", str(folder)) in errors[0]
    assert all(text.isprintable() and len(text) < 700 for text in lines)
    # The check's own report may be new, in the folder alone.
    own = str(folder.relative_to(tmp_path) / "check")
    assert before == {name: content for name, content in tree(tmp_path).items() if not name.startswith(own)}


def test_code_in_a_submission_is_never_imported(tmp_path, capsys, monkeypatch, good):
    folder = copied(good, tmp_path / "root")
    for name in ("conftest.py", "ddrank_plugin.py", "sitecustomize.py", "numpy.py", "__init__.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.chdir(folder)
    assert 0 == main(["submission", "check", ".", "--write"]), capsys.readouterr().out
    assert not (tmp_path / "executed").exists()


def test_the_pickle_of_the_table_would_run_code(tmp_path):
    pickle.loads(pickle.dumps(Marker(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_the_table_starts_from_a_submission_that_is_good(tmp_path, capsys, good):
    folder = copied(good, tmp_path / "root")
    code = main(["submission", "check", str(folder)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"{folder}: can be submitted"
    assert "errors" not in out
    assert CONFIG["recipe"]["epochs"] == 4


# -- where the real data are -------------------------------------------------------------------


def data_at(path: str) -> Any:
    return lambda folder: edit_recipe(folder, dataset={"use": "arrays", "path": path})


def data_beside(place: str) -> Any:
    """Put the real data among the submissions, and let the recipe read them there."""

    def make(folder: Path) -> None:
        shutil.move(folder.parents[2] / "real.npz", folder / place)
        edit_recipe(folder, dataset={"use": "arrays", "path": place})

    return make


def data_by_link(target: str) -> Any:
    """Let the recipe read a link beside submissions/."""

    def make(folder: Path) -> None:
        (folder.parents[2] / "datasets").symlink_to(target)
        edit_recipe(folder, dataset={"use": "arrays", "path": "../../../datasets"})

    return make


def data_by_pipe(folder: Path) -> None:
    os.mkfifo(folder.parents[2] / "pipe")
    edit_recipe(folder, dataset={"use": "arrays", "path": "../../../pipe"})


ELSEWHERE = "dataset.path: must begin as ../../../datasets does, and lie beside submissions/"
COMES_ALONG = "dataset.path: real data must not come with the submission"
PLACES = [
    pytest.param(data_at("/etc/passwd"), ELSEWHERE, id="absolute"),
    pytest.param(data_at("/dev/zero"), ELSEWHERE, id="device"),
    pytest.param(data_at("~/x.npz"), ELSEWHERE, id="home"),
    pytest.param(data_at("../../../../x.npz"), ELSEWHERE, id="far-up"),
    pytest.param(data_at("C:\\x.npz"), COMES_ALONG, id="drive"),
    pytest.param(data_beside("../real.npz"), COMES_ALONG, id="sibling"),
    pytest.param(data_beside("../../real.npz"), COMES_ALONG, id="submissions"),
    pytest.param(data_by_link("submissions/stripes"), COMES_ALONG, id="link-into-submissions"),
    pytest.param(data_by_link("/dev/zero"), "dataset.path: is neither a plain file nor a folder", id="link"),
    pytest.param(data_by_pipe, "dataset.path: is neither a plain file nor a folder", id="pipe"),
]


@pytest.mark.parametrize("command", [("check",), ("evaluate", "--device", "cpu", "--track", "own")])
@pytest.mark.parametrize(("change", "line"), PLACES)
def test_real_data_are_read_only_beside_submissions(tmp_path, capsys, good, change, line, command):
    folder = copied(good, tmp_path / "root")
    change(folder)
    verb, *options = command
    code = main(["submission", verb, str(folder), *options])
    out, err = capsys.readouterr()
    assert 2 == code
    assert 1 == (out + err).count(line)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("command", ["check", "evaluate"])
def test_a_submission_fetches_no_data(tmp_path, capsys, monkeypatch, good, command):
    folder = copied(good, tmp_path / "root")
    folder = folder.rename(folder.with_name("mnist-ipc2"))
    declare(folder, dataset="mnist")
    edit_recipe(folder, dataset={"use": "mnist", "root": "../../../datasets", "download": True})
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    assert 2 == main(["submission", command, str(folder)])
    out, err = capsys.readouterr()
    assert 1 == (out + err).count(
        "run.yaml: dataset.download: a submission must not fetch data; leave it out, and fetch them with "
        "'ddrank data info mnist --set dataset.download=true' in the folder that has submissions/"
    )
    assert not (tmp_path / "root" / "datasets").exists()


def test_data_that_lie_elsewhere_are_read_through_a_link_beside_submissions(tmp_path, capsys, good):
    folder = copied(good, tmp_path / "root")
    (tmp_path / "disk").mkdir()
    shutil.move(tmp_path / "root" / "real.npz", tmp_path / "disk" / "real.npz")
    (tmp_path / "root" / "datasets").symlink_to(tmp_path / "disk")
    edit_recipe(folder, dataset={"use": "arrays", "path": "../../../datasets/real.npz"})
    code = main(["submission", "check", str(folder)])
    out, err = capsys.readouterr()
    assert (0, "") == (code, err), out
    assert "linear classifiers confirm" in out
