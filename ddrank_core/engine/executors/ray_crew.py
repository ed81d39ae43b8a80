"""The workers of a run on a Ray cluster: asked for, checked as they come up, asked things, and replaced."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine.executors.contract import Task
from ddrank_core.engine.executors.ray_actor import Arrived, Fault, Host, Mailbox, Make, Ready
from ddrank_core.engine.executors.ray_bundle import pack_run, surroundings, versions
from ddrank_core.engine.executors.ray_cluster import Cluster, Share
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.trial import OnEpoch
from ddrank_core.errors import RunFailed, one_line

_PATIENCE = 60.0
"""Seconds without any worker, after which a line says what is waited for."""
_LOOK_AGAIN = 5.0
"""Seconds between two looks at what the cluster holds."""
_MESSAGES_PER_SECOND = 200
"""At most, to the mailbox, of all workers together."""
_REPORT_EVERY = 0.5
"""Seconds between two reports of one worker, at least, and between two looks into the mailbox."""
_SPARE = 16
"""Workers to ask for beyond what the machines hold, so that others can join and an autoscaler sees them."""
_ATTEMPTS = 3
"""How many workers may die over one question, or one after the other as they start."""


@attrs.define(eq=False)
class Member:
    """An actor, and the one thing that it has been asked and has not answered."""

    actor: Any
    name: str = "a machine of the cluster"
    """Its machine's, once it is known."""
    node: str | None = None
    """Ray's name for that."""
    ready: Ready | None = None
    due: Any = None
    """Ray's reference to its answer."""
    then: Callable[[Any], None] | None = None
    """What is done with the answer."""
    task: Task | None = None

    def expect(self, due: Any, then: Callable[[Any], None]) -> None:
        """Have `then` done with the answer that is due."""
        self.due, self.then = due, then


@attrs.frozen(eq=False, kw_only=True)
class Listeners:
    """Who is told what."""

    on_epoch: OnEpoch
    lost: Callable[[Member, Task, str], None]
    """A task came to nothing, since its worker died."""
    say: Callable[[str], None]
    """A line for people, now."""


class Crew:
    """Workers of one device kind and with equal versions. Nothing is heard of them but in `look`."""

    def __init__(
        self,
        cluster: Cluster,
        share: Share,
        prepared: Prepared,
        asked: Asked,
        make: Make,
        listeners: Listeners,
    ) -> None:
        self._cluster, self._share, self._tell = cluster, share, listeners
        self._ray = cluster.ray
        self.members: list[Member] = []
        self.died: Counter[str] = Counter()
        """Machine -> how many of its workers died."""
        self.refused: dict[str, str] = {}
        """Machines whose workers are not used: Ray's name -> why."""
        self._first: Ready | None = None
        self._failed_starts = 0
        self._none_since = time.monotonic()
        self._teachers: Any = None
        self._letters: Any = None
        self._read, self._looked, self._room = 0.0, 0.0, 0
        self._versions = versions()
        self._mailbox = self._ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1).remote()
        # All that a worker starts from: the data goes to the object store, once.
        run = self._ray.put(pack_run(prepared))
        self._starting = (run, surroundings(), asked, self._mailbox, make)

    @property
    def first(self) -> Ready:
        """What the first worker that came up is; it is waited for."""
        if self._first is None:
            self.free()
        assert self._first is not None
        return self._first

    def room(self) -> int:
        """Return how many workers the machines hold that are up and can be used."""
        now = time.monotonic()
        if now - self._looked > _LOOK_AGAIN:
            self._looked, self._room = now, self._cluster.room(self._share, self.refused)
        return max(self._room, sum(member.ready is not None for member in self.members))

    def most(self) -> int:
        """Return how many workers it makes sense to ask for: what may come, and some for machines that do."""
        return max(2 * self.room() + _SPARE, self._cluster.may_hold(self._share))

    def every(self) -> float:
        """Return the seconds between two reports of a worker: the more there are, the rarer."""
        there = sum(member.ready is not None for member in self.members)
        return max(_REPORT_EVERY, there / _MESSAGES_PER_SECOND)

    # -- workers come and go -----------------------------------------------------------------

    def grow(self, count: int) -> None:
        """Ask Ray for workers until there are so many; those that it cannot place yet wait there."""
        elsewhere = {"ray.io/node-id": f"!in({', '.join(self.refused)})"} if self.refused else {}
        host = self._ray.remote(Host).options(
            num_cpus=self._share.cpus, num_gpus=self._share.gpus, label_selector=elsewhere
        )
        while len(self.members) < count:
            member = Member(host.remote(self._share.gpus > 0))
            self.members.append(member)
            member.expect(member.actor.arrive.remote(), partial(self._arrived, member))

    def _arrived(self, member: Member, about: Arrived) -> None:
        member.name, member.node = about.host, about.node
        here, there = self._versions, about.versions
        differing = [name for name, version in here.items() if there.get(name) != version]
        if differing:
            has = ", ".join(f"{name} {there.get(name)}" for name in differing)
            runs = ", ".join(f"{name} {here[name]}" for name in differing)
            self._refuse(member, about.node, f"it has {has}, and the run has {runs}; install the same")
            return
        start = member.actor.start.remote(*self._starting)
        member.expect(start, partial(self._started, member, about.node))

    def _started(self, member: Member, node: str, answer: Ready | Fault) -> None:
        if isinstance(answer, Fault):
            self._refuse(member, node, answer.error)
        elif self._first is not None and self._first.kind != answer.kind:
            why = f"it has {answer.kind}, and the run is on {self._first.kind}; their results differ"
            self._refuse(member, node, why)
        else:
            self._first = self._first or answer
            self._failed_starts, member.ready = 0, answer
            if self._teachers is not None:
                self._teach(member)

    def use_teachers(self, teachers: Any) -> None:
        """Let every worker ask these, by Ray's reference, those that come later too."""
        self._teachers = teachers
        for member in self.idle():
            self._teach(member)

    def _teach(self, member: Member) -> None:
        def taught(answer: Fault | None) -> None:
            if answer is not None:
                raise RunFailed(f"machine {member.name} cannot use the teachers: {answer.error}")

        member.expect(member.actor.use_teachers.remote(self._teachers), taught)

    def _refuse(self, member: Member, node: str, why: str) -> None:
        """Use no worker of that machine, and say so once."""
        wanted = len(self.members)
        self.drop(member)
        if node not in self.refused:
            line = self.refused[node] = f"machine {member.name} is not used: {why}"
            self._looked = 0.0
            # Those that Ray has not placed yet must not land there.
            for waiting in [one for one in self.members if one.node is None]:
                self.drop(waiting)
            if not self.members and self._cluster.room(self._share, self.refused) == 0:
                raise RunFailed(f"--executor ray: {line}")
            self._tell.say(line)
        self.grow(wanted)

    def drop(self, member: Member) -> None:
        """Kill a worker and forget it."""
        self.members.remove(member)
        # Where Ray itself is gone, so is the worker.
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(member.actor)

    def replace(self, member: Member) -> None:
        """Kill a worker and ask for another."""
        self.drop(member)
        self.grow(len(self.members) + 1)

    def _bury(self, member: Member, error: Exception) -> None:
        """Go on without a worker that has died, and ask for another."""
        self.died[member.name] += 1
        memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
        how = "was killed for want of memory" if memory else "died: killed, or its machine was lost"
        if member.task is not None:
            self._tell.lost(member, member.task, f"a worker on {member.name} {how}")
        if member.ready is None:
            self._failed_starts += 1
            if self._failed_starts >= _ATTEMPTS:
                raise RunFailed(
                    f"--executor ray: {_ATTEMPTS} workers in a row died as they started, the last on "
                    f"{member.name}: {_reason(error)}"
                )
        self.replace(member)

    def close(self) -> None:
        """Kill all, whatever they are doing."""
        while self.members:
            self.drop(self.members[-1])

    # -- messages ----------------------------------------------------------------------------

    def look(self, seconds: float) -> None:
        """Hear what workers have answered; wait for the first answer up to so many seconds, or less."""
        # A look into the mailbox must not wait for the end of a long training.
        seconds = min(seconds, _REPORT_EVERY)
        due = {member.due: member for member in self.members if member.due is not None}
        if due:
            ready, _ = self._ray.wait(list(due), num_returns=1, timeout=seconds)
            if ready:
                ready, _ = self._ray.wait(list(due), num_returns=len(due), timeout=0)
            for one in ready:
                # One before it may have been the reason to drop it.
                if due[one] in self.members:
                    self._heard(due[one])
        else:
            time.sleep(seconds)
        self._read_letters()
        self._mind_patience()

    def _heard(self, member: Member) -> None:
        due, then = member.due, member.then
        assert then is not None  # there is one with every question
        member.due = member.then = None
        try:
            answer = self._ray.get(due)
        except self._ray.exceptions.RayError as error:
            self._bury(member, error)
            return
        then(answer)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return what a free worker answers; one that dies over it is followed by another.

        Raises:
            RunFailed: one line, with what went wrong there.
        """
        for _ in range(_ATTEMPTS):
            member, answers = self.free(), list[Any]()
            member.expect(getattr(member.actor, method).remote(*arguments), answers.append)
            while member in self.members and not answers:
                self.look(_REPORT_EVERY)
            if answers and isinstance(answers[0], Fault):
                raise RunFailed(answers[0].error)
            if answers:
                return answers[0]
        raise RunFailed(f"--executor ray: {_ATTEMPTS} workers died when they were asked for {method}")

    def free(self) -> Member:
        """Return a worker that has nothing to do; wait for one as long as it takes."""
        while not (idle := self.idle()):
            self.look(_REPORT_EVERY)
        return idle[0]

    def idle(self) -> list[Member]:
        """Return the workers that have nothing to do."""
        return [member for member in self.members if member.ready is not None and member.due is None]

    def notes(self) -> tuple[str, ...]:
        """Return what the workers that are free have to say, each thing once."""
        dues = [member.actor.notes.remote() for member in self.idle()]
        ready, _ = self._ray.wait(dues, num_returns=len(dues), timeout=_LOOK_AGAIN) if dues else ([], [])
        found: dict[str, None] = {}
        for due in ready:
            with suppress(self._ray.exceptions.RayError):
                found |= dict.fromkeys(self._ray.get(due))
        died = (f"Of the workers, {sum(self.died.values())} died and were replaced.",)
        refused = [f"The {why.rstrip('.')}." for why in dict.fromkeys(self.refused.values())]
        return (*found, *(died if self.died else ()), *refused)

    def _read_letters(self) -> None:
        now = time.monotonic()
        if self._letters is None:
            if now - self._read >= _REPORT_EVERY:
                self._read, self._letters = now, self._mailbox.take.remote()
            return
        if not self._ray.wait([self._letters], timeout=0)[0]:
            return
        letters, self._letters = self._letters, None
        # Ray starts a mailbox again that dies; what lay in it was only progress.
        with suppress(self._ray.exceptions.RayError):
            for event in self._ray.get(letters):
                self._tell.on_epoch(event)

    def _mind_patience(self) -> None:
        """Say what is waited for, once, where no worker has been there for a while."""
        if any(member.ready for member in self.members):
            self._none_since = time.monotonic()
        elif time.monotonic() - self._none_since > _PATIENCE:
            self._none_since = float("inf")
            self._tell.say(
                f"waiting for a worker, which needs {self._share}; {self._cluster.vacancies()}; "
                "Ctrl-C ends the run, and what is finished is kept"
            )


def _reason(error: Exception) -> str:
    """Return what an actor died of: Ray's own text has it at the end of many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else one_line(error)
