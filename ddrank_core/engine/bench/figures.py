"""Everything that `ddrank bench` measures, in the order and under the conditions of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine.bench import forecast as expected
from ddrank_core.engine.bench.arithmetic import Peak, matmul_peak
from ddrank_core.engine.bench.choose import choose
from ddrank_core.engine.bench.forecast import Forecast, TeacherForecast
from ddrank_core.engine.bench.pace import (
    Pace,
    PredictionPace,
    asked_teachers,
    processes,
    ready_trainer,
    time_arm,
    time_student_test,
    time_teacher,
    time_teacher_test,
)
from ddrank_core.engine.device import describe, deterministic, keep_freed_memory, threads_for
from ddrank_core.engine.keys import Keys
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.engine.trial import Trainer
from ddrank_core.engine.workers import Workers
from ddrank_core.errors import DDRankError, RunFailed, one_line
from ddrank_core.store import TrialStore, cache_folder

Report = Callable[[], None]
"""Called as each measurement is done."""


@attrs.frozen(kw_only=True)
class Figures:
    """What was measured for one run."""

    name: str
    device: str
    precision: str
    network: str
    image_shape: tuple[int, int, int]
    num_classes: int
    peak: Peak
    trainings: tuple[Pace, ...]
    test: PredictionPace
    forecast: Forecast | None


def measurements(runs: Sequence[Prepared], *, forecast: bool) -> int:
    """Return how many measurements `measure` does."""
    teachers = 2 * len(asked_teachers(runs[-1])) if forecast else 0
    return 2 + sum(len(run.plan.trained) for run in runs) + teachers


def measure(
    runs: Sequence[Prepared], asked: Asked, done: Report, *, forecast: bool, budget: float
) -> Figures:
    """Measure runs of one student: the device's peak, every arm's training, the test.

    With `forecast` there is one run, and what it will take is worked out. `budget` is in seconds, for each
    measurement.

    Raises:
        RunFailed: one line, if something cannot be done.
    """
    keep_freed_memory(runs[-1].device)
    with deterministic(runs[-1].device):
        try:
            return _measure(runs, asked, done, forecast, budget)
        except DDRankError:
            raise
        except Exception as error:  # components and the device raise what they like
            raise RunFailed(f"{runs[-1].where}: the measurement broke off: {one_line(error)}") from error


def _measure(
    runs: Sequence[Prepared], asked: Asked, done: Report, with_forecast: bool, budget: float
) -> Figures:
    last = runs[-1]
    workers = processes(asked, last)
    trainer = _ready(last, asked)
    # Not with the threads that small steps get: it is the device's.
    peak = matmul_peak(trainer, workers, budget / 2)
    done()
    trainings: list[Pace] = []
    for run in runs:
        trainings += _trainings(run, asked, done, budget, alone=len(runs) == 1)
    with threads_for(last.device, last.step_activations, alone=workers == 1):
        device = describe(last.device, workers)
        test = time_student_test(trainer, asked, budget)
    done()
    return Figures(
        name=last.config.name,
        device=device,
        precision=last.config.precision,
        network=last.config.student.use,
        image_shape=last.real.image_shape,
        num_classes=last.real.num_classes,
        peak=peak,
        trainings=tuple(trainings),
        test=test,
        forecast=_forecast(last, workers, trainings, test, done, budget) if with_forecast else None,
    )


def _ready(run: Prepared, asked: Asked) -> Trainer:
    """Return a run's trainer, that runs its students as the run will choose to."""
    trainer, workers = ready_trainer(run), processes(asked, run)
    pick = partial(choose, asked=asked.compile, work=trainer.total_work(), processes=workers)
    with threads_for(run.device, run.step_activations, alone=workers == 1):
        if workers == 1:
            choice = pick(trainer)
        else:
            with closing(Workers(trainer, workers)) as pool:
                choice = pool.choose(pick)
    trainer.use_execution(choice.execution)
    return trainer


def _trainings(run: Prepared, asked: Asked, done: Report, budget: float, alone: bool) -> list[Pace]:
    trainer = _ready(run, asked)
    paces = []
    with threads_for(run.device, run.step_activations, alone=processes(asked, run) == 1):
        for arm in run.plan.trained:
            pace = time_arm(trainer, arm, asked, budget)
            paces.append(pace if alone else attrs.evolve(pace, name=run.config.name))
            done()
    return paces


def _forecast(
    prepared: Prepared,
    workers: int,
    trainings: Sequence[Pace],
    test: PredictionPace,
    done: Report,
    budget: float,
) -> Forecast:
    keys, activations = Keys(prepared), prepared.step_activations
    # As a run does it: teachers get all threads, and the keys name the number of threads.
    with threads_for(prepared.device, activations):
        ready = expected.ready_teachers(prepared, keys)
        teachers = _teacher_forecasts(prepared, ready, done, budget)
    trainer = ready_trainer(prepared, ())
    with (
        threads_for(prepared.device, activations, alone=workers == 1),
        closing(TrialStore(cache_folder())) as store,
    ):
        left = expected.what_is_left(trainer, keys, store, ready)
    return expected.forecast(trainer, left, {pace.name: pace for pace in trainings}, test, teachers)


def _teacher_forecasts(
    prepared: Prepared, ready: Sequence[ReadyTeacher | None], done: Report, budget: float
) -> list[TeacherForecast]:
    trainer = ready_trainer(prepared, ())
    found = []
    for teacher, there in zip(asked_teachers(prepared), ready, strict=True):
        pace = None if there else time_teacher(trainer, teacher, budget)
        done()
        test = time_teacher_test(trainer, teacher, budget)
        done()
        found.append(expected.teacher_forecast(prepared, teacher, there is not None, pace, test))
    return found
