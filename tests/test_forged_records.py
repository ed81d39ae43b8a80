"""Records that were edited so that each is right in itself: what they share, and what is here, tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import submitted_case
import torch
from submitted_case import DISTILLED, PLACE, copied, declare, edit_recipe, write_submission
from tiny_case import PER_CLASS, RECIPE, pictures

from ddrank_core.cli.main import main
from ddrank_core.config import RunConfig, load_run
from ddrank_core.data.distilled import digest
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.leaderboard import control_check
from ddrank_core.leaderboard.check import check_folder
from ddrank_core.leaderboard.entries import load_board
from ddrank_core.leaderboard.types import Finding
from ddrank_core.registry import default_registry
from ddrank_core.report.record import arm_record, score_record

CONTROLS = ("noise", "random", "herding", "k-means")
WIDE = "student={use: convnet, depth: 1, width: 16}"
HOW = ("--device", "cpu", "--workers", "1", "--quiet")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a submission, its controls and a variant, evaluated on its own recipe."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDRANK_CACHE", str(root / "cache"))
        folder = str(write_submission(root))
        assert 0 == main(["submission", "evaluate", folder, "--track", "own", *HOW])
        assert 0 == main(["submission", "evaluate", folder, "--variant", "student-wide", "--set", WIDE, *HOW])
    return root


@pytest.fixture
def folder(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    return copied(evaluated, tmp_path)


def place(folder: Path, contestant: str) -> Path:
    return folder / "results/own" / contestant / "record.json"


def edit(folder: Path, contestant: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a record, and state what then follows from its trials."""
    path = place(folder, contestant)
    record = json.loads(path.read_text())
    change(record)
    restate(record, load_run(folder / "run.yaml", default_registry()))
    path.write_text(json.dumps(record))


def restate(record: dict[str, Any], config: RunConfig) -> None:
    """Make arms and scores follow from the trials, at the rates that were chosen."""
    arms = {}
    for name, stated in record["arms"].items():
        trained, rates = stated["same_as"] or name, stated["learning_rates"]
        done = {(t["repeat"], t["learning_rate"]): t for t in record["trials"] if t["arm"] == trained}
        accuracies = [done[repeat, rate]["accuracy"] for repeat, rate in enumerate(rates)]
        arms[name] = summarise_arm(name, accuracies, rates, same_as=stated["same_as"])
        record["arms"][name] = arm_record(arms[name])
    record["scores"] = {name: score_record(score) for name, score in score_all(config, arms).items()}


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change that sets the value at a path."""

    def change(values: Any) -> None:
        for step in path[:-1]:
            values = values[step]
        values[path[-1]] = value

    return change


def win(record: dict[str, Any]) -> None:
    """Make the distilled set right everywhere, and the random images as good as guessing."""
    for trial in record["trials"]:
        if trial["accuracy"] is not None and trial["arm"] != "full-hard":
            trial["accuracy"] = 1.0 if trial["arm"].startswith("syn") else 10 / 30


def found(folder: Path, *levels: str) -> list[Finding]:
    return [finding for finding in check_folder(folder, default_registry())[2] if finding.level in levels]


def lines(folder: Path, *levels: str) -> list[str]:
    return [f"{finding.check}: {finding.text}" for finding in found(folder, *levels)]


def problem(folder: Path) -> str:
    (only,) = load_board(folder.parents[1]).problems
    return only.what


def test_what_was_evaluated_has_neither_errors_nor_warnings(folder: Path):
    assert [] == lines(folder, "error", "warning")
    assert () == load_board(folder.parents[1]).problems


# -- trials that records share -------------------------------------------------------------------


def test_the_random_images_of_a_method_are_those_of_its_controls(folder: Path):
    edit(folder, "method", win)
    errors = lines(folder, "error")
    # Both copies of each of four controls are the same trials.
    assert 4 == len(errors)
    assert errors[0].startswith(f"record: {place(folder, 'herding')}: trials: rdm-any, repeat 0, rate 0.")
    assert f"but the same training has {10 / 30} in {place(folder, 'method')}; evaluate both" in errors[0]


def test_a_validation_accuracy_that_chose_nothing_is_compared_too(folder: Path):
    def lower(record: dict[str, Any]) -> None:
        chosen = record["arms"]["rdm-any"]["learning_rates"][0]
        trial = next(t for t in record["trials"] if t["arm"] == "rdm-any" and t["learning_rate"] != chosen)
        trial["validation_accuracy"] /= 2

    edit(folder, "random", lower)
    assert [True] * 4 == ["validation_accuracy: " in line for line in lines(folder, "error")]


def test_the_full_data_of_an_augmentation_variant_are_those_of_its_method(folder: Path):
    change = ("--variant", "augmentation-none", "--set", "recipe.augmentation=none")
    assert 0 == main(["submission", "evaluate", str(folder), *change, *HOW])

    def lower(record: dict[str, Any]) -> None:
        for trial in record["trials"]:
            if trial["arm"] == "full-hard" and trial["phase"] == "final":
                trial["accuracy"] = 0.0

    edit(folder, "method-augmentation-none", lower)
    assert all("trials: full-hard, " in line for line in lines(folder, "error"))
    assert 5 == len(lines(folder, "error"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("device", value="another"), "they were made with another device"),
        (put("versions", "torch", value="0.1"), "they were made with another version of torch"),
    ],
)
def test_trials_of_other_machines_may_differ_and_are_said_to(folder: Path, change, words: str):
    edit(folder, "method", win)
    edit(folder, "method", change)
    assert [] == lines(folder, "error")
    assert 4 == sum(words in line for line in lines(folder, "warning"))


# -- variants ------------------------------------------------------------------------------------

VARIANT = "method-student-wide"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (put("trials", 0, "seed", value=7), "trials[0].seed: 7, which is not repeat 0's"),
        (lambda record: record["trials"].pop(), "of which the recipe trains"),
        (put("trials", 0, "learning_rate", value=0.5), "the recipe trains no full-hard at rate 0.5"),
        (put("config", "student", "padding", value=1), "config: student.padding: unknown field"),
        (put("config", "student", "use", value="${HOME}"), "config.student: holds '${', which asks for an "),
        (put("protocol", "learning_rates", value=[0.1]), "protocol.learning_rates: [0.1], but it is [0.01, "),
    ],
)
def test_a_variant_is_held_to_its_own_plan(folder: Path, change, line: str):
    path = place(folder, VARIANT)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    (error,) = lines(folder, "error")
    assert error.startswith(f"record: {path}: ")
    assert line in error


def test_a_variant_names_no_file_outside_the_submission(folder: Path):
    path = place(folder, "method-labels-teacher")
    shutil.copytree(place(folder, "method").parent, path.parent)
    record = json.loads(path.read_text())
    record["config"]["recipe"]["labels"] = {"use": "teacher"}
    record["config"]["teachers"] = [{"use": "convnet", "depth": 1, "checkpoint": "../../../real.npz"}]
    path.write_text(json.dumps(record))
    assert lines(folder, "error") == [
        f"record: {path}: config.teachers: checkpoint: '../../../real.npz' leads out of the submission"
    ]


def test_full_data_of_its_own_make_no_other_student(folder: Path):
    path = place(folder, "method-student-same")
    shutil.copytree(place(folder, "method").parent, path.parent)
    record = json.loads(path.read_text())
    record["config"]["full_data"] |= {"accuracy": 0.0, "source": "a paper"}
    path.write_text(json.dumps(record))
    line = f"{path}: student: as in the method's own, so this is no variant"
    assert [f"record: {line}"] == lines(folder, "error")


def test_one_variant_does_not_stand_there_twice(folder: Path):
    shutil.copytree(place(folder, VARIANT).parent, place(folder, "method-student-wider").parent)
    own = folder / "results/own"
    line = f"{own}/method-student-wider: student: as in {VARIANT}, so this is no other variant"
    assert [f"record: {line}"] == lines(folder, "error")
    assert line == problem(folder)


# -- what a record says of its run ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (put("protocol", "name", value="other"), "protocol.name: other, but it is strict"),
        (put("protocol", "version", value="9"), "protocol.version: 9, but it is 1"),
        (put("protocol", "selected_on_test_set", value=True), "selected_on_test_set: True, but it is False"),
        (put("precision", value="bf16"), "precision: bf16, but it is fp32"),
        (put("device", value="a" * 101), "device: must be one line of 1 to 100 characters"),
        (put("device", value="cpu\nfast"), "device: must be one line of 1 to 100 characters"),
        (put("data", "distilled", "soft_labels", value="logits"), "soft_labels: logits, but it is None"),
        (put("data", "distilled", "learning_rate", value=0.1), "learning_rate: 0.1, but it is None"),
        (put("data", "distilled", "space", value="zca"), "distilled.space: zca, but it is unit"),
        (put("data", "distilled", "images", value=5), "distilled.images: 5, but it is 6"),
        (put("data", "distilled", "images_per_class", value=[1, 2, 3]), "[1, 2, 3], but it is [2, 2, 2]"),
    ],
)
def test_what_stands_beside_the_numbers_is_checked(folder: Path, change, line: str):
    edit(folder, "method", change)
    (error,) = lines(folder, "error")
    assert error.startswith(f"record: {place(folder, 'method')}: ")
    assert line in error


def test_a_protocol_that_selects_on_the_test_set_is_not_called_another(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    older = {"use": "ddranking-0.2", "repeats": 2, "learning_rates": [0.01, 0.1], "test_interval": 1}
    folder = write_submission(tmp_path / "root", protocol=older)
    path = place(folder, "method")
    record = json.loads(path.read_text())
    record["protocol"] |= {"name": "strict", "selected_on_test_set": False}
    path.write_text(json.dumps(record))
    assert lines(folder, "error") == [
        f"record: {path}: protocol.name: strict, but it is ddranking-0.2 here; evaluate it again"
    ]


# -- teachers and views -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a submission whose recipe asks a teacher of its own."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("taught")
    weights = root / "submissions" / "teacher.safetensors"
    weights.parent.mkdir()
    save_file(trained().state_dict(), weights)
    teacher = {"use": "mlp", "width": 4, "checkpoint": "weights/teacher.safetensors"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDRANK_CACHE", str(root / "cache"))
        patch.setattr(submitted_case, "write_case", _with(weights, submitted_case.write_case))
        write_submission(root, recipe={**RECIPE, "labels": "teacher", "loss": "kl"}, teachers=[teacher])
    return root


def trained() -> torch.nn.Module:
    """Return a small network that knows the pictures: a run takes no other for a teacher."""
    torch.manual_seed(0)
    network = default_registry().load("architecture", "mlp")(width=4).build(3, (1, 8, 8))
    images, labels = map(torch.from_numpy, pictures(PER_CLASS, 0))
    unit = images.float().unsqueeze(1) / 255
    normalised = (unit - unit.mean()) / unit.std()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(normalised), labels).backward()
        optimizer.step()
    return network


def _with(weights: Path, write: Callable[..., Path]) -> Callable[..., Path]:
    """Return what writes a case, and the teacher's weights into the submission before it is read."""

    def both(root: Path, **changes: Any) -> Path:
        (root / PLACE / "weights").mkdir()
        shutil.copy(weights, root / PLACE / "weights/teacher.safetensors")
        return write(root, **changes)

    return both


def test_a_teacher_is_the_one_whose_weights_are_submitted(taught: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    folder = copied(taught, tmp_path)
    assert [] == [line for line in lines(folder, "error", "warning") if not line.startswith("labels: ")]
    path = place(folder, "method")
    record = json.loads(path.read_text())
    record["teachers"][0]["digest"] = 64 * "0"
    path.write_text(json.dumps(record))
    weights = folder / "weights/teacher.safetensors"
    line = f"record: {path}: teachers[0].digest: is not that of {weights}; evaluate it again"
    assert [line] == lines(folder, "error")


def test_a_record_names_the_very_file_of_its_recipe(taught: Path, tmp_path: Path, monkeypatch):
    """Whoever names a smaller one of the same name would count its bytes."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    folder = copied(taught, tmp_path)
    path = place(folder, "method")
    record = json.loads(path.read_text())
    record["config"]["teachers"][0]["checkpoint"] = "teacher.safetensors"
    path.write_text(json.dumps(record))
    assert lines(folder, "error") == [
        f"record: {path}: config.teachers[0].checkpoint: teacher.safetensors, but the recipe says "
        "weights/teacher.safetensors; evaluate it again"
    ]


def test_a_file_that_holds_no_views_is_refused(folder: Path):
    recipe = {**RECIPE, "labels": "stored-views", "loss": "kl", "augmentation": "none"}
    (folder / "views.safetensors").write_bytes(b"x")
    distilled = {"path": DISTILLED, "views": "views.safetensors"}
    teachers = [{"use": "mlp", "width": 4}]
    edit_recipe(folder, recipe=recipe, distilled=distilled, scores=["hlr"], teachers=teachers)
    assert lines(folder, "error")[0].startswith(f"labels: {folder}/views.safetensors: ")


# -- controls ------------------------------------------------------------------------------------


def test_a_control_is_not_another_one_again(folder: Path):
    for name in CONTROLS[1:]:
        shutil.copy(place(folder, "noise"), place(folder, name))
    errors = lines(folder, "error")
    for name in CONTROLS[1:]:
        told = f"data.distilled.info.method: noise, but the control's is {name}; evaluate it again"
        assert f"controls: {place(folder, name).parent}: {told}" in errors
    same = [line for line in errors if "data.distilled.sha256: is that of " in line]
    # Each two of the four.
    assert 6 == len(same)


def test_the_submitted_set_is_no_control_of_itself(folder: Path):
    def own(record: dict[str, Any]) -> None:
        record["data"]["distilled"] |= {"sha256": digest(folder / DISTILLED), "info": {}}

    edit(folder, "noise", own)
    where = place(folder, "noise").parent
    errors = [line for line in lines(folder, "error") if line.startswith("controls: ")]
    assert errors == [
        f"controls: {where}: data.distilled.sha256: {what}; evaluate it again"
        for what in ("is not that of the control that is made here", "is that of method")
    ]


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_made_again_and_compared(folder: Path, name: str):
    edit(folder, name, put("data", "distilled", "sha256", value=64 * "a"))
    (error,) = lines(folder, "error")
    assert error.startswith(f"controls: {place(folder, name).parent}: data.distilled.sha256: is not that of ")


def test_a_control_that_other_libraries_made_may_differ_and_is_said_to(folder: Path):
    edit(folder, "noise", put("data", "distilled", "sha256", value=64 * "a"))
    edit(folder, "noise", put("versions", "numpy", value="0.1"))
    assert [] == lines(folder, "error")
    (warning,) = [line for line in lines(folder, "warning") if line.startswith("controls: ")]
    assert "; it was made with numpy 0.1, here " in warning


def test_a_control_of_another_seed_is_refused(folder: Path):
    edit(folder, "random", put("data", "distilled", "info", "seed", value=3))
    (error,) = lines(folder, "error")
    assert "data.distilled.info.seed: 3, but the control's is 0" in error


def test_a_method_may_choose_the_images_of_a_control(folder: Path, tmp_path: Path):
    """Whoever submits random images of that seed has the control's own file."""
    (control,) = (tmp_path / "cache/controls").glob("random-*")
    shutil.copy(control, folder / DISTILLED)
    declare(folder)
    shutil.rmtree(folder / "results")
    assert 0 == main(["submission", "evaluate", str(folder), "--track", "own", *HOW])
    assert [] == lines(folder, "error")


def test_a_control_that_takes_long_is_left_out_and_said_to_be(folder: Path, tmp_path: Path, monkeypatch):
    shutil.rmtree(tmp_path / "cache/controls")
    monkeypatch.setattr(control_check, "MAX_VALUES", 0)
    edit(folder, "herding", put("data", "distilled", "sha256", value=64 * "a"))
    assert [] == lines(folder, "error")
    own = folder / "results/own"
    line = f"controls: {own}: not made again: herding, k-means; it would take minutes"
    assert [line] == [text for text in lines(folder, "info") if text.startswith("controls: ")]


def test_without_the_real_data_no_control_is_made_again(folder: Path):
    (folder.parents[2] / "real.npz").unlink()
    what = f"not made again: {', '.join(CONTROLS)}; the real data are not here"
    line = f"controls: {folder / 'results/own'}: {what}"
    assert [line] == [text for text in lines(folder, "info") if text.startswith("controls: ")]


# -- the board and the report --------------------------------------------------------------------


def test_a_board_takes_no_arm_that_its_trials_do_not_give(folder: Path):
    path = place(folder, "method")
    record = json.loads(path.read_text())
    record["arms"]["syn-any"]["accuracy"]["values"] = [1.0, 1.0]
    path.write_text(json.dumps(record))
    assert problem(folder).startswith(f"{path}: arms.syn-any.accuracy.")
    assert " but its trials give " in problem(folder)


def test_a_board_takes_no_protocol_but_the_config_s(folder: Path):
    edit(folder, "method", put("protocol", "version", value="9"))
    line = f"{place(folder, 'method')}: protocol: strict 9, but its config's is here strict 1"
    assert line == problem(folder)


def test_a_board_takes_no_control_whose_scores_were_edited(folder: Path):
    path = place(folder, "random")
    record = json.loads(path.read_text())
    record["scores"]["lrs"]["mean"] = 0.0
    path.write_text(json.dumps(record))
    assert problem(folder).startswith(f"{path}: scores.lrs.mean: states 0.0, but its trials give ")


def written(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Write the check's report, and return it."""
    main(["submission", "check", str(folder), "--write"])
    capsys.readouterr()
    return json.loads((folder / "check.json").read_text())


def checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what a check says of the report that is there."""
    main(["submission", "check", str(folder)])
    out = capsys.readouterr().out
    return [line.strip() for line in out.splitlines() if line.startswith("  check.json: ")]


def test_a_report_is_shown_to_be_what_the_check_finds(folder: Path, capsys):
    written(folder, capsys)
    assert [] == checked(folder, capsys)


def test_a_report_that_hides_a_warning_is_told(folder: Path, capsys):
    edit(folder, "noise", put("versions", "numpy", value="0.1"))
    edit(folder, "noise", put("data", "distilled", "sha256", value=64 * "a"))
    report = written(folder, capsys)
    report["findings"] = [finding for finding in report["findings"] if finding["level"] == "info"]
    (folder / "check.json").write_text(json.dumps(report))
    (line,) = checked(folder, capsys)
    assert line.startswith(
        f"check.json: {folder}/check.json: does not say what is found now: controls: results/own/noise: "
    )


def test_a_report_of_other_files_or_of_no_real_data_is_told(folder: Path, capsys):
    report = written(folder, capsys)
    again = "write it again with --write"
    (folder / "check.json").write_text(json.dumps(put_in(report, "real data", None)))
    line = f"check.json: {folder}/check.json: was made beside other real data, or none; {again}"
    assert [line] == checked(folder, capsys)
    (folder / "check.json").write_text(json.dumps(report))
    edit(folder, "random", put("seconds", value=1.0))
    name = "results/own/random/record.json"
    assert [f"check.json: {folder}/check.json: is of other files: {name}; {again}"] == checked(folder, capsys)


def put_in(report: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {**report, "checked": {**report["checked"], name: value}}


def test_a_row_whose_images_nobody_compared_says_so(folder: Path, capsys):
    real = folder.parents[2] / "real.npz"
    real.rename(real.with_suffix(".away"))
    written(folder, capsys)
    first = load_board(folder.parents[1]).entries[0].findings[0]
    assert ("warning", "check") == (first.level, first.check)
    assert first.text.startswith("checked without the real data: compared with no real image; ")
    (folder / "check.json").unlink()
    first = load_board(folder.parents[1]).entries[0].findings[0]
    assert first.text.startswith(
        "not checked yet: compared neither with the real images nor with its recipe; "
    )


def test_a_report_is_the_same_wherever_the_submission_lies(folder: Path, tmp_path, capsys, monkeypatch):
    edit(folder, "noise", put("versions", "numpy", value="0.1"))
    first = written(folder, capsys)
    assert str(tmp_path) not in json.dumps(first["findings"])
    monkeypatch.chdir(folder)
    main(["submission", "check", ".", "--write"])
    assert first == json.loads((folder / "check.json").read_text())
    assert PLACE.name == folder.name
