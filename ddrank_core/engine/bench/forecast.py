"""What of a run is still to be trained, and how long it will take at a measured pace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from ddrank_core.config import Teacher
from ddrank_core.engine.bench.laps import NOTHING, Spread, summed
from ddrank_core.engine.bench.pace import Pace, PredictionPace, asked_teachers
from ddrank_core.engine.kept import is_whole
from ddrank_core.engine.keys import Keys
from ddrank_core.engine.plan import Arm, Trial, asks_teachers
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import ReadyTeacher, make_teacher
from ddrank_core.engine.train import build
from ddrank_core.engine.trial import Trainer, identity
from ddrank_core.results import TrialResult
from ddrank_core.store import TrialStore, cache_folder

if TYPE_CHECKING:
    from torch import nn


@attrs.frozen(kw_only=True)
class Batch:
    """Trials of one kind that a run trains side by side before it goes on: a rung, or the final ones."""

    example: Trial
    planned: int
    missing: int
    """Those that the store has not."""


@attrs.frozen(kw_only=True)
class Left:
    """What of an arm is still to be done."""

    arm: Arm
    batches: tuple[Batch, ...]

    @property
    def planned(self) -> int:
        return sum(batch.planned for batch in self.batches)

    @property
    def missing(self) -> int:
        return sum(batch.missing for batch in self.batches)


@attrs.frozen(kw_only=True)
class ArmForecast:
    """How long an arm will take."""

    arm: str
    seconds: Spread
    """Its share of the device's time."""
    steps: Spread
    """From its first trial to its last, if no other arm were trained: no run with it can be shorter."""


@attrs.frozen(kw_only=True)
class Forecast:
    """How long a run will take: its trainings and tests, without the start of the program."""

    arms: tuple[ArmForecast, ...]
    teachers: tuple[Spread, ...]
    """Of each that the run asks, until it can be asked, and to be tested for the record."""

    @property
    def seconds(self) -> Spread:
        """Return the time of all: trials of several arms fill the device together."""
        arms = summed([arm.seconds for arm in self.arms])
        for arm in self.arms:
            arms = arms.at_least(arm.steps)
        return summed(self.teachers).plus(arms)


# -- what is left ------------------------------------------------------------------------------


class _Untrained(Exception):
    """A teacher was asked for that is not trained yet."""


def ready_teachers(prepared: Prepared, keys: Keys) -> tuple[ReadyTeacher | None, ...]:
    """Return the teachers that the run asks; None for one that it will have to train."""
    return tuple(
        _ready_teacher(prepared, keys, index, teacher)
        for index, teacher in enumerate(asked_teachers(prepared))
    )


def _ready_teacher(prepared: Prepared, keys: Keys, index: int, teacher: Teacher) -> ReadyTeacher | None:
    real, training = prepared.real, prepared.teacher_training
    recipe = prepared.config.full_data.recipe
    seed = derive(prepared.config.seed, "teacher", index)
    network = build(teacher.network.component, real.num_classes, real.image_shape, seed)
    rate = recipe.learning_rate if recipe else 0.0
    key = keys.of_teacher(teacher.network, training, rate, seed) if training else "none"
    cached = cache_folder() / "teachers" / f"{key}.safetensors"

    def not_here(_network: nn.Module) -> bool:
        raise _Untrained

    try:
        return make_teacher(teacher, index, network, prepared.device, cached, not_here)
    except _Untrained:
        return None


def what_is_left(
    trainer: Trainer, keys: Keys, store: TrialStore | None, teachers: Sequence[ReadyTeacher | None]
) -> tuple[Left, ...]:
    """Return what a run will find missing in the store, arm by arm; without a store, everything is.

    To be called with the threads that trials have: a trial's key names their number.
    """
    return tuple(_Look(trainer, arm, keys, store, teachers).left() for arm in trainer.plan.trained)


class _Look:
    """Walks through an arm as a run does, and only looks."""

    def __init__(
        self,
        trainer: Trainer,
        arm: Arm,
        keys: Keys,
        store: TrialStore | None,
        teachers: Sequence[ReadyTeacher | None],
    ) -> None:
        self._trainer, self._plan, self._arm = trainer, trainer.plan, arm
        self._keys, self._store = keys, store
        there = tuple(teacher for teacher in teachers if teacher is not None)
        self._teachers = there if len(there) == len(teachers) else None

    def left(self) -> Left:
        arm, plan = self._arm, self._plan
        batches, first = self._search()
        if plan.searches_apart(arm):
            chosen = None if first is None else self._trainer.protocol.select(first)
            rate = chosen[0].learning_rate if chosen else 0.0
            batch, _ = self._batch(plan.final_trials(arm, rate), known=chosen is not None)
            batches.append(batch)
        return Left(arm=arm, batches=tuple(batches))

    def _search(self) -> tuple[list[Batch], list[TrialResult] | None]:
        """Return the rungs, and all their results; None where one is missing, and so the choice unknown."""
        batches: list[Batch] = []
        results: list[TrialResult] | None = []
        for rung in self._arm.rungs:
            rates: Sequence[float] = self._arm.candidates[: rung.rates]
            if results:
                rates = self._trainer.protocol.keep(results, rung.rates)
            trials = self._plan.first_trials(self._arm, rung, rates)
            batch, found = self._batch(trials, known=results is not None)
            batches.append(batch)
            results = None if results is None or batch.missing else [*results, *found]
        return batches, results

    def _batch(self, trials: Sequence[Trial], known: bool) -> tuple[Batch, list[TrialResult]]:
        """Look trials up; where their rates are not `known` yet, nobody can have trained them."""
        found = self._stored(trials) if known else []
        return Batch(example=trials[0], planned=len(trials), missing=len(trials) - len(found)), found

    def _stored(self, trials: Sequence[Trial]) -> list[TrialResult]:
        untaught = asks_teachers(self._arm.training) and self._teachers is None
        if self._store is None or untaught:
            return []
        digests = {trial: self._keys.of_trial(self._arm, trial, self._teachers or ()) for trial in trials}
        kept, count = self._store.get_many(digests.values()), len(self._trainer.material.test)
        return [
            TrialResult(**identity(trial), **kept[digest].outcome, reused=True)
            for trial, digest in digests.items()
            if digest in kept and is_whole(kept[digest], trial, count)
        ]


# -- how long it takes -------------------------------------------------------------------------


def forecast(
    trainer: Trainer,
    left: Sequence[Left],
    paces: Mapping[str, Pace],
    test: PredictionPace,
    teachers: Sequence[Spread],
) -> Forecast:
    """Return the expected time of what is left; `paces` has the pace of every arm that has to train."""
    arms = tuple(_arm_forecast(trainer, one, paces.get(one.arm.name), test) for one in left)
    return Forecast(arms=arms, teachers=tuple(teachers))


def _arm_forecast(trainer: Trainer, left: Left, pace: Pace | None, test: PredictionPace) -> ArmForecast:
    if pace is None:
        return ArmForecast(arm=left.arm.name, seconds=NOTHING, steps=NOTHING)
    batches = [batch_seconds(trainer, left.arm, batch, pace, test) for batch in left.batches]
    return ArmForecast(
        arm=left.arm.name,
        seconds=summed([share for share, _ in batches]),
        steps=summed([steps for _, steps in batches]),
    )


def turns(count: int, at_once: int) -> int:
    """Return how often so many trials are trained one after another, if so many are trained at once.

    >>> turns(5, 2), turns(4, 2), turns(0, 2)
    (3, 2, 0)
    """
    return -(-count // at_once)


def batch_seconds(
    trainer: Trainer, arm: Arm, batch: Batch, pace: Pace, test: PredictionPace
) -> tuple[Spread, Spread]:
    """Return the expected seconds of a batch: its share of the device's time, and from start to end."""
    # A cohort's networks are built, and asked about images, one after another.
    beside = Spread(pace.start_seconds, pace.start_seconds, pace.start_seconds)
    beside = beside.plus(test.of(_asked_images(trainer, arm, batch.example)))
    epochs = arm.training.epochs * _images(trainer, arm, batch.example, pace) / pace.images
    count = batch.missing
    if pace.workers > 1:
        trial = pace.epoch_seconds.times(epochs).plus(beside)
        return trial.times(count / pace.workers), trial.times(turns(count, pace.workers))
    cohorts = [min(pace.cohort, count - start) for start in range(0, count, pace.cohort)]
    seconds = summed([pace.epoch_of(size).times(epochs).plus(beside.times(size)) for size in cohorts])
    return seconds, seconds


def _images(trainer: Trainer, arm: Arm, trial: Trial, pace: Pace) -> int:
    """Return how many images a trial trains on; of an arm that searches apart, its final trials on all."""
    if arm.training.source != "full":
        return pace.images
    real, rest = trainer.prepared.real.train_labels, trainer.prepared.split.rest
    return len(rest if trial.phase == "search" else real)


def _asked_images(trainer: Trainer, arm: Arm, trial: Trial) -> int:
    """Return how many validation and test images a trial is asked about as part of it."""
    looks = len(trainer.protocol.test_epochs(arm.training.epochs)) + trainer.tests(arm, trial)
    validated = len(trainer.material.validation) * trainer.chooses_by_validation(trial)
    return looks * len(trainer.material.test) + validated


def teacher_seconds(prepared: Prepared, pace: Pace | None, test: PredictionPace) -> Spread:
    """Return the expected time of a teacher: its training, where it has a pace, and its test."""
    seconds = test.of(len(prepared.real.test_labels))
    return seconds if pace is None else seconds.plus(pace.epoch_seconds.times(pace.epochs))
