"""Students that are compiled, or whose channels lie last: the same numbers, and chosen only where it pays."""

from __future__ import annotations

import copy
import json
import shutil

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


def test_a_test_pass_shows_a_network_batches_of_one_size_only():
    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, images):
            self.seen.append(len(images))
            return images.mean(dim=(2, 3))

    data = attrs.evolve(images_of(count=150, soft=False, shape=(3, 32, 32)))
    data = attrs.evolve(data, images=data.images.float())
    network = Watching()
    found = predict(network, data, setting_of())
    assert [64, 64, 64] == network.seen
    assert torch.equal(data.images.mean(dim=(2, 3)).argmax(dim=1), found)
    assert data.num_classes == CLASSES


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
    with pytest.raises(RunFailed, match="no compiler here"):
        run(prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache", compile="on")


def refuse_to_compile(monkeypatch):
    def compile_(self, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)


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


def test_a_long_run_tries_the_ways_and_keeps_the_choice(trainer, tmp_path, monkeypatch):
    refuse_to_compile(monkeypatch)
    found = choose(trainer, "auto", 1e12, 2)
    assert "Students were not compiled: RuntimeError: no compiler here." == found.note
    assert ["as it is", "channels last"] == [way for way, _ in found.milliseconds]
    times = dict(found.milliseconds)
    assert (found.execution == LAST) == (times["channels last"] * 1.05 <= times["as it is"])
    (file,) = kept(tmp_path)
    # Nothing is measured a second time: what was kept is what comes back.
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "compiled": True, "channels_last": True, "fault": None}))
    assert choose(trainer, "auto", 1e12, 2).execution == COMPILED
    # Half a file is none.
    file.write_text(file.read_text()[:20])
    assert choose(trainer, "auto", 1e12, 2).note == found.note


def test_more_processes_make_a_run_shorter(trainer, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(choosing, "_measured", lambda steps: tried.append(1) or Choice(execution=AS_IT_IS))
    steps = 1e6  # Of a millisecond or so: a quarter of an hour for one process, a second for a thousand.
    choose(trainer, "auto", steps * trainer.step_work(trainer.plan.trained[0]), 1000)
    assert [] == tried
    choose(trainer, "auto", 100 * steps * trainer.step_work(trainer.plan.trained[0]), 1)
    assert [1] == tried


def test_a_way_that_computes_something_else_is_not_taken(trainer, monkeypatch):
    def wrong(network):
        network.register_forward_hook(lambda module, inputs, logits: logits * 1.01)
        return type("Wrong", (), {"become": lambda self, fresh: network})()

    monkeypatch.setattr(choosing, "Resident", wrong)
    found = choose(trainer, "auto", 1e12, 2)
    assert not found.execution.compiled
    assert "it computes something else" in found.note


@pytest.mark.parametrize(("asked", "expected"), [("on", COMPILED), ("off", AS_IT_IS)])
def test_who_asks_is_not_measured(trainer, tmp_path, asked, expected):
    assert choose(trainer, asked, 1e12, 2) == Choice(execution=expected)
    assert [] == kept(tmp_path)


def test_a_finished_run_chooses_nothing(tmp_path, monkeypatch):
    prepared = prepared_case(tmp_path, scores=["ior"])
    run_case(prepared, tmp_path / "cache")
    monkeypatch.setattr("ddrank_core.engine.run.choose", None)
    assert all(trial.reused for trial in run_case(prepared, tmp_path / "cache").trials)
