"""Trains in this process, on one device: one cohort after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.choose import Choice, choose
from ddrank_core.engine.device import threads_for
from ddrank_core.engine.execution import AS_IT_IS
from ddrank_core.engine.executors.contract import Finished, Lost, Task, TaughtHere
from ddrank_core.engine.plan import ArmName, Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.engine.trial import OnEpoch
from ddrank_core.engine.worker import Worker
from ddrank_core.errors import DDRankError

if TYPE_CHECKING:
    from torch import Tensor


class LocalExecutor:
    """The executor of a GPU, and of a CPU where trials are trained one by one or in cohorts."""

    slots = 1

    def __init__(self, prepared: Prepared, asked: Asked, on_epoch: OnEpoch) -> None:
        self._prepared, self._asked, self._on_epoch = prepared, asked, on_epoch
        self._worker = Worker(prepared, asked)
        self._queue: deque[Task] = deque()
        self._choice: Choice | None = None

    @property
    def kind(self) -> str:
        """What of the device can change a result's bits."""
        with self._threads():
            return self._worker.kind

    teacher_kind = kind

    @property
    def described(self) -> str:
        """The device's name as people know it, and how students are run there."""
        with self._threads():
            return self._worker.described + said(self._choice)

    def most(self, arm: ArmName, trial: Trial) -> int:
        """Return how many trials like this one are trained at once."""
        with self._threads():
            return self._worker.most(arm, trial)

    def use_teachers(self, teachers: Sequence[ReadyTeacher]) -> None:
        """Ask these from now on, wherever labels need a teacher."""
        self._worker.use_teachers(teachers)

    def train_teacher(self, index: int, key: str) -> TaughtHere:
        """Train the config's teacher of that index on the real data."""
        with self._threads():
            return self._worker.train_teacher(index, key, self._on_epoch)

    def ask_teacher(self, index: int) -> Tensor | None:
        """Return what a teacher in use predicts of the test set."""
        with self._threads():
            return self._worker.ask_teacher(index)

    def begin(self, work: float) -> None:
        """Choose how students are run that are trained alone."""
        # What trains in cohorts is not compiled; it is not for the few that cannot that this is chosen.
        asked = "off" if (self._asked.cohort or 1) > 1 else self._asked.compile
        with self._threads():
            self._choice = partial(choose, asked=asked, work=work, processes=1)(self._worker.trainer)
        self._worker.trainer.use_execution(self._choice.execution)

    def submit(self, task: Task) -> None:
        """Take a task on; it is trained by `wait`."""
        self._queue.append(task)

    def wait(self, seconds: float) -> Sequence[Finished | Lost]:
        """Train the task that was submitted first; takes as long as it takes."""
        task = self._queue.popleft()
        try:
            with self._threads():
                return (self._worker.train(task, self._on_epoch),)
        except DDRankError as error:
            # Here it would only fail again.
            return (Lost(task=task, error=str(error), again=False),)

    def notes(self) -> tuple[str, ...]:
        """Return what was not trained as it might have been, and why."""
        return (*self._worker.notes(), *noted(self._choice))

    def close(self) -> None:
        """Forget what has not been trained."""
        self._queue.clear()

    def _threads(self) -> AbstractContextManager[None]:
        return threads_for(self._prepared.device, self._prepared.step_activations)


def said(choice: Choice | None) -> str:
    """Return how students are run, as it is added to a device's name."""
    return "" if choice is None or choice.execution == AS_IT_IS else f", students {choice.execution}"


def noted(choice: Choice | None) -> tuple[str, ...]:
    """Return what a reader of the record should know of the choice."""
    return (choice.note,) if choice is not None and choice.note else ()
