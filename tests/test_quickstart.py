"""The quickstart as a newcomer runs it: through the installed launcher, from the repository."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = Path(sys.executable).parent / "ddrank"
TOP_LEVEL = {
    *("schema_version", "scores", "arms", "trials", "config", "protocol", "components", "versions", "data"),
    *("name", "teachers", "device", "precision", "notes", "started", "seconds"),
}


def ddrank(*arguments: object, cache: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DDRANK_CACHE": str(cache)}
    return subprocess.run(
        [LAUNCHER, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """Run the quickstart once; return its run folder, its cache and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    done = ddrank("run", "configs/quickstart.yaml", "--out", folder / "run", cache=folder / "cache")
    assert done.returncode == 0, done.stderr
    return folder / "run", folder / "cache", done


@pytest.fixture(scope="module")
def record(quickstart):
    return json.loads((quickstart[0] / "record.json").read_text())


def test_it_leaves_the_run_folder(quickstart):
    expected = {"record.json", "scores.csv", "trials.csv", "distilled.png", "arms.png"}
    assert expected == {path.name for path in quickstart[0].iterdir()}
    for name in ("distilled.png", "arms.png"):
        with Image.open(quickstart[0] / name) as picture:
            assert min(picture.size) > 100


def test_it_scores_all_five(record):
    assert set(record) >= TOP_LEVEL
    assert list(record["scores"]) == ["hlr", "ior", "ior_hlr", "lrs", "ars"]
    for score in record["scores"].values():
        assert score["mean"] is not None or score["reason"]
    repeats = record["protocol"]["repeats"]
    for name in ("hlr", "ior", "lrs", "ars"):
        assert record["scores"][name]["n"] == repeats


def test_its_distilled_images_beat_random_ones_and_lose_to_the_full_data(record):
    """Without augmentation the gap is wide: in every repeat the worst distilled beats the random images."""
    arms = {name: arm["accuracy"]["values"] for name, arm in record["arms"].items()}
    assert min(arms["full-hard"]) > max(arms["syn-hard"])
    assert all(syn > rdm for syn, rdm in zip(arms["syn-naug"], arms["rdm-naug"], strict=True))


def test_its_scores_follow_from_the_trials_of_the_record(record):
    """The definitions, applied by hand to what the record says of every selected trial."""
    import math

    arms = {name: arm["accuracy"]["values"] for name, arm in record["arms"].items()}
    for repeat in range(record["protocol"]["repeats"]):
        ior = arms["syn-any"][repeat] - arms["rdm-any"][repeat]
        hlr = arms["full-hard"][repeat] - arms["syn-hard"][repeat]
        lrs = (math.exp(0.5 * ior - 0.5 * hlr) - math.exp(-1)) / (math.e - math.exp(-1))
        assert ior == pytest.approx(record["scores"]["ior"]["values"][repeat])
        assert hlr == pytest.approx(record["scores"]["hlr"]["values"][repeat])
        assert lrs == pytest.approx(record["scores"]["lrs"]["values"][repeat])


def test_its_arms_point_to_trials_of_the_record(record):
    finals = [trial for trial in record["trials"] if trial["phase"] == "final"]
    for name, arm in record["arms"].items():
        for repeat, value in enumerate(arm["accuracy"]["values"]):
            match = [
                trial
                for trial in finals
                if trial["arm"] == (arm["same_as"] or name)
                and trial["repeat"] == repeat
                and trial["learning_rate"] == arm["learning_rates"][repeat]
            ]
            assert [value] == [trial["accuracy"] for trial in match]


def test_the_tables_say_what_the_record_says(quickstart, record):
    with (quickstart[0] / "scores.csv").open(newline="") as file:
        rows = {row["score"]: row for row in csv.DictReader(file)}
    for name, score in record["scores"].items():
        expected = "" if score["mean"] is None else str(score["mean"])
        assert expected == rows[name]["mean"]
    with (quickstart[0] / "trials.csv").open(newline="") as file:
        assert len(record["trials"]) == len(list(csv.DictReader(file)))


def test_every_component_came_from_a_plugin(record):
    kinds = {part["kind"] for part in record["components"]}
    assert {"loss", "label-mapping", "augmentation", "architecture", "dataset"} <= kinds
    assert all(part["distribution"] == "ddrank" and part["source_digest"] for part in record["components"])


def test_it_shows_progress_with_the_time_left(quickstart):
    assert "left" in quickstart[2].stderr
    assert "Traceback" not in quickstart[2].stderr


def test_a_rerun_trains_nothing_and_says_the_same(quickstart, record, tmp_path):
    _, cache, _ = quickstart
    done = ddrank("run", "configs/quickstart.yaml", "--out", tmp_path / "again", "--quiet", cache=cache)
    again = json.loads((tmp_path / "again" / "record.json").read_text())
    assert done.stderr == ""
    assert all(trial["reused"] for trial in again["trials"])
    assert record["scores"] == again["scores"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.epohcs=3", "recipe.epohcs: unknown field (did you mean 'epochs'?)"),
        ("recipe.loss=kll", "no loss 'kll' (did you mean 'kl'?)"),
        ("recipe.epochs=0", "must be at least 1, got 0"),
        ("recipe.epochs=ten", "must be a whole number, got 'ten'"),
        ("distilled.path=nothing.safetensors", "distilled.path: no such file"),
        ("distilled.ipc=7", "the declared IPC is 7"),
        ("teachers=[]", "needs at least one teacher"),
        ("recipe.labels=soft", "needs stored soft labels"),
        ("dataset=mnist", "no MNIST here"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(override, message, tmp_path):
    out = tmp_path / "run"
    done = ddrank(
        *("run", "configs/quickstart.yaml", "--out", out, "--set", override), cache=tmp_path / "cache"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not out.exists()
    assert not (tmp_path / "cache").exists()


def test_no_such_device_is_one_line(tmp_path):
    done = ddrank(
        *("run", "configs/quickstart.yaml", "--device", "cuda:97", "--out", tmp_path / "run"),
        cache=tmp_path / "cache",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --device cuda:97: no such CUDA device")
    assert len(done.stderr.splitlines()) == 1


def test_check_says_what_a_run_would_do_and_writes_nothing(tmp_path):
    done = ddrank("check", "configs/quickstart.yaml", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "configs/quickstart.yaml: good" in done.stdout
    assert "syn-aug (= syn-any)" in done.stdout
    assert not (tmp_path / "cache").exists()
