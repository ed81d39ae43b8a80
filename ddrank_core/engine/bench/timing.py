"""Times trainings and tests with the engine's own functions, as many at once as a run has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ddrank_core.engine.bench.laps import Laps, wait_for
from ddrank_core.engine.capture import Capture
from ddrank_core.engine.cohort import train_cohort
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Training, replays_views
from ddrank_core.engine.train import Setting, evaluation_batch, predict, train
from ddrank_core.engine.workers import become_worker
from ddrank_core.errors import DDRankError, RunFailed, one_line

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from torch import nn

_Result = TypeVar("_Result")

_WHOLE_STEPS = 4
"""Steps of an epoch up to which it is timed as a whole."""
_START_TOGETHER = 60.0
"""Seconds that a process waits for the others to be ready."""


@attrs.frozen(kw_only=True)
class Timed:
    """What one process found; plain numbers, since it is sent."""

    seconds: tuple[float, ...]
    """Of an epoch, or of one image of a test pass; by lap."""
    images: int
    timed_images: int
    start: float = 0.0
    """Seconds before the first epoch, for each trial."""


@attrs.frozen(eq=False, kw_only=True)
class Students:
    """Networks that are trained at once, each on its own data, or a single one."""

    networks: Sequence[nn.Module]
    data: Sequence[ImageSet]
    rates: Sequence[float]
    seeds: Sequence[int]
    folded: bool = False
    capture: Capture | None = None

    def first(self, count: int) -> Students:
        """Return the students with the first images of their data."""
        # Those that share a set go on sharing it, and with it the making of views.
        parts = {id(data): _first(data, count) for data in self.data}
        return attrs.evolve(self, data=[parts[id(data)] for data in self.data])

    def train(self, training: Training, setting: Setting, after_epoch: Callable[[int], None]) -> None:
        """Train as a run does: a cohort, or one network alone."""
        if len(self.networks) > 1:
            train_cohort(
                self.networks,
                self.data,
                training,
                self.rates,
                self.seeds,
                setting,
                after_epoch,
                self.folded,
                self.capture,
            )
        else:
            train(
                self.networks[0],
                self.data[0],
                training,
                self.rates[0],
                self.seeds[0],
                setting,
                after_epoch,
            )


class _Enough(Exception):
    """Ends a training when it has been timed."""


def time_epochs(make: Callable[[], Students], training: Training, setting: Setting, budget: float) -> Timed:
    """Time the epochs of a training; `make` returns new students.

    An epoch of many steps is timed by its first ones where all would take longer than the budget.
    """
    make()  # what is imported and cached on the way is not counted
    wait_for(setting.device)
    clock = time.perf_counter()
    students = make()
    wait_for(setting.device)
    start = (time.perf_counter() - clock) / len(students.networks)
    images = timed = len(students.data[0])
    # What is captured runs as it is for up to two epochs, and is recorded in the next.
    warm_up = 2 if students.capture is None else 4
    if -(-images // training.batch_size) > _WHOLE_STEPS and not replays_views(training):
        step = Laps(setting.device, budget / 10, least=1, most=3)
        _train_until_enough(students.first(training.batch_size), training, setting, step)
        steps = max(1, int(budget / 4 / min(step.seconds)))
        timed, warm_up = min(images, steps * training.batch_size), 1
        students = students.first(timed)
    laps = Laps(setting.device, budget, warm_up=warm_up)
    _train_until_enough(students, training, setting, laps)
    return Timed(
        seconds=tuple(seconds * images / timed for seconds in laps.seconds),
        images=images,
        timed_images=timed,
        start=start,
    )


def _train_until_enough(students: Students, training: Training, setting: Setting, laps: Laps) -> None:
    def after_epoch(_epoch: int) -> None:
        if laps.tick():
            raise _Enough

    # A training shorter than the laps, or one that diverges, begins anew.
    while not laps.enough:
        laps.start()
        try:
            students.train(training, setting, after_epoch)
        except _Enough:
            return
        laps.stop()


def _first(data: ImageSet, count: int) -> ImageSet:
    import torch

    if count >= len(data):
        return data
    return data.part(torch.arange(count, device=data.labels.device))


def time_predictions(network: nn.Module, data: ImageSet, setting: Setting, budget: float) -> Timed:
    """Time passes over the test images, or the first of them where all would take longer than the budget."""
    size = min(len(data), evaluation_batch(data, setting.device))
    batch = Laps(setting.device, budget / 10, least=1, most=3)
    _predict_until_enough(network, data, size, setting, batch)
    count = min(len(data), size * max(1, int(budget / 4 / min(batch.seconds))))
    laps = Laps(setting.device, budget, warm_up=1)
    _predict_until_enough(network, data, count, setting, laps)
    return Timed(
        seconds=tuple(seconds / count for seconds in laps.seconds), images=len(data), timed_images=count
    )


def _predict_until_enough(
    network: nn.Module, data: ImageSet, count: int, setting: Setting, laps: Laps
) -> None:
    part = attrs.evolve(data, images=data.images[:count])
    laps.start()
    while not laps.enough:
        predict(network, part, setting)
        laps.tick()


def in_workers(count: int, work: Callable[[], _Result]) -> list[_Result]:
    """Do `work` in `count` processes of one thread at the same time; return what each came to.

    One is not enough to go by: processes share the memory's bandwidth and the caches. A single one is this.
    """
    return [work()] if count == 1 else in_forks(count, work)


def in_forks(count: int, work: Callable[[], _Result]) -> list[_Result]:
    """Do `work` in `count` forked processes of one thread; return what each came to.

    Raises:
        DDRankError: what `work` raises of these.
        RunFailed: one line, for anything else, or if a process is killed.
    """
    context = get_context("fork")
    start, pipes = context.Barrier(count), [context.Pipe(duplex=False) for _ in range(count)]
    wait = partial(start.wait, _START_TOGETHER)
    forks = [
        context.Process(target=_in_fork, args=(os.getpid(), wait, work, theirs), daemon=True)
        for _, theirs in pipes
    ]
    try:
        for fork, (_, theirs) in zip(forks, pipes, strict=True):
            fork.start()
            theirs.close()
        return [_received(ours) for ours, _ in pipes]
    finally:
        for fork in forks:
            fork.kill()
            fork.join()


def _received(pipe: Connection[Any, Any]) -> Any:
    try:
        found = pipe.recv()
    except EOFError:
        raise RunFailed("a process was killed while it was timed, most likely for want of memory") from None
    if isinstance(found, DDRankError):
        raise found
    return found


def _in_fork(
    parent: int, start: Callable[[], object], work: Callable[[], object], pipe: Connection[Any, Any]
) -> None:
    become_worker(parent)
    try:
        start()
        pipe.send(work())
    except DDRankError as error:
        pipe.send(error)
    except Exception as error:  # components and the device raise what they like
        pipe.send(RunFailed(one_line(error)))
