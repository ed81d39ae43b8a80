"""`ddrank bench`: what it counts, adds up and looks up; how long anything takes is not asserted."""

from __future__ import annotations

import json
import os
from contextlib import closing

import attrs
import numpy as np
import pytest
import torch
from tiny_case import prepared_case, run_case, write_case
from torch import nn

from ddrank_core.asked import Asked
from ddrank_core.cli import main as launcher
from ddrank_core.cli.bench import text
from ddrank_core.engine.bench import laps as stopwatch
from ddrank_core.engine.bench import pace as paces
from ddrank_core.engine.bench.arithmetic import Peak, forward_flops, training_flops
from ddrank_core.engine.bench.figures import Figures, measure, measurements
from ddrank_core.engine.bench.forecast import forecast, ready_teachers, turns, what_is_left
from ddrank_core.engine.bench.laps import Laps, Spread, summed
from ddrank_core.engine.bench.pace import Pace, PredictionPace, ready_trainer, time_arm
from ddrank_core.engine.bench.synthetic import synthetic_runs
from ddrank_core.engine.bench.timing import Students, time_epochs
from ddrank_core.engine.device import threads_for
from ddrank_core.engine.keys import Keys
from ddrank_core.registry import default_registry
from ddrank_core.store import TrialStore

CPU = torch.device("cpu")
MOMENT = 0.01
"""Seconds to measure for, where the numbers do not matter."""


# -- arithmetic --------------------------------------------------------------------------------


def convnet_3():
    registry = default_registry()
    return registry.load("architecture", "convnet")(depth=3, width=128).build(10, (3, 32, 32))


CONVNET_3_MACS = (
    32 * 32 * 128 * 3 * 9,  # 3,538,944
    16 * 16 * 128 * 128 * 9,  # 37,748,736
    8 * 8 * 128 * 128 * 9,  # 9,437,184
    128 * 4 * 4 * 10,  # 20,480
)
"""Multiplications of a 3x32x32 image in the three convolutions and the linear layer, worked out by hand."""


def test_the_forward_pass_of_convnet_3_is_two_flops_for_each_multiplication():
    assert 50_745_344 == sum(CONVNET_3_MACS)
    assert 2 * 50_745_344 == forward_flops(convnet_3(), (3, 32, 32))


def test_training_takes_three_times_as_many_but_for_the_gradient_of_the_images():
    assert 6 * 50_745_344 - 2 * CONVNET_3_MACS[0] == training_flops(convnet_3(), (3, 32, 32))


def test_a_grouped_convolution_counts_what_its_groups_compute():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(200, 2),
    )
    dense, grouped, linear = 25 * 8 * 3 * 9, 25 * 8 * (8 // 4) * 9, 200 * 2
    assert 2 * (dense + grouped + linear) == forward_flops(network, (3, 5, 5))
    assert 4 * dense + 6 * (grouped + linear) == training_flops(network, (3, 5, 5))


def test_a_transposed_convolution_counts_every_input_pixel_times_its_kernel():
    network = nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.Flatten(), nn.Linear(4 * 10 * 10, 2))
    transposed, linear = 25 * 3 * 4 * 4, 400 * 2
    assert 4 * transposed + 6 * linear == training_flops(network, (3, 5, 5))


def test_counting_leaves_the_global_generator_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2))
    before = torch.get_rng_state()
    training_flops(network, (3, 2, 2))
    assert torch.equal(before, torch.get_rng_state())


# -- laps --------------------------------------------------------------------------------------


def test_a_spread_is_the_median_and_the_quartiles():
    values = [5.0, 1.0, 4.0, 2.5, 9.0, 3.0]
    low, median, high = np.percentile(values, [25, 50, 75])
    assert Spread.of(values) == Spread(median=median, low=low, high=high)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


def test_the_slowest_time_is_the_lowest_rate():
    assert Spread(median=2.0, low=1.0, high=4.0).rate(8.0) == Spread(median=4.0, low=2.0, high=8.0)


def test_spreads_add_up_end_by_end():
    assert summed([Spread(2.0, 1.0, 4.0), Spread(3.0, 3.0, 5.0).times(2)]) == Spread(8.0, 7.0, 14.0)


@pytest.fixture
def clock(monkeypatch):
    """Give a clock that stands still until it is moved."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_laps_begin_after_the_warm_up_and_end_with_the_budget(clock):
    laps = Laps(CPU, budget=10.0, least=3)
    laps.start()
    for seconds in (9.0, 4.0, 1.0, 4.0, 3.0):
        assert not laps.enough
        clock.now += seconds
        laps.tick()
    # 9 s of a first repetition are warm-up enough; 4 + 1 + 4 + 3 use up the budget.
    assert laps.enough
    assert [4.0, 1.0, 4.0, 3.0] == laps.seconds


def test_short_repetitions_share_a_lap(clock):
    laps = Laps(CPU, budget=0.0, least=1, warm_up=0)
    laps.start()
    for _ in range(4):
        assert not laps.enough
        clock.now += 0.25 * stopwatch.SHORTEST
        laps.tick()
    assert [0.25 * stopwatch.SHORTEST] == laps.seconds


def test_a_repetition_far_longer_than_the_budget_is_timed_once(clock):
    laps = Laps(CPU, budget=1.0, warm_up=0)
    laps.start()
    clock.now += 60.0
    assert laps.tick()
    assert [60.0] == laps.seconds


def test_a_training_shorter_than_the_laps_begins_anew(tmp_path):
    prepared = prepared_case(tmp_path, "recipe.epochs=1")
    trainer = ready_trainer(prepared)
    arm = prepared.plan.trained[1]
    pace = time_arm(trainer, arm, Asked(workers=1), MOMENT)
    assert (pace.epochs, pace.images, pace.timed_images) == (1, 6, 6)
    assert pace.laps >= 1


def test_an_epoch_of_many_steps_is_timed_by_its_first(tmp_path, clock):
    """Each image takes a second by the clock, which the network moves."""
    prepared = prepared_case(tmp_path)
    trainer = ready_trainer(prepared)
    training = attrs.evolve(prepared.plan.trained[0].training, batch_size=6)
    trial = prepared.plan.first_trials(
        prepared.plan.trained[0], prepared.plan.rungs[0], prepared.plan.candidates
    )[0]

    def make():
        network = trainer.student(trial)

        def take(_module, inputs):
            clock.now += len(inputs[0])

        network.register_forward_pre_hook(take)
        return Students(networks=[network], data=[trainer.material.full], rates=[0.01], seeds=[0])

    found = time_epochs(make, training, trainer.setting, budget=50.0)
    # A step of 6 images takes 6 s; a quarter of the budget has room for two of the epoch's ten.
    assert (60, 12) == (found.images, found.timed_images)
    assert {60.0} == set(found.seconds)


# -- what is left ------------------------------------------------------------------------------

EPOCH, START, IMAGE = 1.0, 0.5, 0.01
TEST, VALIDATION = 30, 12
"""The tiny case tests on 10 images of each of 3 classes, and sets aside a fifth of 20 to choose by."""


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


def left_of(prepared, cache):
    """Return what a run of one process would find to do, by arm."""
    trainer, keys = ready_trainer(prepared, ()), Keys(prepared)
    with threads_for(prepared.device, prepared.step_activations), closing(TrialStore(cache)) as store:
        return {
            left.arm.name: left for left in what_is_left(trainer, keys, store, ready_teachers(prepared, keys))
        }


def expected(prepared, cache, workers=1, cohort=1, alone=None):
    """Return the expected seconds, by arm."""
    trainer, left = ready_trainer(prepared, ()), left_of(prepared, cache).values()
    pace = paces_of(prepared, workers, cohort, alone)
    found = forecast(trainer, tuple(left), pace, pace_of_tests(workers), ())
    assert found.seconds.median == pytest.approx(sum(arm.seconds.median for arm in found.arms))
    return {arm.arm: arm.seconds.median for arm in found.arms}


def test_an_arm_takes_its_trials_their_validation_and_the_tests_of_the_chosen(tmp_path):
    # Two rates and two repeats: four trials of four epochs; the better rate's two are tested.
    trial = START + 4 * EPOCH + VALIDATION * IMAGE
    found = expected(prepared_case(tmp_path), tmp_path / "cache")
    assert found["syn-hard"] == pytest.approx(4 * trial + 2 * TEST * IMAGE)
    assert found["syn-hard"] == pytest.approx(19.08)


def test_the_full_data_are_searched_on_a_part_and_trained_on_the_whole(tmp_path):
    # Two epochs; four trials on 48 images, then two on all 60, which are tested at once.
    search = START + 2 * EPOCH + VALIDATION * IMAGE
    final = START + 2 * EPOCH * 60 / 48 + TEST * IMAGE
    found = expected(prepared_case(tmp_path), tmp_path / "cache")
    assert found["full-hard"] == pytest.approx(4 * search + 2 * final)
    assert found["full-hard"] == pytest.approx(17.08)


def test_workers_share_the_trials_and_the_tests(tmp_path):
    # Four trials on three processes are two turns; two tests are one.
    trial = START + 4 * EPOCH + VALIDATION * IMAGE
    found = expected(prepared_case(tmp_path), tmp_path / "cache", workers=3)
    assert found["syn-hard"] == pytest.approx(2 * trial + 1 * TEST * IMAGE)
    assert (3, 2, 1, 0) == (turns(5, 2), turns(4, 2), turns(1, 2), turns(0, 2))


def test_a_cohort_shares_its_epochs_alone(tmp_path):
    # One cohort of four; then, on the full data, one of two: a third of the way from one trial to four.
    beside = START + VALIDATION * IMAGE
    found = expected(prepared_case(tmp_path), tmp_path / "cache", cohort=4, alone=0.4)
    assert found["syn-hard"] == pytest.approx(4 * EPOCH + 4 * beside + 2 * TEST * IMAGE)
    pair = 0.4 + (EPOCH - 0.4) / 3
    search = 2 * EPOCH + 4 * beside
    final = 2 * pair * 60 / 48 + 2 * (START + TEST * IMAGE)
    assert found["full-hard"] == pytest.approx(search + final)


def test_a_cohort_that_does_not_hold_all_is_followed_by_a_smaller_one(tmp_path):
    beside = START + VALIDATION * IMAGE
    found = expected(prepared_case(tmp_path), tmp_path / "cache", cohort=3, alone=0.4)
    assert found["syn-hard"] == pytest.approx(4 * EPOCH + 4 * 0.4 + 4 * beside + 2 * TEST * IMAGE)


def test_the_older_protocol_tests_as_it_trains(tmp_path):
    protocol = {"use": "ddranking-0.2", "repeats": 2, "learning_rates": [0.01, 0.1], "test_interval": 3}
    found = expected(prepared_case(tmp_path, protocol=protocol), tmp_path / "cache")
    # Nothing is set aside; epochs 3 and 4 of each of four trials are tested.
    assert found["syn-hard"] == pytest.approx(4 * (START + 4 * EPOCH + 2 * TEST * IMAGE))


def test_halving_trains_fewer_rates_in_later_repeats(tmp_path):
    protocol = {
        "use": "strict",
        "repeats": 4,
        "learning_rates": [0.01, 0.02, 0.05, 0.1],
        "validation": 0.2,
        "search": "halving",
    }
    prepared = prepared_case(tmp_path, protocol=protocol)
    left = left_of(prepared, tmp_path / "cache")["syn-hard"]
    # Repeat 1 of four rates, repeat 2 of two, repeats 3 and 4 of one.
    assert [4, 2, 2] == [batch.missing for batch in left.batches]
    assert (8, 4) == (left.missing, left.tests)


def test_trials_of_the_forecast_are_those_of_the_plan(tmp_path):
    prepared = prepared_case(tmp_path)
    assert prepared.plan.count() == sum(left.planned for left in left_of(prepared, tmp_path / "c").values())


# -- what is finished --------------------------------------------------------------------------


class Stopped(Exception):
    """A run that is interrupted."""


def stop_after(count):
    def emit(hook, event):
        if hook == "ddrank_trial_finished" and event.done == count:
            raise Stopped

    return emit


@pytest.mark.parametrize("search", ["grid", "halving"])
def test_of_a_finished_run_nothing_is_left(tmp_path, search):
    prepared = prepared_case(tmp_path, f"protocol.search={search}")
    run_case(prepared, tmp_path / "cache")
    left = left_of(prepared, tmp_path / "cache")
    assert {(0, 0, 0)} == {(one.missing, one.again, one.tests) for one in left.values()}
    assert {0.0} == set(expected(prepared, tmp_path / "cache").values())


def test_of_an_interrupted_run_the_rest_is_left(tmp_path):
    prepared = prepared_case(tmp_path)
    with pytest.raises(Exception, match="Stopped"):
        run_case(prepared, tmp_path / "cache", stop_after(9))
    left = left_of(prepared, tmp_path / "cache")
    # Six of full-hard and three of syn-hard are done.
    assert (0, 0) == (left["full-hard"].missing, left["full-hard"].tests)
    assert (1, 2) == (left["syn-hard"].missing, left["syn-hard"].tests)
    assert (4, 2) == (left["syn-any"].missing, left["syn-any"].tests)
    trial = START + 4 * EPOCH + VALIDATION * IMAGE
    assert expected(prepared, tmp_path / "cache")["syn-hard"] == pytest.approx(trial + 2 * TEST * IMAGE)


def test_of_a_search_that_was_interrupted_all_final_trials_are_left(tmp_path):
    prepared = prepared_case(tmp_path)
    with pytest.raises(Exception, match="Stopped"):
        run_case(prepared, tmp_path / "cache", stop_after(3))
    left = left_of(prepared, tmp_path / "cache")["full-hard"]
    assert [1, 2] == [batch.missing for batch in left.batches]


def test_trials_that_were_chosen_but_not_tested_are_trained_again(tmp_path):
    prepared = prepared_case(tmp_path)
    with pytest.raises(Exception, match="Stopped"):
        run_case(prepared, tmp_path / "cache", stop_after(10))
    left = left_of(prepared, tmp_path / "cache")["syn-hard"]
    assert (0, 2, 2) == (left.missing, left.again, left.tests)
    trial = START + 4 * EPOCH + VALIDATION * IMAGE
    assert expected(prepared, tmp_path / "cache")["syn-hard"] == pytest.approx(2 * trial + 2 * TEST * IMAGE)


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


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Keep trials and teachers in a folder of the test's own, and measure for a moment only."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paces, "BUDGET", MOMENT)
    return tmp_path / "cache"


def test_a_teacher_and_what_it_labels_are_counted_until_they_are_there(tmp_path, own_cache):
    prepared = prepared_case(tmp_path, **TEACHERS)
    keys = Keys(prepared)
    assert (None,) == ready_teachers(prepared, keys)
    before = left_of(prepared, own_cache)
    assert (4, 4) == (before["syn-any"].missing, before["rdm-any"].missing)
    run_case(prepared, own_cache)
    (teacher,) = ready_teachers(prepared, keys)
    assert "cache" == teacher.source
    after = left_of(prepared, own_cache)
    assert {0} == {one.missing + one.tests for one in after.values()}


def count_calls(counted):
    def done():
        counted.append(1)

    return done


def measured(prepared, at_once=None, done=lambda: None):
    return measure([prepared], at_once or Asked(workers=1), done, forecast=True, budget=MOMENT)


def test_the_forecast_of_a_run_has_its_teachers_training_and_test(tmp_path, own_cache):
    prepared, counted = prepared_case(tmp_path, **TEACHERS), []
    found = measured(prepared, done=count_calls(counted))
    assert measurements([prepared], forecast=True) == len(counted)
    ((teacher,), arms) = found.forecast.teachers, found.forecast.arms
    assert not teacher.trained
    total = teacher.seconds.median + sum(arm.seconds.median for arm in arms)
    assert found.forecast.seconds.median == pytest.approx(total)
    assert prepared.plan.count() == sum(arm.trials for arm in arms)
    assert {0} == {arm.finished for arm in arms}
    run_case(prepared, own_cache)
    again = measured(prepared)
    assert again.forecast.teachers[0].trained
    assert {(arm.trials, 0.0) for arm in arms} == {
        (a.finished, a.seconds.median) for a in again.forecast.arms
    }


def test_teachers_that_are_asked_about_views_are_part_of_the_arithmetic(tmp_path):
    prepared = prepared_case(tmp_path, **TEACHERS)
    by_name = {arm.name: arm for arm in prepared.plan.trained}
    trainer = ready_trainer(prepared)
    hard, soft = (
        time_arm(trainer, by_name[name], Asked(workers=1), MOMENT) for name in ("syn-hard", "syn-any")
    )
    # The teacher is the same network: one convolution of 8 channels on 8x8, and 8 * 4 * 4 to 3 classes.
    convolution, linear = 8 * 8 * 8 * 9, 128 * 3
    assert 4 * convolution + 6 * linear == hard.flops_per_image
    assert 2 * (convolution + linear) == soft.flops_per_image - hard.flops_per_image


# -- measuring ---------------------------------------------------------------------------------


def test_measuring_leaves_threads_generators_and_the_store_as_they_were(tmp_path, own_cache):
    prepared = prepared_case(tmp_path, scores=["ior"])
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    found = measured(prepared)
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert ["syn-any", "rdm-any"] == [pace.name for pace in found.trainings]
    assert {4} == {left.missing for left in left_of(prepared, own_cache).values()}


def test_a_cohort_is_timed_whole_and_beside_it_one_of_its_trials(tmp_path):
    prepared = prepared_case(tmp_path, scores=["ior"])
    pace = time_arm(ready_trainer(prepared), prepared.plan.trained[0], Asked(workers=1, cohort=3), MOMENT)
    assert (1, 3, 3) == (pace.workers, pace.cohort, pace.at_once)
    assert pace.alone_seconds is not None
    assert pace.trial_epoch_seconds.median == pytest.approx(pace.epoch_seconds.median / 3)
    assert pace.images_per_second.median == pytest.approx(3 * 6 / pace.epoch_seconds.median)


@pytest.mark.skipif(torch.cuda.is_available() or not hasattr(os, "fork"), reason="workers are forked")
def test_workers_are_timed_side_by_side(tmp_path):
    prepared = prepared_case(tmp_path, scores=["ior"])
    pace = time_arm(ready_trainer(prepared), prepared.plan.trained[0], Asked(workers=2), MOMENT)
    assert (2, 1, 2) == (pace.workers, pace.cohort, pace.at_once)
    # One at least from each process.
    assert pace.laps >= 2


def test_without_a_config_convnet_3_is_measured_at_three_sizes(tmp_path):
    (runs,) = synthetic_runs(tmp_path, default_registry(), CPU)
    assert [10, 100, 500] == [len(run.distilled.labels) for run in runs]
    assert {((3, 32, 32), 10, 10_000)} == {
        (run.real.image_shape, run.real.num_classes, len(run.real.test_labels)) for run in runs
    }
    assert [("syn-hard",)] * 3 == [tuple(arm.name for arm in run.plan.trained) for run in runs]
    assert {50} == {run.plan.count() for run in runs}


# -- the command -------------------------------------------------------------------------------


def said(capsys, *arguments):
    """Run the launcher in this process; return its exit code, stdout and stderr."""
    code = launcher.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_figures_are_written_as_json(tmp_path, own_cache, capsys):
    path, output = write_case(tmp_path), tmp_path / "figures.json"
    code, out, _ = said(
        capsys, "bench", str(path), "--device", "cpu", "--workers", "1", "--set", "scores=[ior]",
        "--json", str(output),
    )  # fmt: skip
    assert 0 == code
    record = json.loads(output.read_text())
    (run,) = record["runs"]
    assert ("case", "fp32", "convnet") == (run["name"], run["precision"], run["network"])
    assert ["syn-any", "rdm-any"] == [training["name"] for training in run["trainings"]]
    for training in run["trainings"]:
        assert 0 < training["epoch_seconds"]["low"] <= training["epoch_seconds"]["high"]
        reached = training["flops_per_second"]["median"] / run["peak"]["flops_per_second"]["median"]
        assert training["share_of_peak"] == pytest.approx(reached)
    arms = run["forecast"]["arms"]
    assert [4, 4] == [arm["trials"] for arm in arms]
    assert run["forecast"]["seconds"]["median"] == pytest.approx(sum(a["seconds"]["median"] for a in arms))
    rows = [line.split() for line in out.splitlines()]
    assert ["syn-any", "4", "0"] in [row[:3] for row in rows]
    assert ["all", "8", "0"] in [row[:3] for row in rows]
    assert "torch" in record["versions"]


def test_every_student_of_a_config_is_measured(tmp_path, own_cache, capsys):
    students = [{"use": "convnet", "depth": 1, "width": width} for width in (4, 8)]
    path = write_case(tmp_path)
    lines = path.read_text().splitlines()
    kept = [
        line for line in lines if not line.startswith(("student:", "  depth", "  use: convnet", "  width"))
    ]
    path.write_text("\n".join([*kept, f"students: {json.dumps(students)}", "scores: [ior]"]))
    code, out, _ = said(capsys, "bench", str(path), "--device", "cpu", "--workers", "1")
    assert 0 == code
    assert 2 == out.count("matmul peak")
    assert "expected for all 2 students: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "recipe.epochs=1"], "--set needs a CONFIG; see 'ddrank bench --help'"),
        (["none.yaml"], "none.yaml: no such file"),
        (["--json", "none/figures.json"], "--json none/figures.json: cannot write in none"),
        (["--json", "."], "--json .: is a folder; name a file"),
        (
            ["--cohort", "2", "--workers", "2"],
            "--cohort: trials are trained at once in one process; leave out",
        ),
        (["--device", "tpu"], "--device tpu: must be auto, cpu, cuda or cuda:0, cuda:1, ..."),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, "bench", *arguments)
    assert (2, "") == (code, out)
    assert err.startswith(f"error: {message}")
    assert 1 == err.count("\n")
    assert [] == list(tmp_path.iterdir())


def test_a_component_that_fails_is_one_line(tmp_path, own_cache, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("no\nsuch kernel")

    path = write_case(tmp_path)
    monkeypatch.setattr(paces, "time_epochs", broken)
    code, _, err = said(capsys, "bench", str(path), "--device", "cpu", "--workers", "1")
    assert 1 == code
    assert f"error: {path}: the measurement broke off: RuntimeError: no" == err.splitlines()[-1]


def test_a_person_reads_rates_shares_and_quartiles():
    training = Pace(
        name="syn-any",
        images=100,
        timed_images=100,
        batch_size=256,
        epochs=1000,
        workers=2,
        cohort=1,
        epoch_seconds=Spread(0.5, 0.4, 1.0),
        alone_seconds=None,
        start_seconds=0.0,
        flops_per_image=3e8,
        laps=9,
    )
    figures = Figures(
        name="mine",
        device="cpu (2 processes of 1 thread)",
        precision="fp32",
        network="convnet",
        image_shape=(3, 32, 32),
        num_classes=10,
        peak=Peak(flops_per_second=Spread(2.4e11, 2e11, 2.5e11), side=1024, workers=2, threads=1),
        trainings=(training,),
        test=pace_of_tests(2),
        forecast=None,
    )
    lines = text([figures], None).splitlines()
    assert [
        "convnet, 3x32x32, 10 classes, fp32, on cpu (2 processes of 1 thread)",
        "matmul peak: 240 (200 to 250) GFLOP/s, 1024 x 1024, 2 processes of 1 thread",
        "",
        "training  images  at once  ms per trial-epoch  images/s          GFLOP/s  of peak",
        # Two trials of 100 images share half a second; 400 images a second, of 0.3 GFLOPs each.
        "syn-any   100     2        250 (200 to 500)    400 (200 to 500)  120      50.0 %",
        "",
        "test: 200 (200 to 200) images/s, 2 at once",
    ] == lines[:7]
    assert not any("busy" in line for line in lines)
    assert any("busy before (load 3.0," in line for line in text([figures], 3.0).splitlines())
