"""Everything that `ddrank bench` measures, in the order and under the conditions of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.arithmetic import Peak, matmul_peak
from ddrank_core.engine.bench.choose import choose
from ddrank_core.engine.bench.pace import (
    Pace,
    PredictionPace,
    processes,
    ready_trainer,
    time_arm,
    time_student_test,
)
from ddrank_core.engine.bench.timing import in_forks
from ddrank_core.engine.device import describe, deterministic, keep_freed_memory, threads_for
from ddrank_core.engine.plan import Arm
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.rehearse import rehearse_training
from ddrank_core.engine.trial import Trainer
from ddrank_core.errors import DDRankError, RunFailed, one_line

Report = Callable[[], None]
"""Called as each measurement is done."""


@attrs.frozen(kw_only=True)
class Figures:
    """What was measured for one student."""

    name: str | None
    """The run's; None where several runs were measured."""
    device: str
    precision: str
    network: str
    image_shape: tuple[int, int, int]
    num_classes: int
    peak: Peak
    trainings: tuple[Pace, ...]
    test: PredictionPace


def measurements(runs: Sequence[Prepared]) -> int:
    """Return how many measurements `measure` does."""
    return 2 + sum(len(run.plan.trained) for run in runs)


def measure(runs: Sequence[Prepared], asked: Asked, done: Report, *, budget: float) -> Figures:
    """Measure runs of one student: the device's peak, every arm's training, the test.

    `budget` is in seconds, for each measurement.

    Raises:
        ConfigError: one line that names the config's field, if a training step cannot be done.
        RunFailed: one line, if something else cannot be done.
    """
    with measuring(runs[-1]):
        return _measure(runs, asked, done, budget)


@contextmanager
def measuring(run: Prepared) -> Iterator[None]:
    """Compute as a run does, and word what goes wrong."""
    keep_freed_memory(run.device)
    with deterministic(run.device):
        try:
            yield
        except DDRankError:
            raise
        except Exception as error:  # components and the device raise what they like
            raise RunFailed(f"{run.where}: the measurement broke off: {one_line(error)}") from error


def _measure(runs: Sequence[Prepared], asked: Asked, done: Report, budget: float) -> Figures:
    for run in runs:
        rehearse_training(run)
    last, workers = runs[-1], processes(asked, runs[-1])
    trainers = [ready_trainer(run) for run in runs]
    for trainer in trainers:
        choose_execution(trainer, asked, trainer.total_work())
    # Not with the threads that small steps get: it is the device's.
    peak = matmul_peak(trainers[-1], workers, budget / 2)
    done()
    trainings: list[Pace] = []
    for trainer in trainers:
        paces = time_arms(trainer, trainer.plan.trained, asked, done, budget)
        name = trainer.prepared.config.name
        trainings += paces if len(runs) == 1 else [attrs.evolve(pace, name=name) for pace in paces]
    with threads_for(last.device, last.step_activations, alone=workers == 1):
        device = describe(last.device, workers)
        test = time_student_test(trainers[-1], asked, budget)
    done()
    return Figures(
        name=last.config.name if len(runs) == 1 else None,
        device=device,
        precision=last.config.precision,
        network=last.config.student.use,
        image_shape=last.real.image_shape,
        num_classes=last.real.num_classes,
        peak=peak,
        trainings=tuple(trainings),
        test=test,
    )


def choose_execution(trainer: Trainer, asked: Asked, work: float) -> None:
    """Let the trainer run its students as a run will choose to that has so much work left."""
    run, workers = trainer.prepared, processes(asked, trainer.prepared)
    # What trains in cohorts is not compiled.
    compile = "off" if (asked.cohort or 1) > 1 else asked.compile
    pick = partial(choose, trainer, asked=compile, work=work, processes=workers)
    with threads_for(run.device, run.step_activations, alone=workers == 1):
        # What compiles a network starts threads, and then nothing can fork.
        choice = pick() if workers == 1 else in_forks(1, pick)[0]
    trainer.use_execution(choice.execution)


def time_arms(trainer: Trainer, arms: Sequence[Arm], asked: Asked, done: Report, budget: float) -> list[Pace]:
    """Time the trials of each arm, as many at once as a run trains."""
    run, paces = trainer.prepared, []
    with threads_for(run.device, run.step_activations, alone=processes(asked, run) == 1):
        for arm in arms:
            paces.append(time_arm(trainer, arm, asked, budget))
            done()
    return paces
