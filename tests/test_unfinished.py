"""A training that is killed goes on where it was, and ends with the bits of one that nobody disturbed."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest
import torch
from test_capture import (
    CUDA,
    DSA_OF_ALL,
    GRAPHS,
    Tapes,
    needs_cuda,
    on_cuda,
    repeatable,  # noqa: F401  # a fixture
)
from test_cohort import (
    CLASSES,
    RATES,
    SEEDS,
    SMALL_CONVNET,
    TEACHER,
    StoredViews,
    images_of,
    networks_of,
    setting_of,
    state,
    teacher_of,
    training_of,
)
from test_teachers import train as train_teacher
from tiny_case import prepared_case
from torch import nn
from torch.nn import functional as F

from ddrank_core.engine import unfinished
from ddrank_core.engine.bench.choose import COMPILED
from ddrank_core.engine.capture import Capture
from ddrank_core.engine.cohort import train_cohort
from ddrank_core.engine.execution import Execution
from ddrank_core.engine.train import train
from ddrank_core.engine.trial import Trainer
from ddrank_core.engine.unfinished import Keeping, forget
from ddrank_core.errors import RunFailed

CPU = torch.device("cpu")
KEY, EPOCHS = "c0ffee", 7


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Keep a state after every epoch, in a folder of the test."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(unfinished, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(unfinished, "_MOST_OF_THE_TIME", float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "cache" / "unfinished"
    torch.set_num_threads(threads)


class Killed(Exception):
    """Stands for what ends a process."""


@contextmanager
def disturbed():
    """Use the global generator for something else before, and see that it is put back after."""
    torch.manual_seed(12345)
    torch.rand(7)
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def interrupted(attempt, at=(1, 2, 5)):
    """Return what `attempt(after_epoch)` comes to if it is killed after each of these epochs.

    An epoch whose end was not kept is done again, and no other one.
    """
    start, seen = 1, []
    for kill in at:

        def after(epoch, kill=kill):
            seen.append(epoch)
            if epoch == kill:
                raise Killed

        with disturbed(), pytest.raises(Killed):
            attempt(after)
        assert list(range(start, kill + 1)) == seen
        start = max(kill, 1)
        seen.clear()
    with disturbed():
        found = attempt(seen.append)
    assert list(range(start, EPOCHS + 1)) == seen
    return found


def assert_same_bits(expected, found):
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


# -- alone -------------------------------------------------------------------------------------


def dropping_network():
    """Return a network with batch norm, whose dropout draws from torch's own generator."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, CLASSES),
        ).double()


# The augmentation is DSA, which draws its strategy on the host and its parameters on the device.
RECIPES = {
    "sgd": {},
    "sgd without momentum": {"optimizer": {"use": "sgd", "momentum": 0.0}},
    "nesterov": {"optimizer": {"use": "sgd", "nesterov": True, "decay_on": "weights"}},
    "adam": {"optimizer": "adam", "schedule": "cosine"},
    "adamw": {
        "optimizer": {"use": "adamw", "weight_decay": 0.1, "decay_on": "weights"},
        "schedule": {"use": "multi-step", "milestones": [2, 4]},
    },
    "micro batch": {"micro_batch": 3, "augmentation": "mixup", "optimizer": "adam"},
    "teacher": {**TEACHER, "augmentation": "cutmix"},
}


def trained_alone(training, after, network=None, data=None, setting=None, key=KEY, **keeps):
    """Return what a network becomes, and whether it stayed finite."""
    network = copy.deepcopy(network) if network is not None else dropping_network()
    keeping = Keeping((key,), **keeps) if key else None
    finite = train(
        network, data or images_of(), training, 0.05, 5, setting or setting_of(), after, keeping=keeping
    )
    return state(network), finite


def nothing(epoch):
    pass


def assert_alone_goes_on(training, **changes):
    expected = trained_alone(training, nothing, key=None, **changes)
    found = interrupted(lambda after: trained_alone(training, after, **changes))
    assert expected[1] == found[1]
    assert_same_bits(expected[0], found[0])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_goes_on_to_the_same_bits(recipe):
    assert_alone_goes_on(training_of(**RECIPES[recipe]), setting=setting_of(teacher_of()))


def test_a_training_on_stored_views_goes_on_with_the_next_epochs():
    data = attrs.evolve(images_of(), soft=None, views=StoredViews())
    training = training_of(labels="stored-views", loss="kl", augmentation=None)
    assert_alone_goes_on(training, data=data)


def test_a_training_with_channels_last_goes_on_to_the_same_bits():
    way = Execution(channels_last=True)
    setting = attrs.evolve(setting_of(), execution=way)
    assert_alone_goes_on(
        training_of(optimizer="adam"), setting=setting, network=way.ready(dropping_network())
    )


class InfiniteOnce:
    """Is infinite in the second step of all, and moves no weight by that."""

    def __init__(self):
        self.calls = 0

    def __call__(self, logits, targets):
        self.calls += 1
        return F.cross_entropy(logits, targets.hard) + (float("inf") if self.calls == 2 else 0.0)


def test_a_loss_that_was_infinite_before_the_interruption_is_remembered():
    training = training_of()
    training = attrs.evolve(training, loss=attrs.evolve(training.loss, component=InfiniteOnce()))
    _, finite = interrupted(lambda after: trained_alone(training, after), at=(2, 4))
    assert not finite


def test_the_orders_of_epochs_that_are_left_are_those_of_a_whole_training(monkeypatch):
    from ddrank_core.engine import train as module

    for most in (1_000_000, 30):
        # 30 indices at once: the epochs are drawn in blocks of three.
        monkeypatch.setattr(module, "_ORDERS_PER_DRAW", most)
        whole = list(module.orders(10, 8, 1, CPU))
        for done in range(9):
            left = list(module.orders(10, 8, 1, CPU, done))
            assert [order.tolist() for order in whole[done:]] == [order.tolist() for order in left]


# -- several at once ---------------------------------------------------------------------------


def trained_together(training, after, folded, capture=None, keys=(KEY, "2", "3"), norm="batch", **changes):
    networks = networks_of({**SMALL_CONVNET, "norm": norm})
    finite = train_cohort(
        networks,
        changes.get("data") or [images_of()] * len(networks),
        training,
        RATES,
        SEEDS,
        setting_of(teacher_of()),
        after,
        folded,
        capture,
        Keeping(keys) if keys else None,
    )
    return {f"{i} {name}": t for i, one in enumerate(networks) for name, t in state(one).items()}, finite


def assert_together_goes_on(training, folded, recorder=None, **changes):
    def attempt(after, **more):
        capture = Capture(recorder) if recorder else None
        found = trained_together(training, after, folded, capture, **changes, **more)
        assert capture is None or capture.failed is None
        return found

    expected = attempt(nothing, keys=())
    found = interrupted(attempt)
    assert expected[1] == found[1] == [True] * len(SEEDS)
    assert_same_bits(expected[0], found[0])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("folded", [False, True], ids=["vmap", "folded"])
def test_a_cohort_goes_on_to_the_same_bits(recipe, folded):
    assert_together_goes_on(training_of(**RECIPES[recipe]), folded)


@pytest.mark.parametrize("augmentation", [None, {"use": "dsa"}, DSA_OF_ALL], ids=["none", "host", "device"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_cohort_whose_steps_are_recorded_goes_on_to_the_same_bits(augmentation, optimizer):
    training = training_of(augmentation=augmentation, optimizer=optimizer, schedule="cosine")
    assert_together_goes_on(training, True, Tapes)


def test_a_recorded_cohort_may_go_on_from_one_that_was_not_recorded():
    training = training_of(augmentation=DSA_OF_ALL, optimizer="adam")
    expected, _ = trained_together(training, nothing, True, keys=())
    captures = iter([None, Capture(Tapes), None, Capture(Tapes)])
    found, _ = interrupted(lambda after: trained_together(training, after, True, next(captures)))
    assert_same_bits(expected, found)


def test_a_cohort_on_stored_views_goes_on_with_the_next_epochs():
    data = [attrs.evolve(images_of(seed), soft=None, views=StoredViews()) for seed in range(3)]
    training = training_of(labels="stored-views", loss="kl", augmentation=None)
    assert_together_goes_on(training, False, data=data)


def test_a_trial_that_diverged_before_the_interruption_is_remembered():
    training = training_of()
    training = attrs.evolve(training, loss=attrs.evolve(training.loss, component=InfiniteOnce()))
    _, finite = interrupted(lambda after: trained_together(training, after, False), at=(2, 4))
    assert [False] * 3 == finite


def test_other_trials_together_do_not_go_on_from_it():
    training, seen = training_of(), []

    def kill(epoch):
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        trained_together(training, kill, False)
    for keys, folded in (((KEY, "2", "4"), False), ((KEY, "2", "3"), True)):
        trained_together(training, seen.append, folded, keys=keys)
        assert 1 == seen[0]
        seen.clear()


# -- on a GPU ----------------------------------------------------------------------------------


@needs_cuda
@pytest.mark.usefixtures("repeatable")
def test_a_training_on_a_gpu_goes_on_to_the_same_bits():
    _, (data, *_), setting = on_cuda(dtype=torch.float64)
    network = dropping_network().to(CUDA)
    assert_alone_goes_on(training_of(optimizer="adam"), network=network, data=data, setting=setting)


@needs_cuda
@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("augmentation", [None, {"use": "dsa"}, DSA_OF_ALL], ids=["none", "host", "device"])
def test_cuda_graphs_go_on_to_the_same_bits(augmentation):
    training = training_of(augmentation=augmentation, optimizer="adam")

    def attempt(after, keys=(KEY, "2", "3")):
        networks, data, setting = on_cuda(norm="batch")
        capture, keeping = Capture(GRAPHS), Keeping(keys) if keys else None
        train_cohort(networks, data, training, RATES, SEEDS, setting, after, True, capture, keeping)
        assert capture.failed is None
        return {f"{i} {name}": t for i, one in enumerate(networks) for name, t in state(one).items()}

    expected = attempt(nothing, keys=())
    assert_same_bits(expected, interrupted(attempt))


# -- trials ------------------------------------------------------------------------------------


@attrs.define
class Listening:
    """Hears of epochs, and ends the process at one of them."""

    kill: int | None = None
    events: list = attrs.field(factory=list)

    def __call__(self, event):
        self.events.append(event)
        if event.epoch == self.kill:
            raise Killed


PROTOCOLS = {
    "strict": {"use": "strict", "repeats": 2, "learning_rates": [0.01, 0.1], "validation": 0.2},
    "ddranking-0.2": {"use": "ddranking-0.2", "repeats": 2, "learning_rates": [0.01], "test_interval": 1},
}


@pytest.fixture(params=PROTOCOLS)
def prepared(request, tmp_path):
    return prepared_case(tmp_path, scores=["ior"], protocol=PROTOCOLS[request.param])


def trials_of(trainer, count):
    arm = trainer.plan.trained[0]
    return arm, trainer.plan.first_trials(arm, arm.rungs[0], arm.candidates)[:count]


def same(expected, found):
    """Assert that two trials came to the same, but for the time that they took."""
    assert attrs.evolve(expected.result, seconds=0.0) == attrs.evolve(found.result, seconds=0.0)
    assert torch.equal(expected.predictions, found.predictions)
    assert len(found.predictions) == 30
    assert expected.reported_work == pytest.approx(found.reported_work)


def ended(attempt, path, kills=(2, 4)):
    """Return what an attempt comes to that is killed at these epochs, and the seconds that it kept."""
    for place, kill in enumerate(kills):
        listening = Listening(kill)
        # A component's error, as this one is taken for, is passed on as the trial's.
        with disturbed(), pytest.raises(Exception, match="Killed"):
            attempt(listening)
        done = kills[place - 1] - 1 if place else 0
        first = [done] if done else []
        assert [*first, *range(done + 1, kill + 1)] == sorted({event.epoch for event in listening.events})
    kept = unfinished._read(path)["seconds"]
    listening = Listening()
    with disturbed():
        return attempt(listening), kept, listening.events


def test_a_trial_goes_on_with_its_result_its_test_and_its_progress(prepared, folder):
    trainer = Trainer(prepared)
    arm, (trial,) = trials_of(trainer, 1)
    whole = Listening()
    expected = trainer.train(arm, trial, whole)
    assert [] == list(folder.parent.glob("unfinished/*"))
    found, kept, events = ended(
        lambda listening: Trainer(prepared).train(arm, trial, listening, KEY), folder / f"{KEY}.pt"
    )
    same(expected, found)
    assert found.result.seconds > kept > 0
    # Of the three epochs that were kept one event tells; then the fourth.
    assert [3, 4] == [event.epoch for event in events]
    one = whole.events[0].work
    assert [3 * one, one] == pytest.approx([event.work for event in events])
    assert whole.events[0].training == events[0].training


@pytest.mark.parametrize("folded", [False, True], ids=["vmap", "folded"])
def test_trials_trained_at_once_go_on_with_their_results_and_tests(prepared, folder, folded):
    trainer, keys = Trainer(prepared), (KEY, "beef")
    arm, trials = trials_of(trainer, 2)
    expected = trainer.train_together(arm, trials, folded, Listening())
    found, kept, events = ended(
        lambda listening: Trainer(prepared).train_together(arm, trials, folded, listening, keys=keys),
        folder / f"{KEY}.pt",
    )
    for one, other in zip(expected, found, strict=True):
        same(one, other)
        assert other.result.seconds > kept / 2 > 0
    assert [3, 3, 4, 4] == [event.epoch for event in events]
    assert sum(done.reported_work for done in expected) == pytest.approx(sum(e.work for e in events))


def test_a_cohort_that_is_halved_for_want_of_memory_keeps_its_halves(tmp_path, folder, monkeypatch):
    from ddrank_core.engine import trial as module

    tried = []

    def small(networks, *rest):
        tried.append(len(networks))
        if len(networks) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_cohort(networks, *rest)

    monkeypatch.setattr(module, "train_cohort", small)
    trainer = Trainer(prepared_case(tmp_path, scores=["ior"], protocol=PROTOCOLS["strict"]))
    arm, trials = trials_of(trainer, 4)
    keys = tuple(f"{place:064}" for place in range(4))
    trainer.train_together(arm, trials, True, Listening(), keys=keys)
    assert [4, 2, 2] == tried
    assert [f"{place:064}.pt" for place in (0, 2)] == sorted(path.name for path in folder.iterdir())
    forget(keys)
    assert [] == list(folder.iterdir())


def test_a_cohort_of_one_is_kept_under_its_own_digest(tmp_path, folder):
    trainer = Trainer(prepared_case(tmp_path, scores=["ior"], protocol=PROTOCOLS["strict"]))
    arm, trials = trials_of(trainer, 1)
    trainer.train_together(arm, trials, True, Listening(), keys=(KEY,))
    assert [f"{KEY}.pt"] == [path.name for path in folder.iterdir()]


needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch.compile needs a C++ compiler",
)


@needs_compiler
def test_a_compiled_student_goes_on_to_the_same_bits(tmp_path, folder):
    prepared = prepared_case(tmp_path, scores=["ior"], protocol=PROTOCOLS["ddranking-0.2"])

    def compiling():
        trainer = Trainer(prepared)
        trainer.use_execution(COMPILED)
        return trainer

    trainer = compiling()
    arm, (trial,) = trials_of(trainer, 1)
    expected = trainer.train(arm, trial, Listening())
    with pytest.raises(Exception, match="Killed"):
        trainer.train(arm, trial, Listening(3), KEY)
    listening = Listening()
    same(expected, compiling().train(arm, trial, listening, KEY))
    assert [2, 3, 4] == [event.epoch for event in listening.events]
    # As it is the sums come in another order: such a training starts anew.
    listening = Listening()
    Trainer(prepared).train(arm, trial, listening, KEY)
    assert [1, 2, 3, 4] == [event.epoch for event in listening.events]


# -- another process ---------------------------------------------------------------------------

KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
import test_unfinished as cases
torch.set_num_threads(1)
cases.unfinished.CHECKPOINT_EVERY, cases.unfinished._MOST_OF_THE_TIME = 0.0, float("inf")
found, first = {{}}, {{}}
for name, attempt in cases.in_another_process().items():
    def after(epoch):
        first.setdefault(name, epoch)
        if name == {last!r} and epoch == {kill}:
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch == {kill}:
            raise cases.Killed
    try:
        found[name] = attempt(after)[0]
    except cases.Killed:
        pass
torch.save((first, found), {out!r})
"""


def in_another_process():
    """Return trainings that are begun in one process and go on in another."""
    sgd, adam = training_of(), training_of(**RECIPES["adam"])
    return {
        "alone": lambda after, **how: trained_alone(sgd, after, **({"key": "a"} | how)),
        "alone, adam": lambda after, **how: trained_alone(adam, after, **({"key": "b"} | how)),
        "vmap": lambda after, keys=("c",): trained_together(adam, after, False, keys=keys),
        "folded": lambda after, keys=("d",): trained_together(sgd, after, True, keys=keys),
    }


def test_what_sigkill_ends_goes_on_in_another_process(tmp_path, folder):
    found = tmp_path / "found.pt"
    values = {"tests": str(Path(__file__).parent), "last": "folded", "out": str(found)}
    codes = [
        subprocess.run([sys.executable, "-c", KILLED.format(kill=kill, **values)], check=False).returncode
        for kill in (4, 0)
    ]
    assert [-9, 0] == codes
    first, weights_of = torch.load(found)
    assert dict.fromkeys(in_another_process(), 4) == first
    for name, weights in weights_of.items():
        attempt = in_another_process()[name]
        expected, _ = attempt(nothing, key=None) if "alone" in name else attempt(nothing, keys=())
        assert_same_bits(expected, weights)


# -- files -------------------------------------------------------------------------------------


def killed_at(epoch, **changes):
    """Begin a training alone, and end it there."""

    def after(now):
        if now == epoch:
            raise Killed

    with pytest.raises(Killed):
        trained_alone(training_of(), after, **changes)


def epochs_done(**changes):
    seen = []
    found, _ = trained_alone(training_of(), seen.append, **changes)
    expected, _ = trained_alone(training_of(), nothing, key=None)
    assert_same_bits(expected, found)
    return seen


def flipped(content):
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: b"",
        lambda c: b"x" * 999,
    ],
    ids=["a bit", "cut off", "cut to a few bytes", "empty", "something else"],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(damage, folder):
    killed_at(5)
    file = folder / f"{KEY}.pt"
    file.write_bytes(damage(file.read_bytes()))
    assert [1, 2, 3, 4, 5, 6, 7] == epochs_done()
    assert [6, 7] == [unfinished._read(file)["epoch"], 7]
    assert [file] == list(folder.iterdir())


def test_the_file_of_another_training_is_not_gone_on_from(folder):
    killed_at(5, key="other")
    os.rename(folder / "other.pt", folder / f"{KEY}.pt")
    assert [1, 2, 3, 4, 5, 6, 7] == epochs_done()


@pytest.mark.parametrize(
    "change",
    [
        ("ddrank_core.engine.device.kind", lambda device: "another device"),
        ("torch.__version__", "1.0"),
        ("ddrank_core.engine.unfinished._FORMAT", 0),
    ],
    ids=["device", "torch", "format"],
)
def test_a_state_of_other_circumstances_is_not_gone_on_from(change, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(*change)
        killed_at(5)
    assert [1, 2, 3, 4, 5, 6, 7] == epochs_done()


def test_a_state_that_is_too_late_is_not_gone_on_from():
    killed_at(5)
    assert [1, 2, 3, 4, 5, 6, 7] == epochs_done(latest=3)
    killed_at(5, latest=0)
    assert [5, 6, 7] == epochs_done(latest=4)


def test_a_short_training_writes_nothing(folder, monkeypatch):
    monkeypatch.setattr(unfinished, "CHECKPOINT_EVERY", 60.0)
    trained_alone(training_of(), nothing)
    assert not folder.exists()


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def perf_counter(self):
        return self.now


def test_a_state_is_kept_every_minute_and_on_a_slow_disk_less_often(folder, monkeypatch):
    clock, written = Clock(), []
    monkeypatch.setattr(unfinished, "time", clock)
    monkeypatch.setattr(unfinished, "CHECKPOINT_EVERY", 60.0)
    monkeypatch.setattr(unfinished, "_MOST_OF_THE_TIME", 0.01)

    def write(path, content):
        written.append(clock.now)
        clock.now += 0.1 if len(written) < 3 else 2.0

    monkeypatch.setattr(unfinished, "_write", write)
    keeping = Keeping((KEY,))
    keeping.begin("alone", 10_000, CPU, {})
    for epoch in range(1, 100):
        clock.now += 10.0
        keeping.epoch_ended(epoch)
    # The third takes two seconds, a hundredth of the 200 that follow; an epoch takes ten.
    assert [160.0, 220.1, 280.2, 482.2, 684.2, 886.2] == pytest.approx(written[:6], abs=10)
    assert len(written) == 6 + (clock.now - 886.2) // 210


def test_what_earlier_processes_spent_is_counted(folder, monkeypatch):
    clock, part = Clock(), unfinished.InPlace([torch.zeros(2)])
    monkeypatch.setattr(unfinished, "time", clock)
    for before in (0.0, 30.0, 60.0):
        keeping = Keeping((KEY,))
        clock.now += 20.0
        assert before / 30 == keeping.begin("alone", 10, CPU, {"part": part})
        assert before == keeping.seconds
        clock.now += 10.0
        keeping.epoch_ended(int(before / 30) + 1)


@pytest.fixture
def tiny_disk(tmp_path, monkeypatch):
    """Mount 64 KiB as the cache's folder."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("only root can mount a disk")
    monkeypatch.setenv("DDRANK_CACHE", str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_does_not_stop_a_training_and_is_noted_in_one_line(tiny_disk, tmp_path):
    trainer = Trainer(prepared_case(tmp_path, scores=["ior"], protocol=PROTOCOLS["strict"]))
    arm, (trial, other) = trials_of(trainer, 2)
    expected = trainer.train(arm, trial, Listening())
    (tiny_disk / "filler").write_bytes(bytes(56 << 10))
    same(expected, trainer.train(arm, trial, Listening(), KEY))
    assert [] == list((tiny_disk / "unfinished").iterdir())
    trainer.train(arm, other, Listening(), "beef")
    (note,) = trainer.memory_notes()
    assert note == (
        "Trainings under way could not be kept, to go on from later: "
        f"{tiny_disk}/unfinished: OSError: [Errno 28] No space left on device."
    )


def test_a_full_disk_leaves_the_state_that_was_kept_before(tiny_disk):
    killed_at(3)
    with (tiny_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(1024))
    killed_at(6)
    (tiny_disk / "filler").unlink()
    assert [3, 4, 5, 6, 7] == epochs_done()


def test_a_folder_that_cannot_be_written_does_not_stop_a_training(folder, monkeypatch):
    tried, write = [], unfinished._write
    monkeypatch.setattr(
        unfinished, "_write", lambda path, content: tried.append(path) or write(path, content)
    )
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    keeping = Keeping((KEY,))
    network = dropping_network()
    assert train(network, images_of(), training_of(), 0.05, 5, setting_of(), nothing, keeping)
    assert keeping.failed.startswith(f"{folder}: FileExistsError: ")
    assert [folder / f"{KEY}.pt"] == tried
    assert "\n" not in keeping.failed
    assert_same_bits(trained_alone(training_of(), nothing, key=None)[0], state(network))


# -- teachers ----------------------------------------------------------------------------------


def test_a_teacher_goes_on_where_it_was(tmp_path, folder):
    from ddrank_core.engine.checkpoints import read_about

    cache = folder.parent
    events = []

    def kill(hook, event):
        if hook == "ddrank_epoch_finished" and event.epoch == 3:
            raise Killed

    with pytest.raises(Exception, match="Killed"):
        train_teacher(tmp_path, tmp_path / "one.safetensors", kill)
    assert 1 == len(list(folder.glob("*.pt")))
    train_teacher(tmp_path, tmp_path / "one.safetensors", lambda hook, event: events.append((hook, event)))
    assert [] == list(folder.iterdir())
    epochs = [event for hook, event in events if hook == "ddrank_epoch_finished"]
    assert [2, 3, 4] == [event.epoch for event in epochs]
    (start,) = (event for hook, event in events if hook == "ddrank_run_started")
    assert start.work == sum(event.work for event in epochs)
    shutil.rmtree(cache)
    train_teacher(tmp_path, tmp_path / "two.safetensors")
    one, two = (read_about(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(("lost", "epochs"), [(1, [1, 2, 3, 4]), (2, [2, 3, 4])])
def test_a_teacher_goes_on_no_later_than_at_the_first_snapshot_that_is_lost(tmp_path, lost, epochs):
    seen = []

    def kill(hook, event):
        if hook == "ddrank_epoch_finished" and event.epoch == 3:
            raise Killed

    def listen(hook, event):
        if hook == "ddrank_epoch_finished":
            seen.append(event.epoch)

    output, snapshot = tmp_path / "t.safetensors", tmp_path / f"t-epoch{lost:04}.safetensors"
    with pytest.raises(Exception, match="Killed"):
        train_teacher(tmp_path, output, kill, save_every=1)
    before = snapshot.read_bytes()
    snapshot.unlink()
    train_teacher(tmp_path, output, listen, save_every=1)
    assert epochs == seen
    assert before == snapshot.read_bytes()


class Odd(torch.optim.SGD):
    """An optimiser of a plugin that remembers something which a safe reader refuses, or nobody can write."""

    def __init__(self, parameters, lr, what):
        super().__init__(parameters, lr=lr)
        self.what = what

    def state_dict(self):
        return {**super().state_dict(), "odd": self.what}

    def load_state_dict(self, state):
        raise KeyError("not mine")


@attrs.frozen
class OddOptimizer:
    """Builds it."""

    what: object

    def build(self, parameters, learning_rate):
        return Odd(parameters, learning_rate, self.what)


@pytest.mark.parametrize("what", [Path("somewhere"), lambda: None], ids=["a path", "a function"])
def test_a_state_that_cannot_be_kept_does_not_stop_a_training(what, folder):
    training = training_of()
    odd = attrs.evolve(training.optimizer, component=OddOptimizer(what))
    (network,), keeping = networks_of(SMALL_CONVNET, seeds=(1,)), Keeping((KEY,))
    training, data = attrs.evolve(training, optimizer=odd), images_of()
    assert train(network, data, training, 0.05, 1, setting_of(), lambda epoch: None, keeping)
    assert keeping.failed is not None
    assert "\n" not in keeping.failed
    assert not list(folder.glob("*"))


def test_a_state_that_is_not_taken_back_is_removed_and_said_in_one_line(folder):
    training = training_of()
    odd = attrs.evolve(training.optimizer, component=OddOptimizer("something"))
    training, data = attrs.evolve(training, optimizer=odd), images_of()

    def attempt(after_epoch):
        (network,) = networks_of(SMALL_CONVNET, seeds=(1,))
        return train(network, data, training, 0.05, 1, setting_of(), after_epoch, Keeping((KEY,)))

    def kill(epoch):
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        attempt(kill)
    with pytest.raises(
        RunFailed, match=r"cannot go on from here \(KeyError: 'not mine'\); the file is removed"
    ):
        attempt(lambda epoch: None)
    assert attempt(lambda epoch: None)
