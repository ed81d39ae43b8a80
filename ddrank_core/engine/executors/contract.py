"""The contract between a run, which decides what is trained, and an executor, which trains it somewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from ddrank_core.engine.plan import ArmName, Trial
from ddrank_core.engine.trial import Done

if TYPE_CHECKING:
    from torch import Tensor

    from ddrank_core.engine.teachers import ReadyTeacher


@attrs.frozen(kw_only=True)
class Task:
    """Trials of one arm that are trained at once on one device, and the digests they are stored under."""

    arm: ArmName
    trials: tuple[Trial, ...]
    keys: tuple[str, ...]


@attrs.frozen(eq=False, kw_only=True)
class Finished:
    """What a task came to. It may be the first of its trials only: the rest is to be submitted anew."""

    task: Task
    dones: tuple[Done, ...]
    alone: bool = False
    """Whether trials of this arm have to be trained one by one."""
    notes: tuple[str, ...] = ()
    """What the worker has to say so far, where it is not asked at the end."""


@attrs.frozen(kw_only=True)
class Lost:
    """A task that came to nothing."""

    task: Task
    error: str
    """Why, in one line."""
    again: bool
    """Whether another attempt may do better: a worker died, or another machine can try."""


@attrs.frozen(eq=False, kw_only=True)
class TaughtHere:
    """A teacher as a worker trained it."""

    weights: Mapping[str, Tensor]
    """On the CPU; not to be used where it diverged."""
    finite: bool


class Executor(Protocol):
    """Trains tasks. Only the run that drives it writes the store.

    `submit` and `wait` are called from one thread; events of epochs come from within `wait`.
    """

    @property
    def kind(self) -> str:
        """What of the devices can change a result's bits, as `device.kind` says it; part of every digest."""
        ...

    @property
    def teacher_kind(self) -> str:
        """The same of where teachers are trained: a long training alone may have more threads."""
        ...

    @property
    def described(self) -> str:
        """The devices as people know them, for the record."""
        ...

    @property
    def slots(self) -> int:
        """How many tasks can be under way at once."""
        ...

    def most(self, arm: ArmName, trial: Trial) -> int:
        """Return how many trials like this one a task may have."""
        ...

    def use_teachers(self, teachers: Sequence[ReadyTeacher]) -> None:
        """Ask these from now on, wherever labels need a teacher."""
        ...

    def train_teacher(self, index: int, key: str) -> TaughtHere:
        """Train the config's teacher of that index on the real data; `key` is its digest."""
        ...

    def ask_teacher(self, index: int) -> Tensor | None:
        """Return what a teacher in use predicts of the test set, int64 [N] on the CPU; None if not finite."""
        ...

    def begin(self, work: float) -> None:
        """Get ready for the first task; `work` is about what is to be trained, as `Trainer.work` counts."""
        ...

    def submit(self, task: Task) -> None:
        """Take a task on, beside those that are under way."""
        ...

    def wait(self, seconds: float) -> Sequence[Finished | Lost]:
        """Return what has ended, at the latest after so many seconds; not at once unless something has."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the record should know about how trials were trained, one sentence each."""
        ...

    def close(self) -> None:
        """Stop whatever is under way."""
        ...
