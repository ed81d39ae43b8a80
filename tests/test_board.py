"""Walking a folder of submissions: what becomes a row, and what is broken."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from ranked_case import config, record, submit

from ddrank_core.leaderboard.entries import load_board
from ddrank_core.leaderboard.rank import agreements, tables


def test_a_folder_of_submissions_becomes_entries(tmp_path: Path):
    cost, claimed = {"gpu_hours": 2.5, "device": "A100"}, [{"accuracy": 0.83, "source": "table 1"}]
    records = {"own/method": record(), "own/random": record(-0.1), "fixed/method": record(0.01)}
    submit(tmp_path, "dm", records, cost=cost, claimed=claimed)
    submit(tmp_path, "later", {})
    board = load_board(tmp_path)
    assert board.problems == ()
    assert board.waiting == ("later/digits-ipc1",)
    own, fixed = board.entries
    assert (own.submission.slug, own.track, fixed.track) == ("dm/digits-ipc1", "own", "fixed")
    assert (own.student, own.labels, own.augmentation) == ("convnet depth=2", "hard", "dsa")
    assert own.measured.arms["rdm-any"] == (0.7, 0.75, 0.71)
    assert own.measured.learning_rates["rdm-any"] == (0.01,) * 3
    stated = record()["scores"]["lrs"]
    assert own.measured.scores == {"lrs": (stated["mean"], stated["ci95"])}
    assert (own.measured.seeds, own.measured.protocol) == ((100, 101, 102), "strict 1")
    assert not own.measured.full_given
    assert list(own.controls) == ["random"]
    assert own.controls["random"].arms["syn-any"] == pytest.approx((0.7, 0.72, 0.74))
    assert own.command == "ddrank submission evaluate submissions/dm/digits-ipc1 --track own"
    assert (own.image_bytes, own.label_bytes, own.teacher_bytes) == (10 * 64 * 4, 10, 0)


@pytest.mark.parametrize(
    ("recipe", "soft", "label_bytes", "teacher_bytes"),
    [
        ("smooth", "logits", 10, 0),
        ("soft", "logits", 10 + 10 * 10 * 4, 0),
        ("stored-views", None, 10 + 777, 0),
        # Two layers of 8 units: 64 x 8 + 8, 8 x 8 + 8, 8 x 10 + 10 weights of four bytes; and a file of 999.
        ("teacher", "logits", 10, 4 * (520 + 72 + 90) + 999),
        ("acme/all", "logits", 10 + 400 + 777, 4 * 682 + 999),
    ],
)
def test_labels_and_teachers_count_where_the_label_mapping_needs_them(
    tmp_path: Path, recipe: str, soft: str | None, label_bytes: int, teacher_bytes: int
):
    teachers = [
        {"use": "mlp", "width": 8, "checkpoint": None, "accuracy": None},
        {"use": "mlp", "width": 4, "checkpoint": "more/teacher.safetensors", "accuracy": 0.9},
    ]
    views = "more/views.safetensors"
    found = record(config=config(recipe__labels={"use": recipe}, distilled__views=views, teachers=teachers))
    found["data"]["distilled"]["soft_labels"] = soft
    folder = submit(tmp_path, "dm", {"own/method": found})
    (folder / "more").mkdir()
    (folder / views).write_bytes(bytes(777))
    (folder / "more/teacher.safetensors").write_bytes(bytes(999))
    for name in ("views", "teacher"):
        # Of the same name, and not what the record names.
        (folder / f"{name}.safetensors").write_bytes(b"x")
    board = load_board(tmp_path)
    assert board.problems == ()
    (found_entry,) = board.entries
    assert (found_entry.label_bytes, found_entry.teacher_bytes) == (label_bytes, teacher_bytes)


def test_a_file_that_is_too_small_for_its_network_is_no_teacher(tmp_path: Path):
    # 64 x 4 + 4, 4 x 4 + 4 and 4 x 10 + 10 weights: 330.
    teacher = {"use": "mlp", "width": 4, "checkpoint": "teacher.safetensors", "accuracy": 0.9}
    found = record(config=config(recipe__labels={"use": "teacher"}, teachers=[teacher]))
    folder = submit(tmp_path, "dm", {"own/method": found})
    (folder / "teacher.safetensors").write_bytes(bytes(659))
    (problem,) = load_board(tmp_path).problems
    line = "config.teachers[0]: checkpoint: 659 bytes, fewer than 2 for each of 330 parameters"
    assert problem.what.endswith(f"record.json: {line}")
    (folder / "teacher.safetensors").write_bytes(bytes(660))
    assert 660 == load_board(tmp_path).entries[0].teacher_bytes


def test_weights_are_never_fetched_to_count_them(tmp_path: Path):
    # What torchvision states of resnet18, for three channels and 1000 classes.
    teacher = {"use": "torchvision/resnet18", "pretrained": True}
    found = record(config=config(recipe__labels={"use": "teacher"}, teachers=[teacher]))
    found["data"]["dataset"]["image_shape"] = [3, 224, 224]
    found["data"]["dataset"]["classes"] *= 100
    submit(tmp_path, "dm", {"own/method": found})
    board = load_board(tmp_path)
    assert board.problems == ()
    assert board.entries[0].teacher_bytes == 4 * 11_689_512


def test_of_more_than_256_classes_a_hard_label_takes_two_bytes(tmp_path: Path):
    found = record()
    found["data"]["dataset"]["classes"] = [str(number) for number in range(257)]
    submit(tmp_path, "dm", {"own/method": found})
    assert load_board(tmp_path).entries[0].label_bytes == 20


def without(field: str) -> dict[str, Any]:
    found = record()
    *steps, last = field.split(".")
    place = found
    for step in steps:
        place = place[step]
    del place[last]
    return found


def with_shape(sides: list[int]) -> dict[str, Any]:
    found = record()
    found["data"]["dataset"]["image_shape"] = sides
    return found


def stating(name: str, values: list[Any]) -> dict[str, Any]:
    """Return a record that states accuracies of an arm that no trial has."""
    found = record()
    found["arms"][name]["accuracy"]["values"] = values
    return found


BROKEN: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "record.json: is not strict JSON"),
    "NaN": ('{"arms": NaN}', "record.json: is not strict JSON"),
    "a list": ("[]", "record.json: is not a JSON object"),
    "nested": ("[" * 100_000, "record.json: is not strict JSON"),
    "no arms": (without("arms"), "record.json: arms: missing"),
    "no device": (without("device"), "record.json: device: missing"),
    "no shape": (without("data.dataset.image_shape"), "record.json: data.dataset.image_shape: missing"),
    "absurd shape": (
        with_shape([2**39] * 40),
        "data.dataset.image_shape: must be channels, height and width",
    ),
    "huge shape": (
        with_shape([3, 2**20, 2**20]),
        "image_shape: must be channels, height and width, each below",
    ),
    "infinite": (
        json.dumps(record()).replace("0.75", "1e999"),
        "record.json: rdm-any.accuracy.values: must be a finite number",
    ),
    "percent": (
        stating("syn-hard", [80, 82, 81]),
        "arms.syn-hard: an accuracy is not a fraction from 0 to 1",
    ),
    "text": (stating("syn-hard", ["80", 1, 1]), "syn-hard.accuracy.values: must be a finite number"),
    "edited": (
        stating("syn-hard", [0.9, 0.9, 0.9]),
        "arms.syn-hard.accuracy.values[0]: states 0.9, but its trials give 0.8",
    ),
    "short": (stating("syn-hard", [0.8]), "arms.syn-hard: 1 repeats, where another arm has 3"),
    "other data": (
        record(config=config(dataset={"use": "mnist"})),
        "config.dataset: mnist, but the submission is of digits",
    ),
    "no views": (
        record(config=config(recipe__labels={"use": "stored-views"}, distilled__views="../../x")),
        "config.distilled.views: not in the submission, so its bytes are not known",
    ),
    "huge teacher": (
        record(config=config(recipe__labels={"use": "teacher"}, teachers=[{"use": "mlp", "width": 10**12}])),
        "config.teachers[0]: a parameter is larger than 65536, which no network's is",
    ),
    "no teacher": (
        record(config=config(recipe__labels={"use": "teacher"}, teachers=[{"use": "mpl"}])),
        "config.teachers[0]: no architecture 'mpl' (did you mean 'mlp'?)",
    ),
    "misspelt teacher": (
        record(config=config(recipe__labels={"use": "teacher"}, teachers=[{"use": "mlp", "widht": 8}])),
        "teacher: network.widht: unknown field (did you mean 'width'?)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_submission_is_one_line_and_does_not_stop_the_others(tmp_path: Path, name: str):
    content, expected = BROKEN[name]
    submit(tmp_path, "a", {"own/method": record()})
    submit(tmp_path, "b", {"own/method": content})
    submit(tmp_path, "c", {"own/method": record()})
    board = load_board(tmp_path)
    assert [found.submission.method for found in board.entries] == ["a", "c"]
    (problem,) = board.problems
    assert problem.where == "b/digits-ipc1"
    assert expected in problem.what
    assert "\n" not in problem.what


@pytest.mark.parametrize("link", ["record", "contestant", "results", "submission", "method"])
def test_a_link_in_a_submission_is_not_followed(tmp_path: Path, link: str):
    elsewhere = submit(tmp_path / "elsewhere", "b", {"own/method": record()})
    board = tmp_path / "board"
    if link == "method":
        board.mkdir()
        (board / "b").symlink_to(elsewhere.parent)
    elif link == "submission":
        (board / "b").mkdir(parents=True)
        (board / "b" / "digits-ipc1").symlink_to(elsewhere)
    else:
        folder = submit(board, "b", {})
        steps = {"results": (), "contestant": ("own", "method"), "record": ("own", "method", "record.json")}
        place = folder.joinpath("results", *steps[link])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(elsewhere / place.relative_to(folder))
    found = load_board(board)
    assert found.entries == ()
    assert "is a symbolic link" in found.problems[0].what


def test_a_pipe_in_the_place_of_a_record_does_not_block(tmp_path: Path):
    folder = submit(tmp_path, "b", {})
    (folder / "results" / "own" / "method").mkdir(parents=True)
    os.mkfifo(folder / "results" / "own" / "method" / "record.json")
    assert "is not a plain file" in load_board(tmp_path).problems[0].what


def checked(folder: Path, level: str = "warning") -> None:
    """Write what a check of the folder leaves, with one finding."""
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    finding = {"level": level, "check": "real images", "text": "two", "picture": "check-pairs.png"}
    real = {"train": "1" * 64, "test": "2" * 64}
    report = {"checked": {"files": digests, "real data": real}, "findings": [finding]}
    (folder / "check.json").write_text(json.dumps(report))


def test_findings_come_with_the_row_and_an_error_refuses_it(tmp_path: Path):
    checked(submit(tmp_path, "fine", {"own/method": record()}))
    checked(submit(tmp_path, "refused", {"own/method": record()}), "error")
    submit(tmp_path, "unchecked", {"own/method": record()})
    board = load_board(tmp_path)
    assert [(e.submission.method, [f.text.partition(";")[0] for f in e.findings]) for e in board.entries] == [
        ("fine", ["two"]),
        ("unchecked", ["not checked yet: compared neither with the real images nor with its recipe"]),
    ]
    assert board.entries[0].findings[0].picture == "check-pairs.png"
    assert [problem.where for problem in board.problems] == ["refused/digits-ipc1"]
    assert board.problems[0].what.endswith("check.json: refused by its check: two")


@pytest.mark.parametrize("changed", ["submission.yaml", "run.yaml", "results/own/method/record.json"])
def test_a_check_of_other_files_is_said_to_be_one(tmp_path: Path, changed: str):
    folder = submit(tmp_path, "dm", {"own/method": record()})
    checked(folder)
    with (folder / changed).open("a") as file:
        file.write("\n")
    texts = [finding.text for finding in load_board(tmp_path).entries[0].findings]
    assert texts[0].startswith(f"{changed} is not the file that was checked")
    assert texts[1:] == ["two"]


@pytest.mark.parametrize("change", [b"longer", b""], ids=["another size", "other bytes"])
def test_a_set_that_was_not_measured_is_left_out(tmp_path: Path, change: bytes):
    path = submit(tmp_path, "dm", {"own/method": record()}) / "set.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw + change if change else bytes([raw[0] ^ 1]) + raw[1:])
    (problem,) = load_board(tmp_path).problems
    assert problem.what == f"{path}: is not the set that submission.yaml declares, which was measured"


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ([], "check.json: is not a JSON object"),
        ({"findings": ["two"]}, "findings[0]: level: missing"),
        ({"findings": [{"level": "fine", "check": "x", "text": "y"}]}, "findings[0]: level: must be one of"),
        (
            {"findings": [{"level": "info", "check": "x", "text": "y", "picture": "../a.png"}]},
            "findings[0]: picture: must be the name of a .png file",
        ),
        ({"findings": []}, "check.json: checked: missing"),
    ],
)
def test_a_damaged_check_is_one_line(tmp_path: Path, report: Any, expected: str):
    folder = submit(tmp_path, "dm", {"own/method": record()})
    (folder / "check.json").write_text(json.dumps(report))
    assert expected in load_board(tmp_path).problems[0].what


def test_repeats_that_share_a_seed_are_not_taken_for_pairs(tmp_path: Path):
    found = record()
    found["trials"] = [{**one, "seed": 7} for one in found["trials"]]
    submit(tmp_path, "dm", {"own/method": found})
    assert load_board(tmp_path).entries[0].measured.seeds == ()


# -- variants ----------------------------------------------------------------------------------


def test_the_same_set_is_ranked_under_each_augmentation_and_each_label_mapping(tmp_path: Path):
    plain = config(recipe__augmentation=[])
    smooth = config(recipe__labels={"use": "smooth"}, recipe__loss={"use": "sce"})
    records = {
        "own/method": record(),
        "own/method-augmentation-none": record(0.05, config=plain),
        "own/method-labels-smooth": record(-0.05, config=smooth),
    }
    submit(tmp_path, "dm", records)
    board = load_board(tmp_path)
    assert board.problems == ()
    main, by_augmentation, by_labels = tables(board.entries)
    assert [row.entry.variant for row in main.rows] == [None]
    assert (by_augmentation.key.of, by_augmentation.key.axis) == ("dm/digits-ipc1", "augmentation")
    assert [row.entry.augmentation for row in by_augmentation.rows] == ["none", "dsa"]
    assert [row.entry.labels for row in by_labels.rows] == ["hard", "smooth"]
    (command,) = {row.entry.command for row in by_augmentation.rows if row.entry.variant}
    assert command == (
        "ddrank submission evaluate submissions/dm/digits-ipc1 --variant augmentation-none "
        "--set 'recipe.augmentation=[]'"
    )


def test_the_command_of_a_variant_sets_all_that_it_changes_and_nothing_else(tmp_path: Path):
    teachers = [{"use": "mlp", "checkpoint": None, "accuracy": None}]
    taught = config(recipe__labels={"use": "teacher"}, recipe__loss={"use": "kl"}, teachers=teachers)
    records = {"own/method": record(), "own/method-labels-kl": record(config=taught)}
    submit(tmp_path, "dm", records)
    (command,) = [entry.command for entry in load_board(tmp_path).entries if entry.variant]
    said = shlex.split(command)
    assert said[:6] == [
        "ddrank",
        "submission",
        "evaluate",
        "submissions/dm/digits-ipc1",
        "--variant",
        "labels-kl",
    ]
    sets = dict(text.split("=", 1) for text in said[7::2])
    assert {name: json.loads(text) for name, text in sets.items()} == {
        "recipe.labels": {"use": "teacher"},
        "recipe.loss": {"use": "kl"},
        "teachers": teachers,
    }


def test_another_student_makes_a_row_in_that_students_table(tmp_path: Path):
    other = config(student={"use": "mlp", "width": 8})
    for method, shift in (("a", 0.05), ("b", 0.0)):
        records = {"own/method": record(shift), "own/method-student-mlp": record(-shift, config=other)}
        submit(tmp_path, method, records)
    found = tables(load_board(tmp_path).entries)
    assert [[row.entry.submission.method for row in table.rows] for table in found] == [
        ["a", "b"],
        ["b", "a"],
    ]
    (change,) = agreements(found)
    assert (change.one.student, change.other.student) == ("convnet depth=2", "mlp width=8")
    assert (change.common, change.tau) == (2, -1.0)


def test_a_variant_may_have_been_made_where_files_lie_elsewhere(tmp_path: Path):
    def made_in(folder: str, **changes: Any) -> dict[str, Any]:
        teachers = [{"use": "mlp", "checkpoint": f"{folder}/teacher.safetensors", "accuracy": None}]
        files = {"distilled__path": f"{folder}/x", "distilled__views": f"{folder}/v", "teachers": teachers}
        return record(config=config(**files, **changes), teachers=[{"digest": "9" * 64}])

    records = {"own/method": made_in("here"), "own/method-augmentation-none": made_in("there")}
    records["own/method-augmentation-none"]["config"]["recipe"]["augmentation"] = []
    submit(tmp_path, "dm", records)
    board = load_board(tmp_path)
    assert (len(board.entries), board.problems) == (2, ())


@pytest.mark.parametrize(
    ("variant", "changed", "field"),
    [
        (
            "augmentation-none",
            record(config=config(recipe__augmentation=[], recipe__epochs=20)),
            "recipe.epochs",
        ),
        ("augmentation-none", record(config=config(recipe__labels={"use": "soft"})), "recipe.labels"),
        ("labels-soft", record(config=config(recipe__augmentation=[])), "recipe.augmentation"),
        ("student-mlp", record(config=config(teachers=[{"use": "mlp"}])), "teachers"),
        (
            "student-mlp",
            record(teachers=[{"digest": "9" * 64}], config=config(student={"use": "mlp"})),
            "weights of teachers",
        ),
    ],
)
def test_a_variant_that_differs_in_more_than_one_thing_is_refused(
    tmp_path: Path, variant: str, changed: dict[str, Any], field: str
):
    submit(tmp_path, "dm", {"own/method": record(), f"own/method-{variant}": changed})
    board = load_board(tmp_path)
    assert board.entries == ()
    assert f": {field}: differs from the method's own; only " in board.problems[0].what


def test_a_variant_that_differs_in_nothing_is_refused(tmp_path: Path):
    submit(tmp_path, "dm", {"own/method": record(), "own/method-student-same": record()})
    expected = "student: as in the method's own, so this is no variant"
    assert expected in load_board(tmp_path).problems[0].what


def test_a_variant_needs_the_method_itself_and_its_own_recipe(tmp_path: Path):
    plain = record(config=config(recipe__augmentation=[]))
    submit(tmp_path, "a", {"own/method-augmentation-none": plain})
    submit(tmp_path, "b", {"fixed/method": record(), "fixed/method-augmentation-none": plain})
    alone, fixed = load_board(tmp_path).problems
    assert alone.what.endswith("a variant of a method that was not evaluated itself on this track")
    assert fixed.what.endswith("variants are of the method's own recipe, in results/own")


def test_a_variant_of_another_distilled_set_is_refused(tmp_path: Path):
    other = record(config=config(recipe__augmentation=[]))
    other["data"]["distilled"]["sha256"] = "4" * 64
    submit(tmp_path, "dm", {"own/method": record(), "own/method-augmentation-none": other})
    assert "data.distilled.sha256: differs" in load_board(tmp_path).problems[0].what
