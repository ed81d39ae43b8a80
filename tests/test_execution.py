"""Students that are compiled, or whose channels lie last: the same numbers, and chosen only where it pays."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys

import attrs
import pytest
import torch
from test_cohort import (
    CLASSES,
    SEEDS,
    alone,
    assert_close,
    images_of,
    networks_of,
    one_thread,  # noqa: F401  # a fixture
    setting_of,
    state,
    teacher_of,
    training_of,
)
from tiny_case import prepared_case, run_case

from ddrank_core.engine.bench import choose as choosing
from ddrank_core.engine.bench.choose import COMPILED, Choice, choose
from ddrank_core.engine.execution import AS_IT_IS, Execution, Resident
from ddrank_core.engine.run import execute
from ddrank_core.engine.train import predict, train
from ddrank_core.engine.trial import Trainer
from ddrank_core.errors import RunFailed
from ddrank_core.store import TrialStore

LAST = Execution(channels_last=True)

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch.compile needs a C++ compiler",
)


def run(prepared, cache, **how):
    store = TrialStore(cache)
    try:
        return execute(prepared, store, lambda hook, event: None, **how)
    finally:
        store.close()


# -- the same numbers --------------------------------------------------------------------------


def trained_by_turns(networks, data, training, setting, way):
    """Return what each network becomes when all are trained, one after the other, in the same resident."""
    resident = Resident(way.ready(copy.deepcopy(networks[0]))) if way.compiled else None
    setting, states = attrs.evolve(setting, execution=way), []
    for network, images, rate, seed in zip(networks, data, (0.01, 0.05, 0.02), SEEDS, strict=True):
        student = resident.become(network) if resident else way.ready(network)
        assert train(student, images, training, rate, seed, setting, lambda epoch: None)
        states.append(state(student))
    return states


@pytest.mark.parametrize(
    "architecture",
    [
        {"use": "convnet", "depth": 2, "width": 8},
        {"use": "convnet", "depth": 2, "width": 8, "norm": "batch", "pooling": "max"},
        {"use": "convnet", "depth": 1, "width": 8, "norm": "layer", "activation": "leakyrelu"},
        {"use": "mlp"},
        {"use": "lenet"},
    ],
    ids=["convnet", "batch-norm", "layer-norm", "mlp", "lenet"],
)
def test_with_channels_last_a_student_becomes_what_it_becomes_as_it_is(architecture):
    shape = (3, 28, 28) if architecture["use"] == "lenet" else (3, 8, 8)
    networks = networks_of(architecture, shape=shape)
    data, training, setting = [images_of(shape=shape)] * len(SEEDS), training_of(), setting_of()
    expected, _ = alone(copy.deepcopy(networks), data, training, setting)
    assert_close(expected, trained_by_turns(networks, data, training, setting, LAST))


@needs_compiler
def test_compiled_students_become_what_they_become_as_they_are():
    architecture = {"use": "convnet", "depth": 2, "width": 8, "norm": "batch"}
    networks, data = networks_of(architecture), [images_of()] * len(SEEDS)
    # 7 epochs of three steps; the last step of each has two images, a shape of its own.
    training, setting = training_of(labels="teacher", loss="kl"), setting_of(teacher_of())
    expected, _ = alone(copy.deepcopy(networks), data, training, setting)
    assert_close(expected, trained_by_turns(networks, data, training, setting, COMPILED))


@needs_compiler
def test_a_compiled_student_draws_its_dropout_as_it_does_uncompiled():
    def network():
        torch.manual_seed(0)
        first, last = torch.nn.Linear(3 * 8 * 8, 16), torch.nn.Linear(16, 3)
        return torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.Dropout(0.5), last).double()

    data, training = [images_of()] * len(SEEDS), training_of()
    networks = [network() for _ in SEEDS]
    expected, _ = alone(copy.deepcopy(networks), data, training, setting_of())
    assert_close(expected, trained_by_turns(networks, data, training, setting_of(), Execution(compiled=True)))


@pytest.mark.parametrize(
    ("way", "sizes"), [(AS_IT_IS, [64, 64, 22]), (Execution(compiled=True), [64, 64, 64])]
)
def test_a_test_pass_shows_a_compiled_network_batches_of_one_size_only(way, sizes):
    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, images):
            self.seen.append(len(images))
            return images.mean(dim=(2, 3))

    data = images_of(count=150, soft=False, shape=(3, 32, 32))
    data = attrs.evolve(data, images=data.images.float())
    network = Watching()
    found = predict(network, data, attrs.evolve(setting_of(), execution=way))
    assert sizes == network.seen
    assert torch.equal(data.images.mean(dim=(2, 3)).argmax(dim=1), found)
    assert data.num_classes == CLASSES


@needs_compiler
def test_of_a_container_of_torchs_own_one_whole_graph_is_made():
    from torch._dynamo.utils import counters

    network = networks_of({"use": "convnet", "depth": 1, "width": 4})[0].float()
    assert type(network) is torch.nn.Sequential
    counters.clear()
    student = Resident(network).become(network)
    student(torch.randn(2, 3, 8, 8))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


# -- in a run ----------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.skipif(torch.cuda.is_available(), reason="workers are forked")
def test_a_run_compiles_in_its_workers_and_says_so(tmp_path):
    prepared = prepared_case(tmp_path, scores=["ior"])
    plain = run(prepared, tmp_path / "plain", workers=2, compile="off")
    found = run(prepared, tmp_path / "compiled", workers=2, compile="on")
    assert {"alone, compiled, channels last"} == {trial.how for trial in found.trials}
    assert {"alone, as it is"} == {trial.how for trial in plain.trials}
    assert found.device.endswith("students compiled, channels last")
    for one, other in zip(plain.trials, found.trials, strict=True):
        assert (one.arm, one.seed, one.learning_rate) == (other.arm, other.seed, other.learning_rate)
        assert one.validation_accuracy == pytest.approx(other.validation_accuracy, abs=0.1)
    # The store knows how each trial was computed, and reuses it however this run would have done it.
    again = run(prepared, tmp_path / "compiled", workers=2, compile="off")
    assert all(trial.reused for trial in again.trials)
    assert {"alone, compiled, channels last"} == {trial.how for trial in again.trials}


def test_without_a_compiler_on_fails_in_one_line(tmp_path, monkeypatch):
    refuse_to_compile(monkeypatch)
    with pytest.raises(RunFailed, match=r"--compile on: the student cannot be compiled: .*no compiler here"):
        run(prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache", compile="on")


def refuse_to_compile(monkeypatch):
    def refuse(function, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", refuse)


@needs_compiler
def test_a_process_that_has_compiled_is_not_forked():
    """Run apart: what is compiled in this process would keep the other tests from forking."""
    script = """
import torch
from ddrank_core.engine.execution import Resident
from ddrank_core.engine.workers import count_workers
cpu, network = torch.device("cpu"), torch.nn.Linear(2, 2)
print(count_workers(3, cpu, 1))
Resident(network)
print(count_workers(3, cpu, 1))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = (
        ["3", "1"] if sys.platform.startswith("linux") and not torch.cuda.is_available() else ["1", "1"]
    )
    assert expected == done.stdout.split()


# -- the choice --------------------------------------------------------------------------------


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    return Trainer(prepared_case(tmp_path, scores=["ior"]))


def kept(tmp_path):
    return list((tmp_path / "cache").glob("executions/*"))


def test_a_short_run_goes_on_as_it_is_and_leaves_nothing_behind(trainer, tmp_path):
    assert choose(trainer, "auto", trainer.total_work(), 2) == Choice(execution=AS_IT_IS)
    assert [] == kept(tmp_path)


def test_a_long_run_tries_the_ways(trainer, tmp_path, monkeypatch):
    refuse_to_compile(monkeypatch)
    found = choose(trainer, "auto", 1e12, 2)
    assert "Students were not compiled: " in found.note
    assert "no compiler here" in found.note or "no C++ compiler" in found.note
    assert ["as it is", "channels last"] == [way for way, _ in found.milliseconds]
    times = dict(found.milliseconds)
    assert (found.execution == LAST) == (times["channels last"] * 1.05 <= times["as it is"])
    # Who installs a compiler is not held to what was found without one.
    assert [] == kept(tmp_path)


def test_a_choice_is_kept_and_not_measured_again(trainer, tmp_path, monkeypatch):
    measured = Choice(execution=LAST, milliseconds=(("as it is", 2.0), ("channels last", 1.0)))
    monkeypatch.setattr(choosing, "_measured", lambda steps: measured)
    assert measured == choose(trainer, "auto", 1e12, 2)
    (file,) = kept(tmp_path)
    monkeypatch.setattr(choosing, "_measured", None)
    assert measured == choose(trainer, "auto", 1e12, 2)
    # Half a file is none.
    file.write_text(file.read_text()[:20])
    with pytest.raises(TypeError):
        choose(trainer, "auto", 1e12, 2)


def test_a_compiled_choice_is_forgotten_where_the_compiler_is_gone(trainer, tmp_path, monkeypatch):
    compiled, plain = Choice(execution=COMPILED), Choice(execution=AS_IT_IS, fault="no C++ compiler")
    monkeypatch.setattr(choosing, "_measured", lambda steps: compiled)
    choose(trainer, "auto", 1e12, 2)
    monkeypatch.setattr(choosing, "_measured", lambda steps: plain)
    monkeypatch.setattr(choosing.shutil, "which", lambda name: None)
    assert plain == choose(trainer, "auto", 1e12, 2)


def test_more_processes_make_a_run_shorter(trainer, monkeypatch):
    tried = []
    monkeypatch.setattr(choosing, "_measured", lambda steps: tried.append(1) or Choice(execution=AS_IT_IS))
    million = 1e6 * trainer.step_work(4)  # Steps of a millisecond or so: a second for a thousand processes.
    choose(trainer, "auto", million, 1000)
    assert [] == tried
    choose(trainer, "auto", 100 * million, 1)
    assert [1] == tried


class Masked(torch.nn.Module):
    """Draws a mask that is no parameter and no buffer: a compiled student keeps the first trial's."""

    def __init__(self):
        super().__init__()
        self.mask, self.linear = torch.rand(64), torch.nn.Linear(64, 3)

    def forward(self, images):
        return self.linear(images.flatten(1) * self.mask)


class Viewing(torch.nn.Module):
    """Does not bear channels last: `view` wants its pixels side by side."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Linear(256, 3)

    def forward(self, images):
        features = self.conv(images)
        return self.linear(features.view(len(features), -1))


def with_student(trainer, monkeypatch, network):
    student = type("Student", (), {"build": lambda self, num_classes, image_shape: network()})()
    chosen = trainer.prepared.config.student
    config = attrs.evolve(trainer.prepared.config, student=attrs.evolve(chosen, component=student))
    monkeypatch.setattr(trainer, "prepared", attrs.evolve(trainer.prepared, config=config))
    return choosing._Steps(trainer, trainer.plan.trained[0])


@needs_compiler
def test_a_student_that_carries_something_of_the_trial_before_is_not_compiled(trainer, monkeypatch):
    steps = with_student(trainer, monkeypatch, Masked)
    with pytest.raises(ValueError, match="it computes something else"):
        steps.compare(Execution(compiled=True))


def test_a_student_that_does_not_bear_channels_last_goes_on_without(trainer, monkeypatch):
    steps = with_student(trainer, monkeypatch, Viewing)
    refuse_to_compile(monkeypatch)
    found = choosing._measured(steps)
    assert ["as it is"] == [way for way, _ in found.milliseconds]
    assert AS_IT_IS == found.execution


def test_off_is_not_measured(trainer, tmp_path):
    assert choose(trainer, "off", 1e12, 2) == Choice(execution=AS_IT_IS)
    assert [] == kept(tmp_path)


def test_what_trains_in_cohorts_is_not_compiled(tmp_path, monkeypatch):
    asked = []

    def note(trainer, asked_for, work, processes):
        asked.append(asked_for)
        return Choice(execution=AS_IT_IS)

    monkeypatch.setattr(
        "ddrank_core.engine.executors.local.choose",
        lambda trainer, asked, work, processes: note(trainer, asked, work, processes),
    )
    run(prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache", cohort=3)
    assert ["off"] == asked


def test_only_what_is_missing_counts_as_work(tmp_path, monkeypatch):
    works = []

    def note(trainer, asked, work, processes):
        works.append((work, trainer.total_work()))
        return Choice(execution=AS_IT_IS)

    monkeypatch.setattr("ddrank_core.engine.executors.local.choose", note)
    one, two = ["ior"], ["ior", "hlr"]
    full = {"accuracy": 0.9, "source": "a table"}
    run(prepared_case(tmp_path, scores=one, full_data=full), tmp_path / "cache")
    (left, total), works[:] = works[0], []
    assert left == pytest.approx(total)
    # The arms of IOR are in the store; that of HLR is not.
    run(prepared_case(tmp_path, scores=two, full_data=full), tmp_path / "cache")
    ((left, total),) = works
    assert 0 < left < 0.5 * total


def test_a_finished_run_chooses_nothing(tmp_path, monkeypatch):
    prepared = prepared_case(tmp_path, scores=["ior"])
    run_case(prepared, tmp_path / "cache")
    monkeypatch.setattr("ddrank_core.engine.executors.local.choose", None)
    assert all(trial.reused for trial in run_case(prepared, tmp_path / "cache").trials)
