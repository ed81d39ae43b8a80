"""How fast the trials and teachers of a run are trained and tested here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.arithmetic import forward_flops, training_flops
from ddrank_core.engine.bench.laps import Spread
from ddrank_core.engine.bench.timing import Students, Timed, in_workers, time_epochs, time_predictions
from ddrank_core.engine.cohort_probe import Probe
from ddrank_core.engine.cohorts import Cohorts
from ddrank_core.engine.execution import AS_IT_IS, Execution
from ddrank_core.engine.plan import Arm, Training, Trial, asks_teachers
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import freeze
from ddrank_core.engine.train import build
from ddrank_core.engine.trial import Trainer
from ddrank_core.engine.workers import count_workers

if TYPE_CHECKING:
    from torch import nn

    from ddrank_core.config import Teacher

BUDGET = 3.0
"""Seconds for the laps of one training or test; its warm-up comes on top, and one long lap may exceed it."""


def processes(asked: Asked, prepared: Prepared) -> int:
    """Return in how many processes a run trains."""
    return count_workers(asked.workers, prepared.device, prepared.step_activations)


@attrs.frozen(kw_only=True)
class Pace:
    """How fast the trials of an arm, or a teacher, are trained."""

    name: str
    images: int
    """Images of an epoch."""
    timed_images: int
    """Those that were timed; an epoch of many steps is timed by its first, and taken as so much longer."""
    batch_size: int
    epochs: int
    workers: int
    """Processes that train side by side while one is timed."""
    cohort: int
    """Trials that one process trains at once."""
    epoch_seconds: Spread
    """Of one epoch of all of these, from its start to its end."""
    alone_seconds: Spread | None
    """Of one epoch of a single trial, where the others are a cohort."""
    start_seconds: float
    """Of each trial before its first epoch: the network is built, its images are drawn and labelled."""
    flops_per_image: float
    """Forward and backward, teachers that are asked about every view included."""
    laps: int
    execution: Execution = AS_IT_IS
    """How its students are run that are trained alone."""

    @property
    def at_once(self) -> int:
        """Return how many trials are trained at once."""
        return self.workers * self.cohort

    @property
    def trial_epoch_seconds(self) -> Spread:
        """Return what an epoch of one trial costs: trials that train at once share the time."""
        return self.epoch_seconds.times(1 / self.at_once)

    @property
    def images_per_second(self) -> Spread:
        """Return how many images are trained on, in all trials together."""
        return self.trial_epoch_seconds.rate(self.images)

    @property
    def flops_per_second(self) -> Spread:
        """Return the arithmetic that is done, in all trials together."""
        return self.trial_epoch_seconds.rate(self.images * self.flops_per_image)

    def epoch_of(self, trials: int) -> Spread:
        """Return the seconds of an epoch of a cohort of so many trials, at most as many as were timed.

        Between a single trial and the cohort that was timed the time is taken to grow evenly.
        """
        if self.alone_seconds is None or trials == self.cohort:
            return self.epoch_seconds
        share = (trials - 1) / (self.cohort - 1)
        return self.alone_seconds.times(1 - share).plus(self.epoch_seconds.times(share))


@attrs.frozen(kw_only=True)
class PredictionPace:
    """How fast networks are asked about images."""

    name: str
    timed_images: int
    workers: int
    image_seconds: Spread
    """Of one image in one process, beside the others."""
    laps: int

    @property
    def images_per_second(self) -> Spread:
        """Return how many images are asked about, in all processes together."""
        return self.image_seconds.rate(self.workers)

    def of(self, images: int) -> Spread:
        """Return the seconds of a pass over so many images."""
        return self.image_seconds.times(images)


def ready_trainer(prepared: Prepared, teachers: Sequence[nn.Module] | None = None) -> Trainer:
    """Return a run's trainer; without `teachers`, untrained ones answer: they take as long."""
    if teachers is None:
        teachers = [stand_in(prepared, teacher) for teacher in asked_teachers(prepared)]
    trainer = Trainer(prepared)
    trainer.use_teachers(teachers)
    return trainer


def asked_teachers(prepared: Prepared) -> tuple[Teacher, ...]:
    """Return the teachers that the run asks: all, or none where no arm does."""
    asks = any(asks_teachers(arm.training) for arm in prepared.plan.trained)
    return prepared.config.teachers if asks else ()


def stand_in(prepared: Prepared, teacher: Teacher) -> nn.Module:
    """Return the teacher's network as it is before it is trained, ready to be asked."""
    real = prepared.real
    network = build(teacher.network.component, real.num_classes, real.image_shape, 0)
    return freeze(network, prepared.device)


# -- trials ------------------------------------------------------------------------------------


def time_arm(trainer: Trainer, arm: Arm, asked: Asked, budget: float) -> Pace:
    """Time the epochs of an arm's first trials, as many at once as a run trains."""
    plan, workers = trainer.plan, processes(asked, trainer.prepared)
    trials, way = plan.first_trials(arm, arm.rungs[0], arm.candidates), trainer.setting.execution
    if workers > 1:
        found = in_workers(workers, lambda: _time_trials(trainer, arm, trials[:1], budget))
        flops = _arm_flops(trainer, arm, trials[:1])
        return _pace(arm.name, arm.training, found, workers, 1, flops, way)
    cohorts = Cohorts(trainer, asked.cohort, captures=asked.compile != "off")
    group = cohorts.split(arm, trials)[0]
    if len(group) > 1:
        group, timed = _time_cohort(trainer, arm, group, cohorts.probe(arm, group[0]), budget)
    else:
        timed = _time_trials(trainer, arm, group, budget)
    flops = _arm_flops(trainer, arm, group)
    pace = _pace(arm.name, arm.training, [timed], 1, len(group), flops, way)
    if len(group) == 1:
        return pace
    alone = _time_trials(trainer, arm, group[:1], budget)
    return attrs.evolve(pace, alone_seconds=Spread.of(alone.seconds))


def _time_cohort(
    trainer: Trainer, arm: Arm, group: Sequence[Trial], found: Probe, budget: float
) -> tuple[Sequence[Trial], Timed]:
    """Time a cohort, or the half of it that the device's memory holds; return which, and what it takes."""
    import torch

    while True:
        try:
            return group, _time_trials(trainer, arm, group, budget, found)
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
            group = group[: len(group) // 2]
        # Outside the handler: what the failed attempt held is free by now.
        torch.cuda.empty_cache()


def _time_trials(
    trainer: Trainer, arm: Arm, trials: Sequence[Trial], budget: float, found: Probe | None = None
) -> Timed:
    """Time trials of an arm that are trained at once by this process."""

    def make() -> Students:
        # As the trainer does it: trials of one repeat have the same images.
        sets = {trial.subset_seed: trial for trial in trials}
        teachers = trainer.setting.teachers
        drawn = {seed: trainer.material.of(arm.training, trial, teachers) for seed, trial in sets.items()}
        alone = len(trials) == 1
        return Students(
            networks=[trainer.student(trials[0])] if alone else [trainer.fresh(trial) for trial in trials],
            data=[drawn[trial.subset_seed] for trial in trials],
            rates=[trial.learning_rate for trial in trials],
            seeds=[trial.seed for trial in trials],
            folded=found is not None and found.folded,
            capture=None if found is None else found.capture,
        )

    return time_epochs(make, arm.training, trainer.setting, budget)


def time_student_test(trainer: Trainer, asked: Asked, budget: float) -> PredictionPace:
    """Time test passes of a student, in as many processes as a run tests in."""
    plan, workers = trainer.plan, processes(asked, trainer.prepared)
    arm = plan.trained[0]
    trial = plan.first_trials(arm, arm.rungs[0], arm.candidates)[0]

    def work() -> Timed:
        network = trainer.student(trial)
        return time_predictions(network, trainer.material.test, trainer.setting, budget)

    return _prediction_pace("test", in_workers(workers, work), workers)


# -- teachers ----------------------------------------------------------------------------------


def time_teacher(trainer: Trainer, teacher: Teacher, budget: float) -> Pace:
    """Time the epochs of a teacher that is trained here: by itself, on the whole real training set."""
    prepared, training = trainer.prepared, trainer.prepared.teacher_training
    recipe = prepared.config.full_data.recipe
    assert training is not None  # the config's cross-check asks for a recipe
    assert recipe is not None
    real, seed = prepared.real, derive(prepared.config.seed, "teacher", 0)

    def make() -> Students:
        network = build(teacher.network.component, real.num_classes, real.image_shape, seed)
        return Students(
            networks=[network.to(prepared.device)],
            data=[trainer.material.full],
            rates=[recipe.learning_rate],
            seeds=[seed],
        )

    timed = time_epochs(make, training, trainer.setting, budget)
    network = build(teacher.network.component, real.num_classes, real.image_shape, 0)
    return _pace(teacher.network.use, training, [timed], 1, 1, training_flops(network, real.image_shape))


def time_teacher_test(trainer: Trainer, teacher: Teacher, budget: float) -> PredictionPace:
    """Time test passes of a teacher's network."""
    network = stand_in(trainer.prepared, teacher)
    timed = time_predictions(network, trainer.material.test, trainer.setting, budget)
    return _prediction_pace(teacher.network.use, [timed], 1)


# -- put together ------------------------------------------------------------------------------


def _pace(
    name: str,
    training: Training,
    found: Sequence[Timed],
    workers: int,
    cohort: int,
    flops: float,
    execution: Execution = AS_IT_IS,
) -> Pace:
    seconds = [lap for one in found for lap in one.seconds]
    return Pace(
        name=name,
        images=found[0].images,
        timed_images=min(one.timed_images for one in found),
        batch_size=training.batch_size,
        epochs=training.epochs,
        workers=workers,
        cohort=cohort,
        epoch_seconds=Spread.of(seconds),
        alone_seconds=None,
        start_seconds=max(one.start for one in found),
        flops_per_image=flops,
        laps=len(seconds),
        execution=execution,
    )


def _prediction_pace(name: str, found: Sequence[Timed], workers: int) -> PredictionPace:
    seconds = [lap for one in found for lap in one.seconds]
    return PredictionPace(
        name=name,
        timed_images=min(one.timed_images for one in found),
        workers=workers,
        image_seconds=Spread.of(seconds),
        laps=len(seconds),
    )


def _arm_flops(trainer: Trainer, arm: Arm, trials: Sequence[Trial]) -> float:
    """Return the FLOPs of training one trial on an image: the student's, and its share of the teachers'.

    In a cohort, trials of one seed share their views, which teachers are asked about once.
    """
    real, config = trainer.prepared.real, trainer.prepared.config
    shape = real.image_shape
    flops = training_flops(build(config.student.component, real.num_classes, shape, 0), shape)
    if not getattr(arm.training.labels.component, "needs_teacher", False):
        return flops
    share = len({(trial.seed, trial.subset_seed) for trial in trials}) / len(trials)
    networks = (build(one.network.component, real.num_classes, shape, 0) for one in config.teachers)
    return flops + share * sum(forward_flops(network, shape) for network in networks)
