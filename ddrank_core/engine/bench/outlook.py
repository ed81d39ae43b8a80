"""What a run will train, what of it is stored already, and what the rest takes: time, memory, disk."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from contextlib import closing

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine import memory
from ddrank_core.engine.bench.figures import Report, choose_execution, measuring, time_arms
from ddrank_core.engine.bench.forecast import (
    Forecast,
    Left,
    forecast,
    ready_teachers,
    teacher_seconds,
    what_is_left,
)
from ddrank_core.engine.bench.laps import Spread
from ddrank_core.engine.bench.pace import (
    asked_teachers,
    processes,
    ready_trainer,
    stand_in,
    time_student_test,
    time_teacher,
    time_teacher_test,
)
from ddrank_core.engine.cohorts import MOST
from ddrank_core.engine.device import describe, threads_for
from ddrank_core.engine.keys import Keys
from ddrank_core.engine.memory import TrialMemory
from ddrank_core.engine.plan import Arm, Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.rehearse import rehearse_training
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.engine.trial import Trainer
from ddrank_core.store import TrialStore, cache_folder
from ddrank_core.store.trial import pack


@attrs.frozen(eq=False, kw_only=True)
class Outlook:
    """What a run of one student has before it; nothing is measured."""

    prepared: Prepared
    trainer: Trainer
    device: str
    left: tuple[Left, ...]
    teachers: tuple[ReadyTeacher | None, ...]
    """Those that the run asks; None for one that it has to train."""
    memory: TrialMemory
    """Of a trial."""
    at_once: int
    """How many trials are trained at once: processes on a CPU; on a GPU at most so many, in a cohort."""
    cohort: int
    """How many of these one process trains as one computation."""
    free_bytes: int | None
    """Of the device's memory."""
    data_bytes: int
    """What the images take, once for all trials."""
    disk_bytes: int
    """About what the trials that are left will take in the store, and the teachers beside it."""

    @property
    def planned(self) -> int:
        return sum(left.planned for left in self.left)

    @property
    def missing(self) -> int:
        return sum(left.missing for left in self.left)

    @property
    def untaught(self) -> int:
        """How many teachers have to be trained."""
        return self.teachers.count(None)


def look(prepared: Prepared, asked: Asked) -> Outlook:
    """Find out what a run has to train; nothing is trained, and nothing stored."""
    keys, trainer, workers = Keys(prepared), ready_trainer(prepared, ()), processes(asked, prepared)
    # As a run does it: teachers get all threads, and the keys name the number of threads.
    with threads_for(prepared.device, prepared.step_activations):
        teachers = ready_teachers(prepared, keys)
    with threads_for(prepared.device, prepared.step_activations, alone=workers == 1):
        left, device = _left(trainer, keys, teachers), describe(prepared.device, workers)
        disk = _disk_bytes(trainer, keys, left, teachers)
    cohort = _cohort(prepared, asked, left) if workers == 1 else 1
    real, working = prepared.real, prepared.distilled.images
    return Outlook(
        prepared=prepared,
        trainer=trainer,
        device=device,
        left=left,
        teachers=teachers,
        memory=memory.of_trial(prepared),
        at_once=workers * cohort,
        cohort=cohort,
        free_bytes=memory.free_bytes(prepared.device),
        data_bytes=sum(images.nbytes for images in (real.train_images, real.test_images, working)),
        disk_bytes=disk,
    )


def _left(trainer: Trainer, keys: Keys, teachers: Sequence[ReadyTeacher | None]) -> tuple[Left, ...]:
    # Opened, it would be made.
    if not (cache_folder() / "trials.sqlite").exists():
        return what_is_left(trainer, keys, None, teachers)
    with closing(TrialStore(cache_folder())) as store:
        return what_is_left(trainer, keys, store, teachers)


def _cohort(prepared: Prepared, asked: Asked, left: Sequence[Left]) -> int:
    """Return how many trials will be trained at once as one computation, at most, before any is tried."""
    most = max(batch.planned for one in left for batch in one.batches)
    if asked.cohort is not None or prepared.device.type != "cuda":
        return min(most, asked.cohort or 1)
    return min(most, MOST, memory.cohort_fit(prepared))


def _disk_bytes(
    trainer: Trainer, keys: Keys, left: Sequence[Left], teachers: Sequence[ReadyTeacher | None]
) -> int:
    """Return about what the trials that are left take in the store, and the teachers beside it."""
    prepared = trainer.prepared
    asked = asked_teachers(prepared)
    networks = [stand_in(prepared, teacher) for teacher in asked]
    known = tuple(
        there or ReadyTeacher(use=teacher.network.use, network=network, source="", digest="0" * 64)
        for there, teacher, network in zip(teachers, asked, networks, strict=True)
    )
    weights: int = sum(
        tensor.nbytes
        for there, network in zip(teachers, networks, strict=True)
        for tensor in network.state_dict().values()
        if there is None
    )
    return weights + sum(
        batch.missing * _row_bytes(trainer, keys, one.arm, batch.example, known)
        for one in left
        for batch in one.batches
    )


def _row_bytes(
    trainer: Trainer, keys: Keys, arm: Arm, trial: Trial, teachers: tuple[ReadyTeacher, ...]
) -> int:
    """Return about the size of a trial in the store: what determines it, and its predictions."""
    import numpy as np

    determinants = json.dumps(keys.determinants(arm, trial, teachers), default=str).encode()
    size = len(zlib.compress(determinants))
    if trainer.tests(arm, trial):
        real = trainer.prepared.real
        # As hard to compress as those of a good network.
        guesses = np.random.default_rng(0).integers(real.num_classes, size=len(real.test_labels))
        size += len(pack(guesses.astype("<u2").tobytes()) or b"")
    return size


# -- how long it takes -------------------------------------------------------------------------


def measurements(outlook: Outlook) -> int:
    """Return how many measurements `expected` does."""
    arms = sum(left.missing > 0 for left in outlook.left)
    return arms + 1 + outlook.untaught + len(outlook.teachers) if arms else 0


def expected(outlook: Outlook, asked: Asked, done: Report, budget: float) -> tuple[Outlook, Forecast]:
    """Return how long the run will take, from a few steps of each training that is left to do.

    With it comes the outlook as these steps have shown it: how many trials of a cohort the memory holds.
    `budget` is in seconds, for each measurement.

    Raises:
        ConfigError: one line that names the config's field, if a training step cannot be done.
        RunFailed: one line, if something else cannot be done.
    """
    if not outlook.missing:
        return outlook, Forecast(arms=(), teachers=())
    with measuring(outlook.prepared):
        rehearse_training(outlook.prepared)
        return _expected(outlook, asked, done, budget)


def _expected(outlook: Outlook, asked: Asked, done: Report, budget: float) -> tuple[Outlook, Forecast]:
    prepared, trainer = outlook.prepared, outlook.trainer
    workers = processes(asked, prepared)
    trainer.use_teachers([stand_in(prepared, teacher) for teacher in asked_teachers(prepared)])
    choose_execution(trainer, asked, _work(outlook))
    arms = [left.arm for left in outlook.left if left.missing]
    paces = time_arms(trainer, arms, asked, done, budget)
    with threads_for(prepared.device, prepared.step_activations, alone=workers == 1):
        test = time_student_test(trainer, asked, budget)
    done()
    # As a run does it: a teacher is one long training, and gets all threads.
    with threads_for(prepared.device, prepared.step_activations):
        teachers = _teachers(outlook, done, budget)
    found = forecast(trainer, outlook.left, {pace.name: pace for pace in paces}, test, teachers)
    cohort = max(pace.cohort for pace in paces)
    return attrs.evolve(outlook, cohort=cohort, at_once=workers * cohort), found


def _work(outlook: Outlook) -> float:
    """Return about how much work is left of the run."""
    return sum(
        outlook.trainer.work(left.arm, batch.example) * batch.missing
        for left in outlook.left
        for batch in left.batches
    )


def _teachers(outlook: Outlook, done: Report, budget: float) -> list[Spread]:
    trainer, found = outlook.trainer, []
    for teacher, there in zip(asked_teachers(outlook.prepared), outlook.teachers, strict=True):
        pace = None
        if there is None:
            pace = time_teacher(trainer, teacher, budget)
            done()
        test = time_teacher_test(trainer, teacher, budget)
        done()
        found.append(teacher_seconds(outlook.prepared, pace, test))
    return found
