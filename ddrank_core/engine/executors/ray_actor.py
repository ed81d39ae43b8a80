"""What runs in Ray's processes: a worker in each that has a device, and one mailbox for what they report.

These are plain classes, which the executor makes actors of.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.choose import Choice, choose
from ddrank_core.engine.device import deterministic, keep_freed_memory, resolve
from ddrank_core.engine.execution import Execution
from ddrank_core.engine.executors.contract import Task, TaughtHere
from ddrank_core.engine.executors.ray_bundle import Bundle, Surroundings, open_run, settle, versions
from ddrank_core.engine.plan import ArmName, Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.trial import Done
from ddrank_core.engine.worker import Worker
from ddrank_core.errors import ConfigError, DDRankError, one_line
from ddrank_core.events import EpochFinished

if TYPE_CHECKING:
    from torch import Tensor

Make = Callable[[Prepared, Asked], Worker]

_Result = TypeVar("_Result")


@attrs.frozen
class Arrived:
    """A process that has come up, before it is given anything."""

    host: str
    node: str
    """Ray's name for the machine."""
    versions: Mapping[str, str]


@attrs.frozen
class Ready:
    """A worker that can train."""

    kind: str
    described: str


@attrs.frozen
class Fault:
    """What was asked for and failed there."""

    error: str
    """One line."""
    broken: bool = False
    """Whether the process is of no more use: its device does not answer any longer."""


@attrs.frozen(eq=False)
class Trained:
    """The trials of a task as they are sent: predictions as uint16, a quarter of their size."""

    dones: tuple[Done, ...]
    alone: bool
    events: tuple[EpochFinished, ...]
    """What has not been reported on the way."""


class Host:
    """A process with a device of its own. Its methods return a `Fault` rather than raise."""

    def __init__(self, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self._stack = ExitStack()
        self._worker: Worker | None = None
        self._mailbox: Any = None

    def arrive(self) -> Arrived:
        """Return where this is, and with which versions."""
        import ray

        return Arrived(socket.gethostname(), ray.get_runtime_context().get_node_id(), versions())

    def start(
        self, run: Bundle, there: Surroundings, asked: Asked, mailbox: Any, make: Make
    ) -> Ready | Fault:
        """Become a worker of the run."""
        self._mailbox = mailbox
        return self._told(lambda: self._started(run, there, asked, make))

    def _started(self, run: Bundle, there: Surroundings, asked: Asked, make: Make) -> Ready:
        import torch

        self._stack.enter_context(settle(there))
        # The one GPU that Ray lets this process see.
        device = resolve("cuda:0" if self._on_gpu else "cpu")
        if not self._on_gpu:
            torch.set_num_threads(1)
        keep_freed_memory(device)
        self._stack.enter_context(deterministic(device))
        prepared = open_run(run, device)
        if prepared.config.precision != "fp32" and not self._on_gpu:
            raise ConfigError(
                f"{prepared.where}: precision: {prepared.config.precision} needs CUDA devices, and these "
                "workers have none; use fp32"
            )
        worker = self._worker = make(prepared, asked)
        return Ready(worker.kind, worker.described)

    def most(self, arm: ArmName, trial: Trial) -> int | Fault:
        """Return how many trials like this one are trained at once."""
        return self._told(lambda: self._ready.most(arm, trial))

    def choose(self, asked: Asked, work: float, processes: int) -> Choice | Fault:
        """Return how students are to be run that are trained alone."""
        # What trains in cohorts is not compiled; it is not for the few that cannot that this is chosen.
        way = "off" if (asked.cohort or 1) > 1 else asked.compile
        return self._told(lambda: choose(self._ready.trainer, way, work, processes))

    def use_teachers(self, teachers: Bundle) -> Fault | None:
        """Ask these from now on."""
        return self._told(lambda: self._taught(teachers))

    def _taught(self, teachers: Bundle) -> None:
        found = teachers.open()
        for teacher in found:
            teacher.network.to(self._ready.prepared.device)
        self._ready.use_teachers(found)

    def train_teacher(self, index: int, key: str, every: float) -> TaughtHere | Fault:
        """Train the config's teacher of that index; its weights come as arrays."""
        report = _Reporter(self._mailbox, every)

        def taught() -> TaughtHere:
            found = self._ready.train_teacher(index, key, report)
            return attrs.evolve(found, weights=_as_arrays(found.weights))

        return self._told(taught)

    def ask_teacher(self, index: int) -> Any:
        """Return what a teacher predicts of the test set, an array; None if not finite."""

        def asked() -> Any:
            found = self._ready.ask_teacher(index)
            return None if found is None else found.numpy()

        return self._told(asked)

    def train(self, task: Task, execution: Execution, every: float) -> Trained | Fault:
        """Train a task, and report its epochs every so many seconds."""

        def trained() -> Trained:
            report, trainer = _Reporter(self._mailbox, every), self._ready.trainer
            if execution != trainer.setting.execution:
                trainer.use_execution(execution)
            found = self._ready.train(task, report)
            return Trained(tuple(map(_with_array, found.dones)), found.alone, report.rest())

        return self._told(trained)

    def notes(self) -> tuple[str, ...] | Fault:
        """Return what was not trained as it might have been, and why."""
        return self._told(lambda: self._ready.notes())

    @property
    def _ready(self) -> Worker:
        assert self._worker is not None  # nothing is asked of it before it has started
        return self._worker

    def _told(self, work: Callable[[], _Result]) -> _Result | Fault:
        try:
            return work()
        except DDRankError as error:
            return Fault(str(error), self._is_broken())
        except Exception as error:  # components, files and the device raise what they like
            return Fault(one_line(error), self._is_broken())

    def _is_broken(self) -> bool:
        """Return whether the device fails at everything from now on, as CUDA does after some errors."""
        if not self._on_gpu:
            return False
        import torch

        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False


class Mailbox:
    """Holds what workers report of their epochs until the run looks: one message for it, not thousands."""

    def __init__(self) -> None:
        self._held: list[EpochFinished] = []

    def put(self, events: Sequence[EpochFinished]) -> None:
        """Keep events."""
        self._held += events

    def take(self) -> tuple[EpochFinished, ...]:
        """Return what was kept since the last time."""
        held, self._held = tuple(self._held), []
        return held


class _Reporter:
    """Sends what epochs there were: of each training the last, with the work of all."""

    def __init__(self, mailbox: Any, every: float) -> None:
        self._mailbox, self._every = mailbox, every
        self._held: dict[str, EpochFinished] = {}
        self._last = time.monotonic()

    def __call__(self, event: EpochFinished) -> None:
        before = self._held.get(event.training)
        work = event.work + (0.0 if before is None else before.work)
        self._held[event.training] = attrs.evolve(event, work=work)
        if (now := time.monotonic()) - self._last >= self._every:
            self._mailbox.put.remote(self.rest())
            self._last = now

    def rest(self) -> tuple[EpochFinished, ...]:
        """Return what has not been sent."""
        held, self._held = tuple(self._held.values()), {}
        return held


def _as_arrays(tensors: Mapping[str, Tensor]) -> Any:
    """Return tensors on the CPU as arrays."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _with_array(done: Done) -> Done:
    found = done.predictions
    sent: Any = None if found is None else found.numpy().astype("<u2")
    return attrs.evolve(done, predictions=sent)


def with_tensor(done: Done) -> Done:
    """Return a trial as it was before it was sent."""
    import torch

    found: Any = done.predictions
    return attrs.evolve(done, predictions=None if found is None else torch.from_numpy(found.astype("int64")))
