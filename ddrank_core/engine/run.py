"""Plan -> trials -> scores: one run, from its data to its numbers, and never the same training twice."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from filelock import FileLock, Timeout

from ddrank_core.asked import Asked, Compile
from ddrank_core.engine.device import deterministic, keep_freed_memory
from ddrank_core.engine.drive import ArmSteps, Drive, Emit
from ddrank_core.engine.executors.contract import Executor
from ddrank_core.engine.executors.local import LocalExecutor
from ddrank_core.engine.executors.pool import PoolExecutor
from ddrank_core.engine.keys import Keys
from ddrank_core.engine.plan import Arm, Trial, asks_teachers
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.records import data_record, notes, protocol_record
from ddrank_core.engine.rehearse import rehearse_training
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import ReadyTeacher, make_teacher
from ddrank_core.engine.train import accuracy, build
from ddrank_core.engine.trial import Done, OnEpoch, Trainer
from ddrank_core.engine.unfinished import forget
from ddrank_core.errors import DDRankError, RunFailed, one_line
from ddrank_core.events import EpochFinished, RunStarted
from ddrank_core.results import ArmResult, ScoreResult, TrialResult
from ddrank_core.store import TrialStore, cache_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

MakeExecutor = Callable[[Prepared, Asked, OnEpoch], Executor]
"""Makes what trains a run's trials; it reports epochs to the function that it is given."""


_SILENCE = 60.0
"""Seconds of waiting for another run after which a line says so."""


@attrs.frozen(eq=False, kw_only=True)
class Outcome:
    """What a run came to."""

    arms: Mapping[str, ArmResult]
    scores: Mapping[str, ScoreResult]
    trials: tuple[TrialResult, ...]
    teachers: tuple[Mapping[str, Any], ...]
    protocol: Mapping[str, Any]
    data: Mapping[str, Any]
    device: str
    notes: tuple[str, ...]
    started: str
    seconds: float

    @property
    def failed(self) -> tuple[TrialResult, ...]:
        """The trials that were given up."""
        return tuple(trial for trial in self.trials if trial.error is not None)


def execute(
    prepared: Prepared,
    store: TrialStore,
    emit: Emit,
    workers: int = 1,
    cohort: int | None = None,
    compile: Compile = "auto",
    *,
    make: MakeExecutor | None = None,
    folder: Path | None = None,
) -> Outcome:
    """Train what is not in the store, choose, test, score.

    With several `workers`, trials are trained in as many processes of one thread each. `cohort` says how
    many are trained at once as one batched computation: where it is None, as many as fit on a GPU, and one
    on a CPU. `compile` says whether students that are trained alone on a CPU are compiled: `auto` tries it
    where a run is long. `make` makes another executor than this machine's own. Listeners are told that the
    run folder is `folder`.

    A trial that is given up leaves its arm without a result, and the scores that need it undefined.

    Raises:
        RunFailed: one line, if a training cannot be done and no score is left.
    """
    keep_freed_memory(prepared.device)
    asked = Asked(workers=workers, cohort=cohort, compile=compile)
    with deterministic(prepared.device):
        try:
            with closing(_Run(prepared, store, emit, asked, make or _on_this_machine, folder)) as run:
                return run.execute()
        except DDRankError:
            raise
        except Exception as error:  # components and the device raise what they like
            raise RunFailed(f"{prepared.where}: the run broke off: {one_line(error)}") from error


def _on_this_machine(prepared: Prepared, asked: Asked, on_epoch: OnEpoch) -> Executor:
    if (asked.workers or 1) > 1:
        return PoolExecutor(prepared, asked, asked.workers or 1, on_epoch)
    return LocalExecutor(prepared, asked, on_epoch)


class _Run:
    def __init__(
        self,
        prepared: Prepared,
        store: TrialStore,
        emit: Emit,
        asked: Asked,
        make: MakeExecutor,
        folder: Path | None,
    ) -> None:
        self.prepared, self.store, self.emit, self.folder = prepared, store, emit, folder
        self.config, self.plan = prepared.config, prepared.plan
        self.protocol = self.config.protocol.component
        self.trainer = Trainer(prepared)
        """Knows the data and the plan; what is trained, an executor trains."""
        self.executor = make(prepared, asked, self._epoch)
        self.keys = Keys(prepared, self.executor.kind)
        self.teachers: tuple[ReadyTeacher, ...] = ()
        self.finished: dict[str, list[Done]] = {}
        """Arm -> all its trials."""
        self.selected: dict[str, tuple[Done, ...]] = {}
        """Arm -> its trials that count, by repeat."""
        self.failed: list[TrialResult] = []
        self.rehearsed = False

    # -- the run -----------------------------------------------------------------------------

    def execute(self) -> Outcome:
        started, clock = datetime.now(UTC), time.perf_counter()
        if self._surely_trains():
            self._rehearse()
        self.emit("ddrank_run_started", self._start())
        if any(asks_teachers(arm.training) for arm in self.plan.trained):
            self.teachers = tuple(self._teacher(index) for index in range(len(self.config.teachers)))
            self.executor.use_teachers(self.teachers)
        self._train()
        return self._outcome(started, clock)

    def _outcome(self, started: datetime, clock: float) -> Outcome:
        # Only now, when every choice is made, are the test labels read.
        counted = {id(done) for group in self.selected.values() for done in group}
        finished = [done for arm in self.plan.trained for done in self.finished[arm.name]]
        scored = [self._score_trial(done) if id(done) in counted else done.result for done in finished]
        arms = self._arm_results()
        scores = score_all(self.config, arms)
        if self.failed and all(score.mean is None for score in scores.values()):
            raise RunFailed(str(self.failed[0].error))
        trials = (*scored, *self.failed)
        return Outcome(
            arms=arms,
            scores=scores,
            trials=trials,
            teachers=tuple(self._teacher_record(index) for index in range(len(self.teachers))),
            protocol=protocol_record(self.prepared),
            data=data_record(self.prepared, self.keys.train),
            device=self.executor.described,
            notes=(*notes(self.prepared, arms, trials), *self.executor.notes()),
            started=started.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - clock,
        )

    def close(self) -> None:
        """Stop whatever is under way."""
        self.executor.close()

    def _surely_trains(self) -> bool:
        """Return whether a trial is missing that does not hang on a teacher."""
        for arm in self.plan.trained:
            if not asks_teachers(arm.training):
                trials = self.plan.first_trials(arm, arm.rungs[0], arm.candidates)
                digests = [self.keys.of_trial(arm, trial, ()) for trial in trials]
                if len(self.store.which(digests)) < len(trials):
                    return True
        return False

    def _rehearse(self) -> None:
        """Find out what is wrong with a component before the first training; a rerun needs none of it."""
        if not self.rehearsed:
            self.rehearsed = True
            rehearse_training(self.prepared)

    def _start(self) -> RunStarted:
        return RunStarted(
            name=self.config.name,
            device=self.executor.described,
            arms=tuple(arm.name for arm in self.plan.trained),
            trials=self.plan.count(),
            work=self.trainer.total_work(),
            folder=self.folder,
            config=self.config.resolved(),
            at_once=self.executor.slots,
        )

    def _epoch(self, event: EpochFinished) -> None:
        self.emit("ddrank_epoch_finished", event)

    # -- arms --------------------------------------------------------------------------------

    def _train(self) -> None:
        drive = Drive(self.trainer, self.keys, self.teachers, self.store, self.executor, self.emit)
        self.finished = {arm.name: [] for arm in self.plan.trained}
        drive.finish([(arm, self._arm(arm)) for arm in self.plan.trained], self._rehearse)
        self.failed = drive.failed
        for arm, done in drive.left_over:
            self.finished[arm.name].append(done)
        labels = self.prepared.real.test_labels
        found = (done for dones in self.selected.values() for done in dones)
        drive.note({done.trial: known for done in found if (known := _right(done, labels)) is not None})

    def _arm(self, arm: Arm) -> ArmSteps:
        """Ask for the arm's trials, and choose those that count."""
        first = yield from self._search(arm)
        by_result = {done.result: done for done in first}
        selected = tuple(by_result[result] for result in self.protocol.select(tuple(by_result)))
        if self.plan.searches_apart(arm):
            trials = self.plan.final_trials(arm, selected[0].result.learning_rate)
            selected = tuple((yield from self._get(arm, trials)))
        self.selected[arm.name] = selected
        counted = {id(done) for done in selected}
        for done in self.finished[arm.name]:
            if id(done) not in counted:
                # The store has them; of a large run they would fill the memory.
                done.predictions = None

    def _search(self, arm: Arm) -> Generator[Sequence[Trial], list[Done], list[Done]]:
        """Ask for the arm's trials over the candidate rates, and repeats: all of them, or ever fewer."""
        found: list[Done] = []
        rates: Sequence[float] = arm.candidates
        for rung in arm.rungs:
            if found:
                rates = self.protocol.keep([done.result for done in found], rung.rates)
            found += yield from self._get(arm, self.plan.first_trials(arm, rung, rates))
        return found

    def _get(self, arm: Arm, trials: Sequence[Trial]) -> Generator[Sequence[Trial], list[Done], list[Done]]:
        dones = yield trials
        self.finished[arm.name] += dones
        return dones

    # -- teachers ----------------------------------------------------------------------------

    def _teacher(self, index: int) -> ReadyTeacher:
        teacher, training, real = (
            self.config.teachers[index],
            self.prepared.teacher_training,
            self.prepared.real,
        )
        seed = derive(self.config.seed, "teacher", index)
        rate = self.config.full_data.recipe.learning_rate if self.config.full_data.recipe else 0.0
        network = build(teacher.network.component, real.num_classes, real.image_shape, seed)
        keys = self.keys.on(self.executor.teacher_kind)
        key = keys.of_teacher(teacher.network, training, rate, seed) if training else "none"
        cached = cache_folder() / "teachers" / f"{key}.safetensors"

        def train_it(network: nn.Module) -> bool:
            self._rehearse()
            taught = self.executor.train_teacher(index, key)
            network.load_state_dict(taught.weights)
            return taught.finite

        if not teacher.is_trained_here:
            return make_teacher(teacher, index, network, self.prepared.device, cached, train_it)
        cached.parent.mkdir(parents=True, exist_ok=True)
        # Another run that needs the same teacher waits for it.
        with _alone(cached.with_suffix(".lock")):
            # As with a trial: nobody prunes what is kept of a training that is under way.
            self.store.claim([key])
            ready = make_teacher(teacher, index, network, self.prepared.device, cached, train_it)
            forget((key,))
            self.store.release([key])
        return ready

    def _teacher_record(self, index: int) -> Mapping[str, Any]:
        teacher, check = self.teachers[index], self.prepared.teacher_checks[index]
        predictions = self.executor.ask_teacher(index)
        known = None if predictions is None else accuracy(predictions, self.prepared.real.test_labels)
        return {
            "use": teacher.use,
            "source": teacher.source,
            "digest": teacher.digest,
            "accuracy": known,
            "check": None if check is None else attrs.asdict(check),
        }

    # -- results -----------------------------------------------------------------------------

    def _score_trial(self, done: Done) -> TrialResult:
        known = _right(done, self.prepared.real.test_labels)
        return attrs.evolve(done.result, accuracy=known, diverged=known is None)

    def _arm_results(self) -> dict[str, ArmResult]:
        results: dict[str, ArmResult] = {}
        full, repeats = self.config.full_data, self.plan.repeats
        if full.accuracy is not None:
            given = (full.accuracy,) * repeats
            arm = summarise_arm("full-hard", given, (None,) * repeats, source=full.source)
            results["full-hard"] = attrs.evolve(arm, std=None, n=1)
        for arm_plan in self.plan.arms:
            name = arm_plan.same_as or arm_plan.name
            selected = [self._score_trial(done) for done in self.selected.get(name, ())]
            results[arm_plan.name] = summarise_arm(
                arm_plan.name,
                [trial.accuracy for trial in selected] or [None] * repeats,
                [trial.learning_rate for trial in selected] or [None] * repeats,
                failed=sum(trial.arm == name for trial in self.failed),
                same_as=arm_plan.same_as,
            )
        return results


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a file's lock; while another run has it, wait for as long as it takes, and say so."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_SILENCE)
    except Timeout:
        print("waiting for a teacher that another run on this machine trains", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _right(done: Done, labels: Tensor) -> float | None:
    """Return a trial's test accuracy; None if it diverged, or a logit of its test was not finite."""
    if done.result.diverged or done.predictions is None or len(done.predictions) == 0:
        return None
    return accuracy(done.predictions, labels) if done.result.accuracy is None else done.result.accuracy
