"""Drives the trials of a run: looked up, claimed, handed to the executor, stored, and tried again."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import attrs

from ddrank_core.engine.executors.contract import Executor, Finished, Lost, Task
from ddrank_core.engine.kept import common_of, is_whole, read_back, to_keep
from ddrank_core.engine.keys import Keys
from ddrank_core.engine.plan import Arm, Trial
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.engine.trial import Done, Trainer, identity
from ddrank_core.engine.unfinished import forget
from ddrank_core.events import TrialFailed, TrialFinished, TrialStarted
from ddrank_core.results import TrialResult
from ddrank_core.store import About, TrialStore

Emit = Callable[[str, object], None]
"""Lifecycle hook, event."""

ArmSteps = Generator[Sequence[Trial], list[Done], None]
"""An arm under way: it asks for trials, is sent what they came to, and asks for the next."""

ATTEMPTS = 3
"""How often a trial is tried whose worker dies, or that another machine may do better."""
_SILENCE = 60.0
"""Seconds of waiting for another run after which a line says so."""
_PATIENCE = 1.0
"""Seconds between two looks at what another run trains, and for which an executor is waited for."""


@attrs.define(eq=False)
class _Batch:
    """Trials that an arm has asked for, in its order."""

    arm: Arm
    steps: ArmSteps
    trials: tuple[Trial, ...]
    found: dict[Trial, Done] = attrs.field(factory=dict)
    given_up: set[Trial] = attrs.field(factory=set)
    groups: deque[tuple[Trial, ...]] = attrs.field(factory=deque)
    """What is left to be handed out; trials that are trained at once."""

    @property
    def complete(self) -> bool:
        return len(self.found) + len(self.given_up) == len(self.trials)

    @property
    def dones(self) -> list[Done]:
        """What the trials came to, in their order."""
        return [self.found[trial] for trial in self.trials]


class Drive:
    """Gets the trials that arms ask for. Each is trained once, here or by another run on the same store."""

    def __init__(
        self,
        trainer: Trainer,
        keys: Keys,
        teachers: tuple[ReadyTeacher, ...],
        store: TrialStore,
        executor: Executor,
        emit: Emit,
    ) -> None:
        prepared = trainer.prepared
        self._prepared, self._trainer, self._teachers = prepared, trainer, teachers
        self._keys, self._store, self._executor, self._emit = keys, store, executor, emit
        self._common = common_of(prepared)
        self._places = {arm.name: place for place, arm in enumerate(prepared.plan.arms)}
        self._begun: Callable[[], None] | None = None
        self._batches: list[_Batch] = []
        self._running: dict[Task, _Batch] = {}
        self._elsewhere: dict[Trial, _Batch] = {}
        """Trials that another run has claimed."""
        self._attempts: Counter[Trial] = Counter()
        self._alone: set[str] = set()
        """Arms whose trials turned out to be trained one by one."""
        self._trained: set[str] = set()
        """Arms of which at least one trial has come to something."""
        self._looked = 0.0
        self._idle_since = time.monotonic()
        self._digests: dict[Trial, str] = {}
        self._ended = 0
        self.failed: list[TrialResult] = []
        """Trials that were given up."""
        self.left_over: list[tuple[Arm, Done]] = []
        """Trials that ended well beside one that was given up: their arm had no use for them."""

    def finish(self, arms: Sequence[tuple[Arm, ArmSteps]], begun: Callable[[], None]) -> None:
        """Carry all arms to their ends; `begun` is called before the first training, if there is any.

        An arm of which a trial fails for good is not carried further; the others are.
        """
        self._begun = begun
        for arm, steps in arms:
            self._ask(arm, steps, None)
        while self._batches:
            self._hand_out()
            self._look_elsewhere()
            if self._running:
                self._take(self._executor.wait(_PATIENCE))
                self._idle_since = time.monotonic()
            elif self._elsewhere and not any(batch.groups for batch in self._batches):
                self._say_waiting()
                time.sleep(_PATIENCE)

    def _say_waiting(self) -> None:
        """Say once what is waited for: another run may be slow, or stopped for a while."""
        if time.monotonic() - self._idle_since > _SILENCE:
            self._idle_since = float("inf")
            print(
                f"waiting for {len(self._elsewhere)} trials that another run on this machine trains; when it "
                "ends, this one trains what is left",
                file=sys.stderr,
                flush=True,
            )

    def note(self, accuracies: Mapping[Trial, float]) -> None:
        """Keep what chosen trials reached on the test set, for people to read."""
        self._store.note_accuracy({self._digests[trial]: found for trial, found in accuracies.items()})

    # -- arms --------------------------------------------------------------------------------

    def _ask(self, arm: Arm, steps: ArmSteps, dones: list[Done] | None) -> None:
        """Let an arm go on until it asks for a trial that the store has not."""
        while True:
            try:
                trials = tuple(steps.send(dones) if dones is not None else next(steps))
            except StopIteration:
                return
            batch = self._looked_up(arm, steps, trials)
            if not batch.complete:
                self._batches.append(batch)
                self._batches.sort(key=lambda one: self._places[one.arm.name])
                return
            dones = batch.dones

    def _looked_up(self, arm: Arm, steps: ArmSteps, trials: Sequence[Trial]) -> _Batch:
        for trial in trials:
            self._digests[trial] = self._keys.of_trial(arm, trial, self._teachers)
        batch = _Batch(arm, steps, tuple(trials))
        self._take_stored(batch, trials)
        if not batch.complete:
            batch.groups.extend(self._groups(batch))
        return batch

    def _groups(self, batch: _Batch) -> Iterator[tuple[Trial, ...]]:
        """Yield the missing trials in groups, the same ones whatever else is missing.

        So that a run that was stopped between two cohorts goes on with those that it would have had.
        """
        for whole in _chunks(batch.trials, self._group_size(batch)):
            if group := tuple(trial for trial in whole if trial not in batch.found):
                yield group

    def _group_size(self, batch: _Batch) -> int:
        count = len(batch.trials)
        if count == 1 or batch.arm.name in self._alone:
            return 1
        self._begin()
        fit = self._executor.most(batch.arm.name, batch.trials[0])
        return max(1, min(fit, -(-count // self._executor.slots)))

    def _begin(self) -> None:
        if self._begun is not None:
            begun, self._begun = self._begun, None
            begun()
            self._executor.begin(self._left())

    def _left(self) -> float:
        """Return about how much work is not in the store.

        Of a search, the first rung's rates are known; of an arm that misses none of these nothing is counted.
        """
        left = 0.0
        for arm in self._prepared.plan.trained:
            first = self._prepared.plan.first_trials(arm, arm.rungs[0], arm.candidates)
            kept = self._store.which([self._keys.of_trial(arm, trial, self._teachers) for trial in first])
            works = [self._trainer.work(arm, trial) for trial in first]
            if missing := len(first) - len(kept):
                left += sum(works) * missing / len(first) + self._trainer.arm_work(arm) - sum(works)
        return left

    # -- tasks -------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Submit tasks while the executor has room, those of the first arms first."""
        for batch in self._batches:
            while batch.groups and len(self._running) < self._executor.slots:
                self._submit(batch, batch.groups.popleft())
        if self._settle():
            self._hand_out()

    def _submit(self, batch: _Batch, group: tuple[Trial, ...]) -> None:
        """Train of a group what no other run trains, or has trained by now."""
        ours = self._store.claim([self._digests[trial] for trial in group])
        others = [trial for trial in group if self._digests[trial] not in ours]
        self._take_stored(batch, others)
        for trial in others:
            if trial not in batch.found:
                self._elsewhere[trial] = batch
        mine = tuple(trial for trial in group if self._digests[trial] in ours)
        if not mine:
            return
        self._begin()
        for trial in mine:
            self._emit("ddrank_trial_started", self._started(trial, len(mine)))
        task = Task(arm=batch.arm.name, trials=mine, keys=tuple(self._digests[trial] for trial in mine))
        self._running[task] = batch
        self._executor.submit(task)

    def _take(self, ended: Sequence[Finished | Lost]) -> None:
        for one in ended:
            batch = self._running.pop(one.task)
            if isinstance(one, Finished):
                self._finished(batch, one)
            else:
                self._lost(batch, one)
        self._settle()

    def _finished(self, batch: _Batch, one: Finished) -> None:
        self._store.put(
            {
                self._digests[done.trial]: to_keep(done, self._about(batch.arm, done.trial))
                for done in one.dones
            }
        )
        forget(one.task.keys)
        self._trained.add(batch.arm.name)
        for done in one.dones:
            batch.found[done.trial] = done
            work = self._trainer.work(batch.arm, done.trial) - done.reported_work
            self._report(batch.arm, done, work)
        trained = {done.trial for done in one.dones}
        if one.alone:
            self._alone.add(batch.arm.name)
            batch.groups = deque((trial,) for group in batch.groups for trial in group)
        rest = [trial for trial in one.task.trials if trial not in trained]
        self._store.release([self._digests[trial] for trial in rest])
        batch.groups.extendleft((trial,) for trial in reversed(rest))

    def _lost(self, batch: _Batch, one: Lost) -> None:
        """Try a task's trials again, from the second time on one by one; or give them up."""
        trials = one.task.trials
        self._store.release(one.task.keys)
        self._attempts.update(trials)
        if len(trials) > 1:
            # Whose fault it was shows when each is trained alone; a worker that died may have been unlucky.
            once = one.again and all(self._attempts[trial] == 1 for trial in trials)
            groups = [trials] if once else [(trial,) for trial in trials]
        else:
            groups = [trials] if one.again and self._attempts[trials[0]] < ATTEMPTS else []
        batch.groups.extendleft(reversed(groups))
        given_up = [] if groups else self._given_up(batch, trials[0], one)
        for trial in trials:
            self._tell_failed(batch, trial, one.error, given_up)

    def _given_up(self, batch: _Batch, trial: Trial, lost: Lost) -> list[Trial]:
        """Give a trial up, and all others of an arm of which nothing works; return them."""
        about = self._about(batch.arm, trial)
        self._store.fail(self._digests[trial], lost.error, self._attempts[trial], about)
        self.failed.append(_failed(trial, lost.error))
        found = [trial]
        if not lost.again and batch.arm.name not in self._trained:
            # It would fail anywhere, and none has come to anything: the others would fail likewise.
            others = [trial for group in batch.groups for trial in group]
            why = f"not tried, since another failed: {lost.error}"
            self.failed += [_failed(other, why) for other in others]
            found += others
            batch.groups.clear()
        batch.given_up.update(found)
        return found

    def _settle(self) -> bool:
        """Send arms what they have asked for, where it is all there; return whether there was any."""
        complete = [batch for batch in self._batches if batch.complete]
        for batch in complete:
            self._batches.remove(batch)
            if batch.given_up:
                batch.steps.close()
                self.left_over += [(batch.arm, done) for done in batch.found.values()]
            else:
                self._ask(batch.arm, batch.steps, batch.dones)
        return bool(complete)

    # -- the store ---------------------------------------------------------------------------

    def _stored(self, arm: Arm, trials: Sequence[Trial]) -> dict[Trial, Done]:
        kept = self._store.get_many([self._digests[trial] for trial in trials])
        found: dict[Trial, Done] = {}
        for trial in trials:
            if (stored := kept.get(self._digests[trial])) is None:
                continue
            if not is_whole(stored, trial, len(self._trainer.material.test)):
                self._store.discard([self._digests[trial]])
                continue
            found[trial] = read_back(stored, trial)
        return found

    def _take_stored(self, batch: _Batch, trials: Sequence[Trial]) -> None:
        for trial, done in self._stored(batch.arm, trials).items():
            batch.found[trial] = done
            self._trained.add(batch.arm.name)
            self._report(batch.arm, done, self._trainer.work(batch.arm, trial))

    def _look_elsewhere(self) -> None:
        """Take what another run has finished; what one has left, because it ended, is ours to train."""
        if not self._elsewhere or time.monotonic() - self._looked < _PATIENCE:
            return
        self._looked = time.monotonic()
        for batch in {id(batch): batch for batch in self._elsewhere.values()}.values():
            trials = [trial for trial, whose in self._elsewhere.items() if whose is batch]
            self._take_stored(batch, trials)
            waiting = [trial for trial in trials if trial not in batch.found]
            free = self._store.claim([self._digests[trial] for trial in waiting])
            # They are claimed for good when it is their turn.
            self._store.release(list(free))
            left = [trial for trial in waiting if self._digests[trial] in free]
            batch.groups.extend(_chunks(left, self._group_size(batch)))
            for trial in trials:
                if trial in batch.found or trial in left:
                    del self._elsewhere[trial]
        self._settle()

    def _about(self, arm: Arm, trial: Trial) -> About:
        determinants = self._keys.determinants(arm, trial, self._teachers)
        known: dict[str, Any] = {**self._common, **identity(trial)}
        return About(**known, determinants=determinants)

    # -- events ------------------------------------------------------------------------------

    def _report(self, arm: Arm, done: Done, work: float) -> None:
        self._ended += 1
        event = TrialFinished(
            result=done.result, done=self._ended, total=self._prepared.plan.count(), work=work
        )
        self._emit("ddrank_trial_finished", event)

    def _started(self, trial: Trial, at_once: int) -> TrialStarted:
        return TrialStarted(**_named(trial), attempt=self._attempts[trial] + 1, at_once=at_once)

    def _tell_failed(self, batch: _Batch, trial: Trial, error: str, given_up: Sequence[Trial]) -> None:
        self._ended += len(given_up)
        event = TrialFailed(
            **_named(trial),
            error=error,
            attempt=self._attempts[trial],
            final=bool(given_up),
            done=self._ended,
            total=self._prepared.plan.count(),
            work=sum(self._trainer.work(batch.arm, one) for one in given_up),
        )
        self._emit("ddrank_trial_failed", event)


def _failed(trial: Trial, error: str) -> TrialResult:
    known: dict[str, Any] = {"validation_accuracy": None, "accuracy": None, "epoch": 0, "diverged": False}
    return TrialResult(**identity(trial), **known, seconds=0.0, error=error)


def _chunks(trials: Sequence[Trial], size: int) -> list[tuple[Trial, ...]]:
    return [tuple(trials[start : start + size]) for start in range(0, len(trials), size)]


def _named(trial: Trial) -> dict[str, Any]:
    found = identity(trial)
    del found["subset_seed"]
    return found
