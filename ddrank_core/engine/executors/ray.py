"""Trains on the machines of a Ray cluster, or on all GPUs of this one: an actor for each device.

Actors and not Ray's GPU tasks: a worker keeps its device memory, its CUDA graphs, its compiled students and
the loaded data from one cohort to the next, where each task would start a process, load torch and do all of
it anew for seconds of training. Ray places them, watches them and moves the data; which trial is trained when
is the run's own decision (`engine.drive`), and only the run writes the store.

As many actors are asked for as the plan can keep busy. Those that Ray can place are fed from one queue; the
others wait in Ray, where an autoscaler sees them, and join in when a machine comes or another job ends. One
that dies is replaced by a new one, wherever there is room; its task is lost and goes back to the run at once.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.choose import Choice
from ddrank_core.engine.execution import AS_IT_IS
from ddrank_core.engine.executors.contract import Executor, Finished, Lost, Task, TaughtHere
from ddrank_core.engine.executors.local import noted, said
from ddrank_core.engine.executors.ray_actor import Fault, Make, Trained, with_tensor
from ddrank_core.engine.executors.ray_bundle import pack
from ddrank_core.engine.executors.ray_cluster import Cluster, Device
from ddrank_core.engine.executors.ray_crew import Crew, Listeners, Member
from ddrank_core.engine.plan import ArmName, Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.engine.trial import OnEpoch
from ddrank_core.engine.worker import Worker

if TYPE_CHECKING:
    from torch import Tensor


def on_ray(
    address: str | None, workers: int | None = None, device: Device = "auto"
) -> Callable[[Prepared, Asked, OnEpoch], Executor]:
    """Return what makes a run's executor on the cluster of that address; see `RayExecutor`."""
    return partial(RayExecutor, address=address, workers=workers, device=device)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


class RayExecutor:
    """The executor of a Ray cluster. See `Cluster` for `address`.

    At most `workers` train side by side, where it is given. `device` is what they train on: `auto` takes GPUs
    where the cluster has any, `gpus_per_worker` of one each, and else one thread of a processor core each.
    `make` makes a worker out of the prepared run, in its process. `say` is told, in a line, what a person
    should know at once.

    Raises:
        DDRankError: one line, if there is no Ray, no cluster or no machine that can train.
    """

    def __init__(
        self,
        prepared: Prepared,
        asked: Asked,
        on_epoch: OnEpoch,
        *,
        address: str | None = None,
        workers: int | None = None,
        device: Device = "auto",
        gpus_per_worker: float = 1.0,
        make: Make = Worker,
        say: Callable[[str], None] = _say,
    ) -> None:
        self._asked, self._on_epoch = asked, on_epoch
        self._limit = workers or prepared.plan.count()
        self._queue: deque[Task] = deque()
        self._ended: list[Finished | Lost] = []
        self._failed_on: dict[str, set[str]] = {}
        """A trial's digest -> the machines that it failed on."""
        self._used: set[str] = set()
        """Machines that have trained something."""
        self._choice: Choice | None = None
        self._most: dict[str, int] = {}
        self._crew: Crew | None = None
        self._cluster = Cluster(address)
        try:
            share = self._cluster.share(device, gpus_per_worker)
            tell = Listeners(on_epoch=on_epoch, lost=self._lose, say=say)
            self._crew = Crew(self._cluster, share, prepared, asked, make, tell)
            # One is enough for a run that finds everything in the store.
            self._crew.grow(1)
            self._first = self._crew.first
        except BaseException:
            self.close()
            raise

    # -- what the devices are ----------------------------------------------------------------

    @property
    def kind(self) -> str:
        """What of the devices can change a result's bits; no worker of another kind is used."""
        return self._first.kind

    teacher_kind = kind

    @property
    def described(self) -> str:
        """One of the devices as people know it, and how students are run there."""
        return f"Ray workers on {self._first.described}{said(self._choice)}"

    @property
    def slots(self) -> int:
        """How many workers there are or can be, with the machines that are up."""
        return max(1, min(self._limit, self._workers.room()))

    def most(self, arm: ArmName, trial: Trial) -> int:
        """Return how many trials like this one a worker trains at once."""
        if arm not in self._most:
            self._most[arm] = self._workers.ask("most", arm, trial)
        return self._most[arm]

    # -- teachers ----------------------------------------------------------------------------

    def use_teachers(self, teachers: Sequence[ReadyTeacher]) -> None:
        """Send these to every worker, those that come later too."""
        self._workers.use_teachers(self._cluster.ray.put(pack(tuple(teachers))))

    def train_teacher(self, index: int, key: str) -> TaughtHere:
        """Train the config's teacher of that index on one of the workers."""
        found: TaughtHere = self._workers.ask("train_teacher", index, key, self._workers.every())
        arrays: Any = found.weights
        return attrs.evolve(found, weights={name: _own(array) for name, array in arrays.items()})

    def ask_teacher(self, index: int) -> Tensor | None:
        """Return what a teacher in use predicts of the test set."""
        found = self._workers.ask("ask_teacher", index)
        return None if found is None else _own(found)

    # -- tasks -------------------------------------------------------------------------------

    def begin(self, work: float) -> None:
        """Ask for all workers, and let one choose how students are run that are trained alone."""
        self._workers.grow(min(self._limit, self._workers.most()))
        self._choice = self._workers.ask("choose", self._asked, work, self.slots)

    def submit(self, task: Task) -> None:
        """Take a task on; it goes to a worker that has nothing to do, now or later."""
        self._queue.append(task)
        self._feed()

    def wait(self, seconds: float) -> Sequence[Finished | Lost]:
        """Return what has ended, at the latest after about so many seconds."""
        end = time.monotonic() + seconds
        while not self._ended and (left := end - time.monotonic()) > 0:
            self._workers.look(left)
            self._feed()
        ended, self._ended = self._ended, []
        return ended

    def notes(self) -> tuple[str, ...]:
        """Return who trained, what was not trained as it might have been, and why."""
        by = (f"Trained by Ray's workers on {', '.join(sorted(self._used))}.",) if self._used else ()
        return (*by, *self._workers.notes(), *noted(self._choice))

    def close(self) -> None:
        """Kill the workers, whatever they are doing, and leave the cluster."""
        self._queue.clear()
        if self._crew is not None:
            self._crew.close()
        self._cluster.close()

    # ------------------------------------------------------------------------------------------

    @property
    def _workers(self) -> Crew:
        assert self._crew is not None  # it is there from the first moment on, but for a failed start
        return self._crew

    def _feed(self) -> None:
        """Give tasks to workers that have none; one that failed somewhere goes elsewhere if it can."""
        free = self._workers.idle()
        while free and self._queue:
            task = self._queue.popleft()
            avoided = set[str]().union(*(self._failed_on.get(key, ()) for key in task.keys))
            member = min(free, key=lambda one: one.name in avoided)
            free.remove(member)
            member.task = task
            way = AS_IT_IS if self._choice is None else self._choice.execution
            due = member.actor.train.remote(task, way, self._workers.every())
            member.expect(due, partial(self._trained, member))

    def _trained(self, member: Member, answer: Trained | Fault) -> None:
        task, member.task = member.task, None
        assert task is not None  # it was given one
        if isinstance(answer, Fault):
            self._lose(member, task, answer.error)
            if answer.broken:
                self._workers.replace(member)
            return
        self._used.add(member.name)
        for event in answer.events:
            self._on_epoch(event)
        dones = tuple(map(with_tensor, answer.dones))
        self._ended.append(Finished(task=task, dones=dones, alone=answer.alone))

    def _lose(self, member: Member, task: Task, error: str) -> None:
        for key in task.keys:
            self._failed_on.setdefault(key, set()).add(member.name)
        self._ended.append(Lost(task=task, error=error, again=True))


def _own(array: Any) -> Tensor:
    """Return an array of Ray's memory as a tensor of this process."""
    import torch

    return torch.from_numpy(array.copy())
