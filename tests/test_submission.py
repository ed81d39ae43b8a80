"""A submission is read strictly, and checked against its data, its records and the real images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from submitted_case import (
    ABOUT,
    DISTILLED,
    PLACE,
    RECORD,
    copied,
    declare,
    edit_recipe,
    edit_record,
    write_submission,
)
from tiny_case import CONFIG, RECIPE

from ddrank_core.cli.main import main
from ddrank_core.data.distilled import digest, load, save
from ddrank_core.errors import DDRankError
from ddrank_core.leaderboard import submission as reading
from ddrank_core.leaderboard import track
from ddrank_core.leaderboard.check import check, check_folder
from ddrank_core.leaderboard.types import Claim, Cost, DistilledFile, Finding
from ddrank_core.registry import default_registry


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write_submission(root)
    return root


@pytest.fixture
def folder(tmp_path, monkeypatch, good) -> Path:
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    return copied(good, tmp_path / "root")


def findings_of(folder: Path, *levels: str) -> list[Finding]:
    found = check_folder(folder, default_registry())[2]
    return [finding for finding in found if not levels or finding.level in levels]


def lines(folder: Path, *levels: str) -> list[str]:
    return [f"{finding.check}: {finding.text}" for finding in findings_of(folder, *levels)]


def change_set(folder: Path, **changes) -> None:
    """Change the distilled set, and declare the new one."""
    save(attrs.evolve(load(folder / DISTILLED), **changes), folder / DISTILLED)
    declare(folder)


# -- reading -------------------------------------------------------------------------------------


def test_a_submission_is_read_as_it_was_written(folder):
    found = reading.load(folder)
    path = folder / DISTILLED
    assert "stripes/arrays-ipc2" == found.slug
    assert ("Stripes", ("A. Author", "B. Author"), "MIT") == (found.method, found.authors, found.licence)
    assert ("https://example.org/paper", None, None) == (found.paper, found.code, found.teacher)
    assert ("arrays", 2, ("train images", "train labels")) == (found.dataset, found.ipc, found.saw)
    assert Cost(gpu_hours=0.5, device="a CPU") == found.cost
    assert (Claim(accuracy=0.9, source="Author 2026, table 1", student="ConvNet-1"),) == found.claimed
    declared = DistilledFile(path=path, sha256=digest(path), bytes=path.stat().st_size)
    assert (declared, folder / "run.yaml") == (found.distilled, found.recipe)


def test_a_set_that_lies_elsewhere_is_named_by_its_address_digest_and_size(folder):
    elsewhere = {"url": "https://example.org/set.safetensors", "sha256": 64 * "a", "bytes": 5}
    declare(folder, distilled=elsewhere)
    assert DistilledFile(**elsewhere) == reading.load(folder).distilled
    made = {**elsewhere, "made_with": "ddrank import res.pt --dataset mnist"}
    declare(folder, distilled=made)
    assert DistilledFile(**made) == reading.load(folder).distilled


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"licence": None}, "licence: must be text, got nothing"),
        ({"metod": "x"}, "metod: unknown field (did you mean 'method'?)"),
        ({"ipc": "2"}, "ipc: must be a whole number, got '2'"),
        ({"ipc": 0}, "ipc: must be at least 1, got 0"),
        ({"authors": []}, "authors: must name 1 to 100, got 0"),
        ({"authors": "Ada"}, "authors: must be a list, got 'Ada'"),
        ({"saw": ["everything"]}, "saw[0]: must be one of train images, train labels, "),
        ({"saw": ["train images"] * 2}, "saw: the same stands twice"),
        ({"cost": {"gpu_hours": -1, "device": "x"}}, "cost.gpu_hours: must be at least 0, got -1"),
        ({"claimed": [{"accuracy": 90, "source": "x"}]}, "claimed[0].accuracy: must be at most 1, got 90"),
        ({"paper": "http://example.org"}, "paper: must start with https://"),
        ({"paper": "https://"}, "paper: is not an address of at most 500 characters"),
        ({"paper": "https://[x"}, "paper: is not an address of at most 500 characters"),
        ({"dataset": "../mnist"}, "dataset: must be letters, digits, '.', '_' and '-' (at most 100)"),
        ({"recipe": "other.yaml"}, "recipe: no such file: other.yaml"),
        ({"distilled": {"sha256": 64 * "a", "bytes": 1}}, "distilled: give either path, "),
        ({"distilled": {"path": DISTILLED, "sha256": "A" * 64, "bytes": 1}}, "distilled.sha256: must be a "),
        (
            {"distilled": {"path": 300 * "a", "sha256": "a" * 64, "bytes": 1}},
            f"distilled.path: '{60 * 'a'}'... is too long for the name of a file",
        ),
        (
            {"distilled": {"path": DISTILLED, "sha256": "a" * 64, "bytes": 1, "made_with": "x"}},
            "distilled.made_with: goes with url; a file in the folder is there already",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_file(folder, changes, line):
    declare(folder, **changes)
    with pytest.raises(DDRankError) as caught:
        reading.load(folder)
    assert str(caught.value).startswith(f"{folder / 'submission.yaml'}: {line}")


def test_the_folder_is_named_after_data_set_and_ipc(folder):
    other = folder.rename(folder.with_name("arrays-ipc3"))
    with pytest.raises(DDRankError, match="with IPC 2 is called arrays-ipc2, not arrays-ipc3"):
        reading.load(other)


def test_a_folder_without_a_submission_is_one_line(tmp_path):
    with pytest.raises(DDRankError, match=r"nothing: no such folder; it holds submission\.yaml"):
        reading.load(tmp_path / "nothing")
    with pytest.raises(DDRankError, match=r"submission\.yaml: no such file$"):
        reading.load(tmp_path)


# -- checking ------------------------------------------------------------------------------------


def test_a_good_submission_has_neither_errors_nor_warnings(folder):
    assert [] == lines(folder, "error", "warning")
    checks = [finding.check for finding in findings_of(folder)]
    assert ["class order", "real images", *5 * ["record"]] == checks


def test_what_needs_real_images_is_left_out_and_said_where_they_are_not_at_hand(folder):
    (folder.parents[2] / "real.npz").unlink()
    (warning,) = lines(folder, "error", "warning")
    assert warning.startswith("real data: not compared with real images, for they cannot be read: ")
    assert [*5 * ["record"], "controls"] == [finding.check for finding in findings_of(folder, "info")]


def test_the_checks_come_in_their_order(folder):
    """Set first, then its images, then the records."""
    distilled = load(folder / DISTILLED)
    images, first = distilled.images.clone(), int(distilled.labels[0])
    _, twin = (distilled.labels == first).nonzero().flatten().tolist()
    images[twin] = images[0]
    change_set(folder, images=images, soft_labels=torch.eye(3).repeat(2, 1), soft_kind="logits")
    found = list(dict.fromkeys(finding.check for finding in findings_of(folder)))
    assert ["class order", "labels", "real images", "duplicates", "bytes", "record"] == found


def test_the_declared_ipc_is_the_set_s_and_the_recipe_s(folder):
    distilled = load(folder / DISTILLED)
    change_set(folder, images=distilled.images[1:], labels=distilled.labels[1:])
    edit_recipe(folder, distilled={"path": DISTILLED, "ipc": 1})
    label = int(distilled.labels[0])
    first, second = lines(folder, "error")[:2]
    assert first == f"ipc: {folder}/run.yaml: distilled.ipc: 1, but submission.yaml declares 2"
    assert second == (f"ipc: {folder}/{DISTILLED}: labels: IPC 2 is declared, but it has 1 of class {label}")


def test_images_of_another_shape_are_refused(folder):
    images = load(folder / DISTILLED).images
    change_set(folder, images=images[:, :, :6].contiguous())
    assert lines(folder, "error")[0] == (
        f"shape: {folder}/{DISTILLED}: images: 6x8 pixels, but the data set's are 8x8"
    )


def test_permuted_labels_are_refused(folder):
    change_set(folder, labels=(load(folder / DISTILLED).labels + 1) % 3)
    error = lines(folder, "error")[0]
    assert error.startswith(
        f"class order: {folder}/{DISTILLED}: labels: 3 of 3 labels are permuted: images of 0"
    )


def test_soft_labels_are_described_and_weighed(folder):
    soft = torch.eye(3)[load(folder / DISTILLED).labels]
    soft[0] = soft[0].roll(1)
    change_set(folder, soft_labels=soft, soft_kind="probabilities")
    found = lines(folder, "info")
    # Five of six; 6 x 3 labels and 6 x 64 pixels, four bytes each.
    highest = "the highest is the hard label of 83.3% of the images"
    assert f"labels: soft labels: probabilities of 3 classes; {highest}" in found
    assert "bytes: 0.00 MiB of soft labels beside 0.00 MiB of images, 0.047 times as much" in found


def test_a_recipe_that_needs_soft_labels_is_refused_without(folder):
    edit_recipe(folder, recipe={**RECIPE, "labels": "soft", "loss": "kl"}, scores=["hlr"])
    assert lines(folder, "error")[0] == (
        f"labels: {folder}/run.yaml: recipe.labels: soft needs stored soft labels, and {folder}/{DISTILLED} "
        "has none; use the labels teacher or hard"
    )


@pytest.mark.parametrize("saw", [[], ["test images"]])
def test_a_test_image_in_the_set_refuses_it_whatever_the_author_says(folder, saw):
    real = np.load(folder.parents[2] / "real.npz")
    distilled = load(folder / DISTILLED)
    label = int(distilled.labels[2])
    chosen = int(np.flatnonzero(real["y_test"] == label)[1])
    images = distilled.images.clone()
    images[2, 0] = torch.from_numpy(real["x_test"][chosen]).float() / 255
    change_set(folder, images=images)
    declare(folder, saw=[*ABOUT["saw"], *saw])
    assert lines(folder, "error")[0] == (
        f"real images: 1 image is among the real test images: number 2 (test {chosen}, 1.00); no set may "
        "hold one"
    )


def test_a_training_image_in_the_set_is_said_beside_its_row(folder):
    real = np.load(folder.parents[2] / "real.npz")
    distilled = load(folder / DISTILLED)
    chosen = int(np.flatnonzero(real["y_train"] == int(distilled.labels[2]))[1])
    images = distilled.images.clone()
    images[2, 0] = torch.from_numpy(real["x_train"][chosen]).float() / 255
    change_set(folder, images=images)
    assert lines(folder, "warning")[0] == (
        f"real images: 1 image is among the real training images: number 2 (train {chosen}, 1.00)"
    )


def test_a_protocol_that_selects_on_the_test_set_is_said_beside_its_row(folder):
    edit_recipe(folder, protocol={"use": "ddranking-0.2", "repeats": 2})
    assert lines(folder, "warning")[0] == (
        f"protocol: {folder}/run.yaml: protocol: ddranking-0.2 selects on the test set: its numbers are "
        "optimistic"
    )


@pytest.mark.parametrize(
    ("made_with", "how"),
    [
        (None, "fetch it with 'ddrank submission fetch FOLDER'"),
        ("ddrank import", "it is made from https://example.org/set by: ddrank import"),
    ],
)
def test_a_pinned_set_that_is_not_here_is_to_be_fetched_or_made(folder, capsys, made_with, how):
    declared = yaml.safe_load((folder / "submission.yaml").read_text())["distilled"]
    pinned = {"url": "https://example.org/set", "sha256": declared["sha256"], "bytes": declared["bytes"]}
    declare(folder, distilled={**pinned, **({"made_with": made_with} if made_with else {})})
    assert [] == lines(folder, "error")
    (folder / DISTILLED).unlink()
    line = f"{folder}/run.yaml: distilled.path: not here; {how.replace('FOLDER', str(folder))}"
    assert [f"schema: {line}"] == lines(folder, "error")
    assert 2 == main(["submission", "evaluate", str(folder), "--quiet"])
    assert ("", f"error: {line}\n") == capsys.readouterr()


def test_a_path_that_is_too_long_for_a_file_is_one_line(folder):
    edit_recipe(folder, distilled={"path": 300 * "a"})
    assert [f"schema: {folder}/run.yaml: names a file that cannot be: File name too long"] == lines(
        folder, "error"
    )


def test_a_recipe_that_is_wrong_is_said_before_the_set_is_fetched(folder):
    (folder / DISTILLED).unlink()
    pinned = {"url": "https://example.org/set", "sha256": 64 * "a", "bytes": 5}
    (folder / "submission.yaml").write_text(yaml.safe_dump({**ABOUT, "distilled": pinned}))
    edit_recipe(folder, seed=-1)
    assert [f"schema: {folder}/run.yaml: seed: must be at least 0, got -1"] == lines(folder, "error")


def as_pictures(folder: Path) -> Path:
    """Write the distilled images as pictures, one folder per class, in their order."""
    distilled = load(folder / DISTILLED)
    for index, (image, label) in enumerate(zip(distilled.images, distilled.labels.tolist(), strict=True)):
        place = folder / "images" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = (255 * image[0]).round().byte().numpy()
        Image.fromarray(pixels).save(place / f"{index}.png")
    return folder / "images"


def test_pictures_that_show_the_set_are_no_matter(folder):
    as_pictures(folder)
    assert [] == lines(folder, "error", "warning")
    assert "decoding: 0.0% of the pixels lie outside [0, 1], which no 8-bit picture can store" in lines(
        folder
    )


def test_pictures_that_show_something_else_are_named(folder):
    place = as_pictures(folder)
    path = min((place / "0").iterdir())
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 255 - pixels[0, 0] if abs(255 - 2 * int(pixels[0, 0])) > 20 else 255
    Image.fromarray(pixels).save(path)
    (warning,) = lines(folder, "error", "warning")
    assert warning.startswith(f"decoding: {place}: 1 of 6 pictures differ from the distilled set by up to ")
    assert warning.endswith("of 255, the first is number 0")


# -- records -------------------------------------------------------------------------------------


def test_a_record_of_other_plugins_is_named_and_not_refused(folder):
    def older(record: dict) -> None:
        record["versions"]["ddrank"] = "0.0.9"
        record["components"][0]["version"] = "0.0.9"
        record["components"][1]["source_digest"] = 64 * "0"
        record["components"].append({"field": "x", "kind": "loss", "name": "acme/none", "version": "1"})

    edit_record(folder, older)
    first, second, *_ = json.loads((folder / RECORD).read_text())["components"]
    assert [] == lines(folder, "error")
    (warning,) = lines(folder, "warning")
    assert warning.startswith(
        f"record: {folder}/{RECORD}: made with others than are installed here: ddrank 0.0.9,"
    )
    assert f"{first['kind']} {first['name']} of ddrank 0.0.9, here ddrank " in warning
    assert f"{second['kind']} {second['name']} of another source" in warning
    assert "loss acme/none, which is not installed" in warning


def test_a_record_that_was_made_in_another_place_is_the_same(folder):
    def elsewhere(record: dict) -> None:
        record["config"]["dataset"]["path"] = "/data/real.npz"
        record["config"]["distilled"]["path"] = "C:\\sets\\distilled.safetensors"

    edit_record(folder, elsewhere)
    assert [] == lines(folder, "error", "warning")


def test_a_record_that_is_missing_is_named(folder):
    for contestant in ("noise", "k-means"):
        shutil.rmtree(folder / "results/own" / contestant)
    expected = f"record: {folder}/results/own: no record of noise, k-means; "
    assert [f"{expected}'ddrank submission evaluate --track own' makes it"] == lines(folder, "warning")
    (folder / "results/own").rename(folder / "results/fixed")
    assert f"record: {folder}/results/own: no record of method; " in "\n".join(lines(folder, "warning"))


def test_a_submission_without_records_is_told_how_to_make_them(folder, capsys):
    shutil.rmtree(folder / "results")
    assert main(["submission", "check", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("no error so far; 'ddrank submission evaluate' measures it\n")
    assert lines(folder)[-1] == (
        f"record: {folder}/results: no record yet; 'ddrank submission evaluate' makes them"
    )


def test_what_evaluate_leaves_on_both_tracks_passes(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "tracks").mkdir()
    recipe = {**CONFIG, "recipe": {**RECIPE, "epochs": 2}}
    fixed = {name: value for name, value in recipe.items() if name not in ("dataset", "distilled")}
    (tmp_path / "tracks" / "arrays.yaml").write_text(yaml.safe_dump(fixed))
    monkeypatch.setattr(track, "FOLDER", tmp_path / "tracks")
    change_set(folder, learning_rate=0.03)
    command = ["submission", "evaluate", str(folder), "--device", "cpu", "--workers", "1", "--quiet"]
    assert 0 == main(command), capsys.readouterr().err
    assert [] == lines(folder, "error", "warning")
    assert 10 == [finding.check for finding in findings_of(folder, "info")].count("record")
    path = folder / "results/fixed/herding/record.json"
    path.write_text(path.read_text().replace('"epochs": 2', '"epochs": 4'))
    assert lines(folder, "error")[0].startswith(f"record: {path}: config.full_data.recipe.epochs: 4, but ")


def test_a_record_counts_its_given_full_accuracy_once(tmp_path, monkeypatch):
    """The published accuracy stands for every repeat, and no interval holds its uncertainty."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    folder = write_submission(
        tmp_path / "root", full_data={"accuracy": 0.95, "source": "a paper"}, scores=["hlr"]
    )
    assert [] == lines(folder, "error", "warning")
    edit_record(folder, lambda record: record["arms"]["full-hard"]["accuracy"].update(mean=0.9))
    assert lines(folder, "error") == [
        f"record: {folder}/{RECORD}: arms.full-hard.accuracy.mean: states 0.9, but its trials give 0.95"
    ]


# -- the command ---------------------------------------------------------------------------------


def test_the_command_prints_findings_by_level_and_writes_nothing(folder, capsys):
    before = sorted(folder.rglob("*"))
    change_set(folder, soft_labels=torch.eye(3).repeat(2, 1), soft_kind="logits")
    assert 2 == main(["submission", "check", str(folder)])
    out, err = capsys.readouterr()
    titles = [line for line in out.splitlines() if not line.startswith("  ")]
    assert ["errors: these refuse it", "info", f"{folder}: refused: 1 error"] == titles
    assert ("", before) == (err, sorted(folder.rglob("*")))


def test_the_command_leaves_a_report_with_the_digests_of_what_was_checked(folder, tmp_path, capsys):
    real = np.load(folder.parents[2] / "real.npz")
    images = load(folder / DISTILLED).images.clone()
    images[2, 0] = torch.from_numpy(real["x_train"][4]).float() / 255
    change_set(folder, images=images)
    main(["submission", "check", str(folder), "--write", "--json", str(tmp_path / "out.json")])
    report = json.loads((folder / "check.json").read_text())
    assert report == json.loads((tmp_path / "out.json").read_text())
    records = [path.relative_to(folder).as_posix() for path in folder.glob("results/own/*/record.json")]
    assert len(records) == 5
    names = ("submission.yaml", "run.yaml", DISTILLED, *records)
    assert {name: digest(folder / name) for name in names} == report["checked"]["files"]
    assert {"train", "test"} == report["checked"]["real data"].keys()
    (found,) = [item for item in report["findings"] if item["check"] == "real images" and item["picture"]]
    assert "check-real-images.png" == found["picture"]
    with Image.open(folder / found["picture"]) as picture:
        picture.verify()
    assert {"level", "check", "text", "picture"} == found.keys()
    capsys.readouterr()


def test_a_second_check_leaves_the_same_report_and_takes_old_pictures_away(folder, capsys):
    (folder / "check-near-duplicates.png").write_bytes(b"old")
    (folder / "check-mine.txt").write_text("kept")
    main(["submission", "check", str(folder), "--write"])
    first = (folder / "check.json").read_bytes()
    main(["submission", "check", str(folder), "--write"])
    assert first == (folder / "check.json").read_bytes()
    names = {path.name for path in folder.iterdir()}
    assert {"check.json", "check-mine.txt", "submission.yaml", "run.yaml", DISTILLED, "results"} == names
    capsys.readouterr()


def test_check_takes_real_data_that_are_loaded(folder):
    registry = default_registry()
    submission, real, found = check_folder(folder, registry)
    assert submission is not None
    assert found == check(submission, registry, real)
    assert PLACE.name == submission.folder.name
