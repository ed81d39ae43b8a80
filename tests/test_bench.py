"""`ddrank bench`: what it counts and times; how long anything takes is not asserted."""

from __future__ import annotations

import json
import os

import attrs
import numpy as np
import pytest
import torch
from tiny_case import prepared_case, write_case
from torch import nn

from ddrank_core.asked import Asked
from ddrank_core.cli import main as launcher
from ddrank_core.cli.bench import text
from ddrank_core.engine.bench import laps as stopwatch
from ddrank_core.engine.bench import pace as paces
from ddrank_core.engine.bench.arithmetic import Peak, forward_flops, training_flops
from ddrank_core.engine.bench.figures import Figures, measure, measurements
from ddrank_core.engine.bench.laps import Laps, Spread, summed
from ddrank_core.engine.bench.pace import Pace, PredictionPace, ready_trainer, time_arm
from ddrank_core.engine.bench.synthetic import synthetic_runs
from ddrank_core.engine.bench.timing import Students, time_epochs
from ddrank_core.registry import default_registry

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


# -- measuring ---------------------------------------------------------------------------------

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
    """Keep what is written in a folder of the test's own, and measure for a moment only."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paces, "BUDGET", MOMENT)
    return tmp_path / "cache"


def measured(prepared, done=lambda: None):
    return measure([prepared], Asked(workers=1), done, budget=MOMENT)


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


def test_measuring_leaves_threads_and_generators_as_they_were_and_stores_nothing(tmp_path, own_cache):
    prepared, counted = prepared_case(tmp_path, scores=["ior"]), []
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    found = measured(prepared, lambda: counted.append(1))
    assert measurements([prepared]) == len(counted)
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert ["syn-any", "rdm-any"] == [pace.name for pace in found.trainings]
    assert not own_cache.exists()


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
    assert ["syn-any", "6", "1"] in [line.split()[:3] for line in out.splitlines()]
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
        name=None,
        device="cpu (2 processes of 1 thread)",
        precision="fp32",
        network="convnet",
        image_shape=(3, 32, 32),
        num_classes=10,
        peak=Peak(flops_per_second=Spread(2.4e11, 2e11, 2.5e11), side=1024, workers=2, threads=1),
        trainings=(training,),
        test=PredictionPace(
            name="test", timed_images=30, workers=2, image_seconds=Spread(0.01, 0.01, 0.01), laps=1
        ),
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
