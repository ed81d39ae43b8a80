"""Trains on several processor cores at once: forked processes of one thread each.

A trial's result depends on its seed and on the number of threads, which is one in every process: neither the
number of processes nor which of them a trial lands on changes a bit of it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, cast

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.choose import Choice, choose
from ddrank_core.engine.device import describe, threads_for
from ddrank_core.engine.execution import AS_IT_IS, Execution
from ddrank_core.engine.executors.contract import Finished, Lost, Task, TaughtHere
from ddrank_core.engine.executors.local import noted, said
from ddrank_core.engine.plan import ArmName, Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.engine.trial import Done, OnEpoch
from ddrank_core.engine.worker import Worker
from ddrank_core.engine.workers import become_worker
from ddrank_core.errors import DDRankError, RunFailed, one_line
from ddrank_core.events import EpochFinished

if TYPE_CHECKING:
    from torch import Tensor

_EVENTS_EVERY = 0.2
"""Seconds between two messages about epochs from one process."""


class PoolExecutor:
    """The executor of a CPU with several cores."""

    def __init__(self, prepared: Prepared, asked: Asked, count: int, on_epoch: OnEpoch) -> None:
        self._prepared, self._asked, self._on_epoch = prepared, asked, on_epoch
        self._worker = Worker(prepared, asked)
        self._count = count
        self._processes: list[_Process] = []
        self._queue: list[Task] = []
        self._choice: Choice | None = None
        self._killed = 0
        self._notes: dict[str, None] = {}
        """What the processes had to say, without repetitions."""
        with self._threads():
            self.kind = self._worker.kind
        with self._all_threads():
            self.teacher_kind = self._worker.kind

    @property
    def slots(self) -> int:
        """How many processes train at once."""
        return self._count

    @property
    def described(self) -> str:
        """The processor, the processes, and how students are run there."""
        with self._threads():
            return describe(self._prepared.device, self._count) + said(self._choice)

    def most(self, arm: ArmName, trial: Trial) -> int:
        """Return 1: every process trains one trial at a time."""
        return 1

    # Teachers are one long training each, before the others: this process trains them, on all cores.

    def use_teachers(self, teachers: Sequence[ReadyTeacher]) -> None:
        """Ask these from now on; the processes, which are not there yet, inherit them."""
        self._worker.use_teachers(teachers)

    def train_teacher(self, index: int, key: str) -> TaughtHere:
        """Train the config's teacher of that index on the real data."""
        with self._all_threads():
            return self._worker.train_teacher(index, key, self._on_epoch)

    def ask_teacher(self, index: int) -> Tensor | None:
        """Return what a teacher in use predicts of the test set."""
        with self._all_threads():
            return self._worker.ask_teacher(index)

    def begin(self, work: float) -> None:
        """Choose how students are run, in one of the processes.

        What compiles a network does not belong in this one: it starts threads, and then nothing can fork.
        """
        pick = partial(choose, asked=self._asked.compile, work=work, processes=self._count)
        process = self._started()
        try:
            self._choice = cast(Choice, process.ask(pick))
        except (EOFError, OSError):
            process.stop()
            self._processes.remove(process)
            raise RunFailed("a process was killed while the ways to train were timed; run again") from None

    def submit(self, task: Task) -> None:
        """Take a task on; it goes to a process that has nothing to do, now or later."""
        self._queue.append(task)
        self._feed()

    def wait(self, seconds: float) -> Sequence[Finished | Lost]:
        """Return what has ended, at the latest after so many seconds."""
        end = time.monotonic() + seconds
        ended: list[Finished | Lost] = []
        while not ended and (left := end - time.monotonic()) > 0:
            busy = {process.connection: process for process in self._processes if process.task is not None}
            for connection in wait(list(busy), left):
                ended += self._heard(busy[cast("Connection[Any, Any]", connection)])
            self._feed()
        return ended

    def notes(self) -> tuple[str, ...]:
        """Return what was not trained as it might have been, and why."""
        killed = (
            f"{self._killed} worker processes were killed, most likely for want of memory; "
            f"in the end {self._count} trained at once.",
        )
        return (*self._notes, *noted(self._choice), *(killed if self._killed else ()))

    def close(self) -> None:
        """Stop the processes, whatever they are doing."""
        for process in self._processes:
            process.stop()
        self._processes.clear()
        self._queue.clear()

    # ------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Give tasks to processes that have none; they are started when the first one comes."""
        while self._queue and (process := self._free()) is not None:
            process.start(self._queue.pop(0), AS_IT_IS if self._choice is None else self._choice.execution)

    def _free(self) -> _Process | None:
        free = (process for process in self._processes if process.task is None)
        if (process := next(free, None)) is not None:
            return process
        return self._started() if len(self._processes) < self._count else None

    def _started(self) -> _Process:
        with self._threads():
            process = _Process(self._worker)
        self._processes.append(process)
        return process

    def _heard(self, process: _Process) -> Iterator[Finished | Lost]:
        try:
            message = process.receive()
        except (EOFError, OSError):
            yield self._lost(process)
            return
        if isinstance(message, EpochFinished):
            self._on_epoch(message)
            return
        process.task = None
        if isinstance(message, Finished):
            self._notes.update(dict.fromkeys(message.notes))
        yield message

    def _lost(self, process: _Process) -> Lost:
        """Take a process out that has died, and go on with one less: its memory goes to the others."""
        process.stop()
        self._processes.remove(process)
        self._killed += 1
        self._count = max(1, self._count - 1)
        assert process.task is not None  # only the busy ones are listened to
        return Lost(
            task=process.task,
            error=(
                "a worker process was killed, most likely for want of memory; "
                "use fewer with --workers, or less memory with recipe.micro_batch"
            ),
            again=True,
        )

    def _threads(self) -> Any:
        return threads_for(self._prepared.device, self._prepared.step_activations, alone=False)

    def _all_threads(self) -> Any:
        return threads_for(self._prepared.device, self._prepared.step_activations)


class _Process:
    """A forked process that trains one task at a time. It finds data and components as they are here."""

    def __init__(self, worker: Worker) -> None:
        context = get_context("fork")
        self.connection, theirs = context.Pipe()
        self.task: Task | None = None
        self._process = context.Process(target=_serve, args=(worker, theirs, os.getpid()), daemon=True)
        # A Ctrl-C that the child inherits before it is told to ignore it would show its traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def start(self, task: Task, execution: Execution) -> None:
        """Let it train a task."""
        self.task = task
        # One that has died is found out by the wait for its answer.
        with suppress(BrokenPipeError):
            self.connection.send(partial(_train, task=task, execution=execution))

    def ask(self, work: Callable[..., Any]) -> Any:
        """Return what `work`, a function of a module, finds with the process's trainer.

        Raises:
            EOFError: if the process dies over it.
        """
        self.connection.send(partial(_with_trainer, work=work))
        found = self.connection.recv()
        if isinstance(found, DDRankError):
            raise found
        return found

    def receive(self) -> Any:
        """Return the next message; tensors come as arrays."""
        message = self.connection.recv()
        if not isinstance(message, Finished):
            return message
        return attrs.evolve(message, dones=tuple(_with_tensor(done) for done in message.dones))

    def stop(self) -> None:
        """Stop the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self.connection.close()


# -- in the process ----------------------------------------------------------------------------


def _serve(worker: Worker, connection: Connection[Any, Any], parent: int) -> None:
    """Do what is asked for, one after another."""
    become_worker(parent)
    with suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(connection.recv()(worker, connection))


def _train(worker: Worker, connection: Connection[Any, Any], task: Task, execution: Execution) -> Any:
    if execution != worker.trainer.setting.execution:
        worker.trainer.use_execution(execution)
    try:
        found = worker.train(task, _Reporter(connection))
    except DDRankError as error:
        # In another process of this machine it would only fail again.
        return Lost(task=task, error=str(error), again=False)
    except Exception as error:  # what the device raises
        return Lost(task=task, error=f"{task.arm}: the training broke off: {one_line(error)}", again=False)
    dones = tuple(_with_array(done) for done in found.dones)
    return attrs.evolve(found, dones=dones, notes=worker.notes())


def _with_trainer(worker: Worker, connection: Connection[Any, Any], work: Callable[..., Any]) -> Any:
    try:
        return work(worker.trainer)
    except DDRankError as error:
        return error
    except Exception as error:  # components and compilers raise what they like
        return RunFailed(one_line(error))


class _Reporter:
    """Sends what its epochs were to the parent, a few times a second, however short they are."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._work, self._last = 0.0, time.monotonic()

    def __call__(self, event: EpochFinished) -> None:
        self._work += event.work
        now = time.monotonic()
        if event.epoch < event.epochs and now - self._last < _EVENTS_EVERY:
            return
        self._connection.send(attrs.evolve(event, work=self._work))
        self._work, self._last = 0.0, now


def _with_array(done: Done) -> Done:
    """Return a trial as it is sent; a tensor would need shared memory, of which containers have little."""
    found = done.predictions
    return attrs.evolve(done, predictions=None if found is None else found.numpy())  # type: ignore[arg-type]


def _with_tensor(done: Done) -> Done:
    import torch

    found = done.predictions
    return attrs.evolve(done, predictions=None if found is None else torch.from_numpy(found))
