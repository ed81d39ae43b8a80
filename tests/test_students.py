"""Several students in one run: each is the run that it would be alone, and a table compares them."""

from __future__ import annotations

import csv
import json

import attrs
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from tiny_case import write_case

from ddrank_core.cli.main import launcher
from ddrank_core.config import load_run
from ddrank_core.errors import ConfigError
from ddrank_core.registry import default_registry

STUDENTS = [{"use": "convnet", "depth": 1, "width": 8}, {"use": "convnet", "depth": 2, "width": 4}]
SHORT = ["scores=[hlr, ior]", "recipe.epochs=1", "full_data.recipe.epochs=1", "protocol.learning_rates=[0.1]"]


def case(folder, **changes):
    path = write_case(folder)
    values = yaml.safe_load(path.read_text())
    del values["student"]
    path.write_text(yaml.safe_dump({**values, "students": STUDENTS, **changes}))
    return path


def invoke(*arguments):
    return CliRunner().invoke(launcher, [str(argument) for argument in arguments], catch_exceptions=False)


def sets():
    return [argument for setting in SHORT for argument in ("--set", setting)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDRANK_CACHE", str(folder / "cache"))
        done = invoke("run", case(folder), *sets(), "--out", folder / "out", "--quiet")
    assert 0 == done.exit_code
    return folder, done.output


def test_each_student_has_its_own_run_folder_and_all_a_table_and_a_picture(run):
    folder, output = run
    found = sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").iterdir())
    assert ["1-convnet", "2-convnet", "record.json", "students.csv", "students.png"] == found
    assert "case: 2 students" in output
    assert "convnet depth=1 width=8" in output
    with Image.open(folder / "out" / "students.png") as picture:
        assert picture.size[0] > 600


def test_the_table_and_the_record_hold_the_scores_of_each_students_own_record(run):
    folder, _ = run
    whole = json.loads((folder / "out" / "record.json").read_text())
    assert STUDENTS[1]["width"] == whole["students"][1]["student"]["width"]
    with (folder / "out" / "students.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert ["hlr", "ior"] * 2 == [line["score"] for line in lines]
    for index, one in enumerate(whole["students"]):
        own = json.loads((folder / "out" / one["record"]).read_text())
        assert own["scores"] == one["scores"]
        assert own["config"]["student"] == one["student"]
        assert [str(own["scores"][name]["mean"]) for name in ("hlr", "ior")] == [
            line["mean"] for line in lines[2 * index : 2 * index + 2]
        ]


def test_a_student_among_others_is_trained_as_it_is_alone(run, monkeypatch):
    folder, _ = run
    monkeypatch.setenv("DDRANK_CACHE", str(folder / "cache"))
    path = folder / "alone.yaml"
    values = yaml.safe_load((folder / "case.yaml").read_text())
    del values["students"]
    path.write_text(yaml.safe_dump({**values, "student": STUDENTS[1]}))
    assert 0 == invoke("run", path, *sets(), "--out", folder / "alone", "--quiet").exit_code
    alone = json.loads((folder / "alone" / "record.json").read_text())
    among = json.loads((folder / "out" / "2-convnet" / "record.json").read_text())
    assert all(trial["reused"] for trial in alone["trials"])
    assert among["scores"] == alone["scores"]


def test_check_says_what_each_student_would_do(tmp_path):
    done = invoke("check", case(tmp_path))
    assert 0 == done.exit_code
    assert 2 == done.output.count("  student: convnet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "convnet"}, "students: give either student or students"),
        ({"students": []}, "students: must be a list of at least one architecture"),
        ({"students": "convnet"}, "students: must be a list of at least one architecture"),
        ({"students": ["convnet", "convnett"]}, r"students\[1\].*did you mean 'convnet'"),
        (
            {"full_data": {"accuracy": 0.9, "source": "a paper"}},
            r"students\[0\]\.full_data: missing; full_data\.accuracy is one network's",
        ),
        (
            {"students": [{**STUDENTS[0], "full_data": {"accuracy": 2}}]},
            r"students\[0\]\.full_data\.accuracy",
        ),
    ],
)
def test_bad_students_are_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_run(case(tmp_path, **changes), default_registry())
    assert "\n" not in str(caught.value)


def test_a_student_can_bring_what_it_reaches_on_the_full_data(tmp_path):
    known = {"accuracy": 0.9, "source": "a paper"}
    students = [{**STUDENTS[0], "full_data": known}, STUDENTS[1]]
    config = load_run(case(tmp_path, students=students), default_registry())
    first, second = config.each_student()
    assert (0.9, "a paper") == (first.full_data.accuracy, first.full_data.source)
    assert second.full_data.recipe is not None
    assert first.student.component.depth == 1


def test_a_resolved_config_of_several_students_loads_again(tmp_path):
    config = load_run(case(tmp_path), default_registry())
    again = tmp_path / "case2.yaml"
    again.write_text(yaml.safe_dump(config.resolved()))
    loaded = load_run(again, default_registry())
    assert config.students == loaded.students
    assert attrs.asdict(config.weights) == attrs.asdict(loaded.weights)


def test_a_student_that_cannot_take_the_images_is_named_by_its_place(tmp_path):
    done = CliRunner().invoke(launcher, ["check", str(case(tmp_path, students=["mlp", "VGG-11"]))])
    assert isinstance(done.exception, ConfigError)
    assert "case.yaml: students[1]: student: " in str(done.exception)


def test_a_last_batch_of_one_image_says_what_to_change(tmp_path):
    path = case(tmp_path, students=["ResNet-18-BN"])
    values = yaml.safe_load(path.read_text())
    values["recipe"]["batch_size"] = 5
    path.write_text(yaml.safe_dump(values))
    done = CliRunner().invoke(launcher, ["check", str(path)])
    assert "needs batches of two images or more" in str(done.exception)
    assert "batch_size or micro_batch" in str(done.exception)
