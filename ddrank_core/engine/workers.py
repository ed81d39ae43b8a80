"""Trials on several processor cores at once: one process per core, one thread each.

A trial's result depends on its seed and on the number of threads, which is one in every worker: neither the
number of workers nor which of them a trial lands on changes a bit of it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ddrank_core.engine.execution import Execution, compiled_here
from ddrank_core.engine.plan import Arm, Trial
from ddrank_core.engine.trial import Done, OnEpoch, Trainer
from ddrank_core.errors import RunFailed
from ddrank_core.events import EpochFinished

if TYPE_CHECKING:
    import torch

_Result = TypeVar("_Result")

_PR_SET_PDEATHSIG = 1
"""From Linux's prctl.h."""
_EVENTS_EVERY = 0.2
"""Seconds between two looks at what the workers report."""
_BYTES_PER_ACTIVATION = 12
"""float32 forward, its gradient, and about as much again for the algorithms' own copies."""


def count_workers(asked: int | None, device: torch.device, step_activations: int) -> int:
    """Return how many processes train at once: as many as asked for, or a core each where that is safe.

    Processes are forked, so that they share the data. That is possible on Linux, and not beside a GPU that
    torch may have started threads for, nor after this process has compiled a network. Without a number, as
    many are used as fit into half the free memory.
    """
    import torch

    if device.type != "cpu" or not sys.platform.startswith("linux") or torch.cuda.is_available():
        return 1
    if compiled_here():
        return 1
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0))
    if "OMP_NUM_THREADS" in os.environ:
        # Who sets it has decided how to share the machine.
        return 1
    fit = _free_memory() // 2 // max(1, step_activations * _BYTES_PER_ACTIVATION)
    return max(1, min(cores, fit))


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Workers:
    """A pool of processes that train the trials of one run."""

    def __init__(self, trainer: Trainer, count: int) -> None:
        self._trainer, self._count = trainer, count
        self._context = get_context("fork")
        self._events: Any = self._context.SimpleQueue()
        self._pool: ProcessPoolExecutor | None = None
        self.execution = trainer.setting.execution
        """How students are run from now on."""

    def choose(self, choose: Callable[[Trainer], _Result]) -> _Result:
        """Return what `choose`, a function of a module, finds with the trainer of one of the processes.

        What compiles a network does not belong in the parent: it starts threads, and then nothing can fork.
        """
        with self.running() as pool:
            return pool.submit(_choose, choose).result()

    def train(
        self, arm: Arm, trials: Sequence[Trial], on_epoch: OnEpoch, finished: Callable[[Done], None]
    ) -> list[Done]:
        """Train trials of an arm; `finished` is called as each one ends. Returns them in their order.

        Raises:
            RunFailed: the first trial's that fails; the others are stopped.
        """
        with self.running() as pool:
            futures = {
                pool.submit(_train, self.execution, arm.name, trial): place
                for place, trial in enumerate(trials)
            }
            found: dict[int, Done] = {}
            pending: set[Future[Done]] = set(futures)
            while pending:
                ended, pending = wait(pending, _EVENTS_EVERY, FIRST_COMPLETED)
                for event in self._reported():
                    on_epoch(event)
                for future in ended:
                    found[futures[future]] = done = _with_tensors(future.result())
                    finished(done)
            return [found[place] for place in range(len(trials))]

    def test(self, dones: Sequence[Done]) -> list[torch.Tensor]:
        """Return the test predictions of trials that were trained, by their weights."""
        import torch

        with self.running() as pool:
            futures = [pool.submit(_test, self.execution, _with_arrays(done)) for done in dones]
            return [torch.from_numpy(future.result()) for future in futures]

    def close(self) -> None:
        """Stop the processes, whatever they are doing."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()

    @contextmanager
    def running(self) -> Iterator[ProcessPoolExecutor]:
        """Lend the processes; an error inside stops them."""
        if self._pool is None:
            global _TRAINER, _EVENTS
            # Forked processes find here what could not be sent: components and mapped files among it.
            _TRAINER, _EVENTS = self._trainer, self._events
            self._pool = ProcessPoolExecutor(self._count, mp_context=self._context, initializer=_start)
        try:
            yield self._pool
        except BrokenProcessPool as error:
            self.close()
            raise RunFailed(
                "a worker process was killed, most likely for want of memory; use fewer with --workers"
            ) from error
        except BaseException:
            self.close()
            raise

    def _reported(self) -> Iterator[Any]:
        while not self._events.empty():
            yield self._events.get()


_TRAINER: Trainer | None = None
_EVENTS: Any = None


def _start() -> None:
    """Make a forked process a worker: one thread, no Ctrl-C of its own, and no life after its parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(1)


def _trainer(execution: Execution | None = None) -> Trainer:
    assert _TRAINER is not None
    if execution is not None and execution != _TRAINER.setting.execution:
        _TRAINER.use_execution(execution)
    return _TRAINER


def _choose(choose: Callable[[Trainer], _Result]) -> _Result:
    return choose(_trainer())


def _train(execution: Execution, arm: str, trial: Trial) -> Done:
    trainer = _trainer(execution)
    (chosen,) = (one for one in trainer.plan.arms if one.name == arm)
    return _with_arrays(trainer.train(chosen, trial, _Reporter()))


def _test(execution: Execution, done: Done) -> Any:
    return _trainer(execution).test(_with_tensors(done)).numpy()


class _Reporter:
    """Sends what its epochs were to the parent, a few times a second, however short they are."""

    def __init__(self) -> None:
        self._work, self._last = 0.0, time.monotonic()

    def __call__(self, event: EpochFinished) -> None:
        self._work += event.work
        now = time.monotonic()
        if event.epoch < event.epochs and now - self._last < _EVENTS_EVERY:
            return
        _EVENTS.put(attrs.evolve(event, work=self._work))
        self._work, self._last = 0.0, now


def _with_arrays(done: Done) -> Done:
    """Return a trial as it is sent; tensors would need shared memory, of which containers have little."""
    return _converted(done, lambda tensor: tensor.numpy())


def _with_tensors(done: Done) -> Done:
    import torch

    return _converted(done, torch.from_numpy)


def _converted(done: Done, convert: Callable[[Any], Any]) -> Done:
    weights, predictions = done.weights, done.predictions
    return attrs.evolve(
        done,
        predictions=None if predictions is None else convert(predictions),
        weights=None if weights is None else {name: convert(item) for name, item in weights.items()},
    )
