"""`ddrank plan`: what it looks up, adds up and reckons; how long anything takes is not asserted."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import attrs
import pytest
import torch
import yaml
from tiny_case import prepared_case, run_case, write_case

from ddrank_core.asked import Asked
from ddrank_core.cli import main as launcher
from ddrank_core.cli.plan import about
from ddrank_core.engine.bench import pace as paces
from ddrank_core.engine.bench.forecast import Batch, batch_seconds, forecast, turns
from ddrank_core.engine.bench.laps import Spread
from ddrank_core.engine.bench.outlook import expected, look, measurements
from ddrank_core.engine.bench.pace import Pace, PredictionPace, ready_trainer
from ddrank_core.errors import ConfigError

MOMENT = 0.01
"""Seconds to measure for, where the numbers do not matter."""
EPOCH, START, IMAGE = 1.0, 0.5, 0.01
TEST, VALIDATION = 30, 12
"""The tiny case tests on 10 images of each of 3 classes, and sets aside a fifth of 20 to choose by."""
ALONE = Asked(workers=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep trials and teachers in a folder of the test's own, and measure for a moment only."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paces, "BUDGET", MOMENT)
    return tmp_path / "cache"


# -- how long it takes -------------------------------------------------------------------------


def exactly(seconds):
    return Spread(seconds, seconds, seconds)


def paces_of(prepared, workers=1, cohort=1, alone=None):
    """Return a pace for every arm at which an epoch, of all trials at once, takes a second."""
    return {
        arm.name: Pace(
            name=arm.name,
            images=48 if arm.training.source == "full" else 6,
            timed_images=6,
            batch_size=arm.training.batch_size,
            epochs=arm.training.epochs,
            workers=workers,
            cohort=cohort,
            epoch_seconds=exactly(EPOCH),
            alone_seconds=None if alone is None else exactly(alone),
            start_seconds=START,
            flops_per_image=1.0,
            laps=1,
        )
        for arm in prepared.plan.trained
    }


def pace_of_tests(workers=1):
    return PredictionPace(
        name="test", timed_images=TEST, workers=workers, image_seconds=exactly(IMAGE), laps=1
    )


def at_a_known_pace(prepared, workers=1, cohort=1, alone=None):
    """Return the forecast of what is left of a run."""
    trainer, left = ready_trainer(prepared, ()), look(prepared, ALONE).left
    return forecast(trainer, left, paces_of(prepared, workers, cohort, alone), pace_of_tests(workers), ())


def seconds_of(prepared, **at):
    """Return the expected seconds, by arm."""
    return {arm.arm: arm.seconds.median for arm in at_a_known_pace(prepared, **at).arms}


def test_an_arm_takes_its_trials_with_their_validation_and_test(tmp_path):
    # Two rates and two repeats: four trials of four epochs, any of which may count.
    trial = START + 4 * EPOCH + (VALIDATION + TEST) * IMAGE
    found = at_a_known_pace(prepared_case(tmp_path))
    by_arm = {arm.arm: arm.seconds.median for arm in found.arms}
    assert by_arm["syn-hard"] == pytest.approx(4 * trial)
    assert by_arm["syn-hard"] == pytest.approx(19.68)
    assert found.seconds.median == pytest.approx(sum(by_arm.values()))


def test_the_full_data_are_searched_on_a_part_and_trained_on_the_whole(tmp_path):
    # Two epochs; four trials on 48 images that only serve the search, then two on all 60.
    search = START + 2 * EPOCH + VALIDATION * IMAGE
    final = START + 2 * EPOCH * 60 / 48 + TEST * IMAGE
    found = seconds_of(prepared_case(tmp_path))
    assert found["full-hard"] == pytest.approx(4 * search + 2 * final)


def test_the_older_protocol_tests_as_it_trains(tmp_path):
    protocol = {"use": "ddranking-0.2", "repeats": 2, "learning_rates": [0.01, 0.1], "test_interval": 3}
    found = seconds_of(prepared_case(tmp_path, protocol=protocol))
    # Nothing is set aside; epochs 3 and 4 of each of four trials are tested.
    assert found["syn-hard"] == pytest.approx(4 * (START + 4 * EPOCH + 2 * TEST * IMAGE))


def test_processes_share_the_trials_of_all_arms(tmp_path):
    prepared = prepared_case(tmp_path, scores=["ior"])
    trial = START + 4 * EPOCH + (VALIDATION + TEST) * IMAGE
    found = at_a_known_pace(prepared, workers=3)
    # Eight trials on three processes: when the first arm has one left, the others begin with the second.
    assert found.seconds.median == pytest.approx(8 / 3 * trial)


def test_a_run_of_one_arm_cannot_be_shorter_than_its_turns(tmp_path):
    prepared = prepared_case(tmp_path, scores=["hlr"], full_data={"accuracy": 0.9, "source": "a paper"})
    trial = START + 4 * EPOCH + (VALIDATION + TEST) * IMAGE
    # Four trials on three processes are two turns.
    assert at_a_known_pace(prepared, workers=3).seconds.median == pytest.approx(2 * trial)
    assert (3, 2, 1, 0) == (turns(5, 2), turns(4, 2), turns(1, 2), turns(0, 2))


def test_a_cohort_shares_its_epochs_alone(tmp_path):
    # One cohort of four; then, on the full data, one of two: a third of the way from one trial to four.
    beside = START + VALIDATION * IMAGE
    found = seconds_of(prepared_case(tmp_path), cohort=4, alone=0.4)
    assert found["syn-hard"] == pytest.approx(4 * EPOCH + 4 * (beside + TEST * IMAGE))
    pair = 0.4 + (EPOCH - 0.4) / 3
    search = 2 * EPOCH + 4 * beside
    final = 2 * pair * 60 / 48 + 2 * (START + TEST * IMAGE)
    assert found["full-hard"] == pytest.approx(search + final)


def test_a_cohort_that_does_not_hold_all_is_followed_by_a_smaller_one(tmp_path):
    beside = START + (VALIDATION + TEST) * IMAGE
    found = seconds_of(prepared_case(tmp_path), cohort=3, alone=0.4)
    assert found["syn-hard"] == pytest.approx(4 * EPOCH + 4 * 0.4 + 4 * beside)


def test_nothing_left_takes_no_time(tmp_path):
    prepared = prepared_case(tmp_path)
    arm = prepared.plan.trained[1]
    batch = Batch(example=prepared.plan.expected_trials(arm)[0], planned=4, missing=0)
    for at in ({"workers": 3}, {"cohort": 4}):
        pace = paces_of(prepared, **at)[arm.name]
        found = batch_seconds(ready_trainer(prepared, ()), arm, batch, pace, pace_of_tests())
        assert (exactly(0.0), exactly(0.0)) == found


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((720.0, 660.0, 840.0), "about 12 min (11 to 14)"),
        ((89.0, 80.2, 100.4), "about 89 s (80 to 100)"),
        ((91.0, 80.0, 100.0), "about 1.5 min (1.3 to 1.7)"),
        ((0.042, 0.04, 0.05), "about 0.042 s (0.04 to 0.05)"),
        ((5340.0, 5000.0, 6000.0), "about 89 min (83 to 100)"),
        ((9000.0, 9000.0, 9010.0), "about 2.5 h"),
        ((50 * 3600.0, 40 * 3600.0, 60 * 3600.0), "about 2.1 days (1.7 to 2.5)"),
    ],
)
def test_a_time_is_said_in_one_unit_with_its_range(seconds, words):
    assert words == about(Spread(*seconds))


# -- what is finished --------------------------------------------------------------------------


class Stopped(Exception):
    """A run that is interrupted."""


def stop_after(count):
    def emit(hook, event):
        if hook == "ddrank_trial_finished" and event.done == count:
            raise Stopped

    return emit


def left_of(prepared):
    """Return what a run of one process would find to do, by arm."""
    return {left.arm.name: left for left in look(prepared, ALONE).left}


def test_its_trials_are_those_of_the_plan(tmp_path):
    prepared = prepared_case(tmp_path)
    assert prepared.plan.count() == sum(left.planned for left in left_of(prepared).values())


def test_halving_trains_fewer_rates_in_later_repeats(tmp_path):
    protocol = {
        "use": "strict",
        "repeats": 4,
        "learning_rates": [0.01, 0.02, 0.05, 0.1],
        "validation": 0.2,
        "search": "halving",
    }
    left = left_of(prepared_case(tmp_path, protocol=protocol))["syn-hard"]
    # Repeat 1 of four rates, repeat 2 of two, repeats 3 and 4 of one.
    assert [4, 2, 2] == [batch.missing for batch in left.batches]


@pytest.mark.parametrize("search", ["grid", "halving"])
def test_of_a_finished_run_nothing_is_left_and_nothing_is_measured(tmp_path, own_cache, search):
    prepared = prepared_case(tmp_path, f"protocol.search={search}")
    run_case(prepared, own_cache)
    found = look(prepared, ALONE)
    assert {0} == {one.missing for one in found.left}
    assert (0, 0) == (measurements(found), found.disk_bytes)
    assert exactly(0.0) == expected(found, ALONE, lambda: None, MOMENT)[1].seconds


def test_of_an_interrupted_run_the_rest_is_left(tmp_path, own_cache):
    prepared = prepared_case(tmp_path)
    with pytest.raises(Exception, match="Stopped"):
        run_case(prepared, own_cache, stop_after(9))
    left = left_of(prepared)
    assert prepared.plan.count() - 9 == sum(one.missing for one in left.values())


def test_of_a_search_that_was_interrupted_all_final_trials_are_left(tmp_path, own_cache):
    prepared = prepared_case(tmp_path, scores=["hlr"])
    with pytest.raises(Exception, match="Stopped"):
        run_case(prepared, own_cache, stop_after(3))
    left = left_of(prepared)["full-hard"]
    assert [1, 2] == [batch.missing for batch in left.batches]


TEACHERS = {
    "recipe": {
        "labels": "teacher",
        "loss": "kl",
        "optimizer": "sgd",
        "schedule": "constant",
        "epochs": 2,
        "batch_size": 4,
    },
    "teachers": [{"use": "convnet", "depth": 1, "width": 8}],
    "scores": ["hlr", "ior"],
}


def test_a_teacher_and_what_it_labels_are_counted_until_they_are_there(tmp_path, own_cache):
    prepared, counted = prepared_case(tmp_path, **TEACHERS), []
    before = look(prepared, ALONE)
    assert (1, [6, 4, 4, 4]) == (before.untaught, [left.missing for left in before.left])
    _, found = expected(before, ALONE, lambda: counted.append(1), MOMENT)
    assert measurements(before) == len(counted)
    (teacher,) = found.teachers
    arms = sum(arm.seconds.median for arm in found.arms)
    assert found.seconds.median == pytest.approx(teacher.median + arms)
    run_case(prepared, own_cache)
    after = look(prepared, ALONE)
    assert (0, 0) == (after.untaught, after.missing)


# -- memory and disk ---------------------------------------------------------------------------

WEIGHTS = 8 * 9 + 8 + 2 * 8 + 8 * 4 * 4 * 3 + 3
"""Of the tiny case's ConvNet: a convolution with its bias, a norm's two, and 8 maps of 4x4 to 3 classes."""
ACTIVATIONS = 3 * 8 * 8 * 8 + 2 * 8 * 4 * 4 + 3
"""For an image: convolution, norm and ReLU on 8x8, pooled to 4x4 and flattened, and the logits."""


def test_a_trial_takes_its_weights_four_times_and_the_activations_of_its_largest_step(tmp_path):
    found = look(prepared_case(tmp_path), ALONE)
    # Weight, gradient, two moments; the largest step is full-hard's, of 16 images, counted three times.
    assert 4 * 4 * WEIGHTS == found.memory.weight_bytes
    assert 4 * 3 * 16 * ACTIVATIONS == found.memory.activation_bytes


@pytest.mark.skipif(torch.cuda.is_available() or not hasattr(os, "fork"), reason="workers are forked")
def test_processes_and_cohorts_are_what_is_trained_at_once(tmp_path):
    prepared = prepared_case(tmp_path)
    assert (3, 1) == (look(prepared, Asked(workers=3)).at_once, look(prepared, Asked(workers=3)).cohort)
    # No arm has more than four trials to be trained together.
    assert (4, 4) == (
        look(prepared, Asked(workers=1, cohort=8)).at_once,
        look(prepared, Asked(workers=1, cohort=8)).cohort,
    )


def test_the_disk_that_it_expects_is_about_what_a_run_takes(tmp_path, own_cache):
    prepared = prepared_case(tmp_path)
    said = look(prepared, ALONE).disk_bytes
    run_case(prepared, own_cache)
    with closing(sqlite3.connect(own_cache / "trials.sqlite")) as db:
        (taken,) = db.execute(
            "SELECT sum(length(determinants) + coalesce(length(predictions), 0)) FROM trials"
        ).fetchone()
    assert said == pytest.approx(taken, rel=0.1)


# -- the command -------------------------------------------------------------------------------


def said(capsys, *arguments):
    """Run the launcher in this process; return its exit code, stdout and stderr."""
    code = launcher.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows_of(out):
    """Return the cells of the table's rows, by the first; only of columns without spaces."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}


def test_it_says_what_each_arm_has_left_and_how_to_run_it(tmp_path, own_cache, capsys):
    path = write_case(tmp_path)
    code, out, _ = said(
        capsys, "plan", path, "--device", "cpu", "--workers", "1", "--set", "scores=[hlr, ior]"
    )
    assert 0 == code
    rows = rows_of(out)
    assert ["6", "0", "6", "2", "60", "about"] == rows["full-hard"][:6]
    assert ["4", "0", "4", "4", "6", "about"] == rows["syn-any"][:6]
    assert ["18", "0", "18", "about"] == rows["all"][:4]
    command = f"run it: ddrank run {path} --set 'scores=[hlr, ior]' --device cpu --workers 1"
    assert command == out.splitlines()[-1]
    assert not own_cache.exists()


def test_without_a_measurement_it_trains_nothing_and_says_nothing_about_time(tmp_path, capsys, monkeypatch):
    def refused(*_):
        raise AssertionError("a training step")

    monkeypatch.setattr(torch.Tensor, "backward", refused)
    monkeypatch.setattr(torch.autograd, "backward", refused)
    code, out, err = said(capsys, "plan", write_case(tmp_path), "--device", "cpu", "--no-measure")
    assert (0, "") == (code, err)
    assert "about" not in out.partition("memory:")[0]
    assert ["6", "0", "6", "2", "60"] == rows_of(out)["full-hard"]


def test_after_the_run_nothing_is_left_and_the_store_is_as_it_was(tmp_path, own_cache, capsys):
    path = write_case(tmp_path, scores=["ior"])
    given = ("--device", "cpu", "--workers", "1")
    assert 0 == said(capsys, "run", path, *given, "--quiet", "--out", tmp_path / "run")[0]
    before = stored(own_cache)
    code, out, _ = said(capsys, "plan", path, *given)
    assert 0 == code
    assert ["8", "8", "0"] == rows_of(out)["all"]
    assert "nothing to train; the scores again: ddrank run" in out
    assert before == stored(own_cache)


def stored(cache):
    with closing(sqlite3.connect(cache / "trials.sqlite")) as db:
        return db.execute("SELECT * FROM trials ORDER BY digest").fetchall()


def test_several_students_have_a_block_each_and_a_total(tmp_path, capsys):
    path, output = write_case(tmp_path, scores=["ior"]), tmp_path / "plan.json"
    config = yaml.safe_load(path.read_text())
    del config["student"]
    config["students"] = [{"use": "convnet", "depth": 1, "width": width} for width in (4, 8)]
    path.write_text(yaml.safe_dump(config))
    given = ("--device", "cpu", "--workers", "1", "--json", output)
    code, out, _ = said(capsys, "plan", path, *given)
    assert 0 == code
    assert "all 2 students: 16 trials, 0 stored, 16 left, about" in out
    record = json.loads(output.read_text())
    assert [8, 8] == [run["left"] for run in record["runs"]]
    totals = [run["seconds"]["median"] for run in record["runs"]]
    assert record["seconds"]["median"] == pytest.approx(sum(totals))
    for run, total in zip(record["runs"], totals, strict=True):
        assert total == pytest.approx(sum(arm["seconds"]["median"] for arm in run["arms"]))
        assert 0 < run["seconds"]["low"] <= total <= run["seconds"]["high"]
    assert ["ddrank", "run", str(path), "--device", "cpu", "--workers", "1"] == record["command"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing argument 'CONFIG'; see 'ddrank plan --help'"),
        (["none.yaml"], "none.yaml: no such file"),
        (["none.yaml", "--json", "none/plan.json"], "--json none/plan.json: cannot write in none"),
        (["none.yaml", "--cohort", "2", "--workers", "2"], "--cohort: trials are trained at once in one"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, "plan", *arguments)
    assert (2, "") == (code, out)
    assert err.startswith(f"error: {message}")
    assert 1 == err.count("\n")
    assert [] == list(tmp_path.iterdir())


class Refusing:
    """An optimiser that cannot be built."""

    def build(self, parameters, learning_rate):
        raise ValueError("not on a Monday")


def test_a_step_that_cannot_be_done_is_found_before_anything_is_timed(tmp_path):
    prepared, counted = prepared_case(tmp_path, scores=["ior"]), []
    first, *others = prepared.plan.arms
    training = attrs.evolve(
        first.training, optimizer=attrs.evolve(first.training.optimizer, component=Refusing())
    )
    arms = (attrs.evolve(first, training=training), *others)
    broken = attrs.evolve(prepared, plan=attrs.evolve(prepared.plan, arms=arms))
    before = look(prepared, ALONE)
    with pytest.raises(ConfigError, match=r"case\.yaml: syn-any: optimizer: not on a Monday"):
        expected(attrs.evolve(before, prepared=broken), ALONE, lambda: counted.append(1), MOMENT)
    assert [] == counted
