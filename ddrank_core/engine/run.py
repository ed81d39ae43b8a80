"""Plan -> trials -> scores: drives one run, on one device, and never trains the same thing twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.asked import Compile
from ddrank_core.engine.bench.choose import Choice, choose
from ddrank_core.engine.cohort_probe import Probe
from ddrank_core.engine.cohorts import Cohorts
from ddrank_core.engine.device import describe, deterministic, keep_freed_memory, threads_for
from ddrank_core.engine.execution import AS_IT_IS
from ddrank_core.engine.keys import Keys
from ddrank_core.engine.plan import Arm, Trial, asks_teachers
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.records import data_record, notes, protocol_record
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import ReadyTeacher, make_teacher
from ddrank_core.engine.train import accuracy, build, predict, train
from ddrank_core.engine.trial import Done, Trainer, identity
from ddrank_core.engine.workers import Workers
from ddrank_core.errors import DDRankError, RunFailed, one_line
from ddrank_core.events import EpochFinished, RunStarted, TrialFinished
from ddrank_core.results import ArmResult, ScoreResult, TrialResult
from ddrank_core.store import StoredTrial, TrialStore, cache_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

Emit = Callable[[str, object], None]
"""Lifecycle hook, event."""


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


def execute(
    prepared: Prepared,
    store: TrialStore,
    emit: Emit,
    workers: int = 1,
    cohort: int | None = None,
    compile: Compile = "auto",
) -> Outcome:
    """Train what is not in the store, choose, test, score.

    With several `workers`, trials are trained in as many processes of one thread each. `cohort` says how
    many are trained at once as one batched computation: where it is None, as many as fit on a GPU, and one
    on a CPU. `compile` says whether students that are trained alone on a CPU are compiled: `auto` tries it
    where a run is long.

    Raises:
        RunFailed: one line, if a training cannot be done.
    """
    keep_freed_memory(prepared.device)
    with deterministic(prepared.device):
        try:
            with closing(_Run(prepared, store, emit, workers, cohort, compile)) as run:
                return run.execute()
        except DDRankError:
            raise
        except Exception as error:  # components and the device raise what they like
            raise RunFailed(f"{prepared.where}: the run broke off: {one_line(error)}") from error


class _Run:
    def __init__(
        self,
        prepared: Prepared,
        store: TrialStore,
        emit: Emit,
        workers: int,
        cohort: int | None,
        compile: Compile,
    ) -> None:
        self.prepared, self.store, self.emit, self.count = prepared, store, emit, workers
        self.config, self.plan, self.device = prepared.config, prepared.plan, prepared.device
        self.protocol = self.config.protocol.component
        self.keys = Keys(prepared)
        self.teachers: tuple[ReadyTeacher, ...] = ()
        self.trainer = Trainer(prepared)
        self.cohorts = Cohorts(self.trainer, cohort, captures=compile != "off")
        self.workers: Workers | None = None
        self.compile = compile
        self.choice: Choice | None = None
        """How students are run that are trained alone; made before the first of them."""
        self.done = 0
        self.selected: dict[str, tuple[Done, ...]] = {}
        """Arm -> its trials that count, by repeat."""

    # -- the run -----------------------------------------------------------------------------

    def execute(self) -> Outcome:
        started, clock = datetime.now(UTC), time.perf_counter()
        activations = self.prepared.step_activations
        with threads_for(self.device, activations, alone=self.count == 1):
            self.emit("ddrank_run_started", self._start())
        if any(asks_teachers(arm.training) for arm in self.plan.trained):
            # A teacher is one long training: it gets all threads.
            with threads_for(self.device, activations):
                self.teachers = tuple(self._teacher(index) for index in range(len(self.config.teachers)))
            self.trainer.use_teachers([teacher.network for teacher in self.teachers])
        with threads_for(self.device, activations, alone=self.count == 1):
            return self._outcome(started, clock)

    def _outcome(self, started: datetime, clock: float) -> Outcome:
        finished = [done for arm in self.plan.trained for done in self._arm(arm)]
        # Only now, when every choice is made, are the test labels read.
        counted = {id(done) for group in self.selected.values() for done in group}
        trials = tuple(self._score_trial(done) if id(done) in counted else done.result for done in finished)
        arms = self._arm_results()
        return Outcome(
            arms=arms,
            scores=score_all(self.config, arms),
            trials=trials,
            teachers=tuple(self._teacher_record(index) for index in range(len(self.teachers))),
            protocol=protocol_record(self.prepared),
            data=data_record(self.prepared, self.keys.train),
            device=self._described(),
            notes=(*notes(self.prepared, arms, trials), *self._training_notes()),
            started=started.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - clock,
        )

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        if self.workers is not None:
            self.workers.close()

    def _start(self) -> RunStarted:
        names = tuple(arm.name for arm in self.plan.trained)
        return RunStarted(
            name=self.config.name,
            device=self._described(),
            arms=names,
            trials=self.plan.count(),
            work=self.trainer.total_work(),
        )

    def _described(self) -> str:
        way = None if self.choice is None or self.choice.execution == AS_IT_IS else self.choice.execution
        return describe(self.device, self.count) + ("" if way is None else f", students {way}")

    # -- arms --------------------------------------------------------------------------------

    def _arm(self, arm: Arm) -> list[Done]:
        """Return all of the arm's trials; the selected ones have test predictions."""
        first = self._search(arm)
        by_result = {done.result: done for done in first}
        selected = tuple(by_result[result] for result in self.protocol.select(tuple(by_result)))
        finals: list[Done] = []
        if self.plan.searches_apart(arm):
            rate = selected[0].result.learning_rate
            finals = self._trials(arm, self.plan.final_trials(arm, rate))
        self.selected[arm.name] = tuple(finals) or selected
        self._test(arm, self.selected[arm.name])
        for done in first:
            done.weights = None
        return [*first, *finals]

    def _search(self, arm: Arm) -> list[Done]:
        """Return the arm's trials over the candidate rates, and repeats: all of them, or ever fewer."""
        found: list[Done] = []
        rates: Sequence[float] = arm.candidates
        for rung in arm.rungs:
            if found:
                rates = self.protocol.keep([done.result for done in found], rung.rates)
            found += self._trials(arm, self.plan.first_trials(arm, rung, rates))
        return found

    def _trials(self, arm: Arm, trials: Sequence[Trial]) -> list[Done]:
        """Return trials, in their order: read back from the store, or trained now."""
        found = {trial: self._stored(arm, trial) for trial in trials}
        missing = [trial for trial in trials if found[trial] is None]
        trained = dict(zip(missing, self._train(arm, missing, self._finished), strict=True))
        return [found[trial] or trained[trial] for trial in trials]

    def _stored(self, arm: Arm, trial: Trial) -> Done | None:
        stored = self.store.get(self._key(arm, trial))
        if stored is None or not fits_test(stored.predictions, len(self.trainer.material.test)):
            return None
        result = TrialResult(**identity(trial), **stored.outcome, reused=True)
        self._report(result, self.trainer.work(arm, trial))
        return Done(trial, result, _unpack(stored.predictions), None)

    def _train(self, arm: Arm, trials: Sequence[Trial], finished: Callable[[Arm, Done], None]) -> list[Done]:
        """Train trials; `finished` is called as each one ends. Returns them in their order."""
        if not trials:
            return []
        self._choose()
        if self.count > 1:
            return self._pool().train(arm, trials, self._epoch, lambda done: finished(arm, done))
        dones: list[Done] = []
        for group in self.cohorts.split(arm, trials):
            found = self.cohorts.probe(arm, group[0]) if len(group) > 1 else Probe(reason=None)
            trained = self.trainer.train_together(arm, group, found.folded, self._epoch, found.capture)
            for done in trained:
                finished(arm, done)
            dones += trained
        return dones

    def _choose(self) -> None:
        """Choose how students are run, once, before the first of them."""
        if self.choice is not None:
            return
        # What trains in cohorts is not compiled; it is not for the few that cannot that this is chosen.
        asked = "off" if (self.cohorts.asked or 1) > 1 else self.compile
        pick = partial(choose, asked=asked, work=self._left(), processes=self.count)
        if self.count > 1:
            self.choice = self._pool().choose(pick)
            self._pool().execution = self.choice.execution
        else:
            self.choice = pick(self.trainer)
            self.trainer.use_execution(self.choice.execution)

    def _left(self) -> float:
        """Return about how much work is not in the store.

        Of a search, the first rung's rates are known; of an arm that misses none of these nothing is counted.
        """
        left = 0.0
        for arm in self.plan.trained:
            first = self.plan.first_trials(arm, arm.rungs[0], arm.candidates)
            missing = [trial for trial in first if self.store.get(self._key(arm, trial)) is None]
            later = self.trainer.arm_work(arm) - sum(self.trainer.work(arm, trial) for trial in first)
            left += sum(self.trainer.work(arm, trial) for trial in missing) + later * bool(missing)
        return left

    def _training_notes(self) -> tuple[str, ...]:
        """Return what was not trained as it might have been, and why."""
        chosen = (self.choice.note,) if self.choice is not None and self.choice.note else ()
        return (*self.cohorts.notes(), *self.trainer.memory_notes(), *chosen)

    def _pool(self) -> Workers:
        """Return the pool; it is made after the teachers, which its processes inherit."""
        if self.workers is None:
            self.workers = Workers(self.trainer, self.count)
        return self.workers

    def _epoch(self, event: EpochFinished) -> None:
        self.emit("ddrank_epoch_finished", event)

    def _finished(self, arm: Arm, done: Done) -> None:
        self._keep(arm, done)
        self._report(done.result, self.trainer.work(arm, done.trial) - done.reported_work)

    def _report(self, result: TrialResult, work: float) -> None:
        self.done += 1
        event = TrialFinished(result=result, done=self.done, total=self.plan.count(), work=work)
        self.emit("ddrank_trial_finished", event)

    def _key(self, arm: Arm, trial: Trial) -> str:
        return self.keys.of_trial(arm, trial, self.teachers)

    def _keep(self, arm: Arm, done: Done) -> None:
        result = done.result
        outcome = {
            "validation_accuracy": result.validation_accuracy,
            "accuracy": result.accuracy,
            "epoch": result.epoch,
            "diverged": result.diverged,
            "seconds": result.seconds,
            "how": result.how,
        }
        stored = StoredTrial(outcome=outcome, predictions=_pack(done.predictions))
        self.store.put(self._key(arm, done.trial), stored)

    def _test(self, arm: Arm, dones: Sequence[Done]) -> None:
        """Let selected trials predict the test set, once, unless they already have."""
        import torch

        due = [done for done in dones if done.predictions is None and not done.result.diverged]
        lost = [done for done in due if done.weights is None]
        # Read back from the store of a run that was stopped before this arm's choice was made.
        again = self._train(arm, [done.trial for done in lost], lambda arm, done: None)
        for done, trained in zip(lost, again, strict=True):
            done.weights, done.result = trained.weights, attrs.evolve(done.result, how=trained.result.how)
            if trained.weights is None:
                # It diverged this time, in another order of sums: it predicts nothing, read back too.
                done.predictions = torch.empty(0, dtype=torch.int64)
                self._keep(arm, done)
        due = [done for done in due if done.weights is not None]
        for done, predictions in zip(due, self._predictions(due), strict=True):
            # What the test images did must not touch the choice that a rerun makes: `result` stays as it is.
            done.predictions = predictions
            self._keep(arm, done)

    def _predictions(self, dones: Sequence[Done]) -> list[Tensor]:
        if self.count > 1 and dones:
            return self._pool().test(dones)
        return [self.trainer.test(done) for done in dones]

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

        def train_it(network: nn.Module) -> bool:
            assert training is not None  # the config's cross-check asks for a recipe
            title = f"teacher {index + 1}/{len(self.config.teachers)}, {teacher.network.use}"

            def after(epoch: int) -> None:
                event = EpochFinished(training=title, epoch=epoch, epochs=training.epochs, work=0.0)
                self.emit("ddrank_epoch_finished", event)

            return train(
                network, self.trainer.material.full, training, rate, seed, self.trainer.setting, after
            )

        key = self.keys.of_teacher(teacher.network, training, rate, seed) if training else "none"
        cached = cache_folder() / "teachers" / f"{key}.safetensors"
        return make_teacher(teacher, index, network, self.device, cached, train_it)

    def _teacher_record(self, index: int) -> Mapping[str, Any]:
        teacher, check = self.teachers[index], self.prepared.teacher_checks[index]
        setting = attrs.evolve(self.trainer.setting, execution=AS_IT_IS)
        predictions = predict(teacher.network, self.trainer.material.test, setting)
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
        if done.predictions is None or done.result.accuracy is not None:
            return done.result
        if len(done.predictions) == 0:
            return attrs.evolve(done.result, diverged=True)
        return attrs.evolve(done.result, accuracy=accuracy(done.predictions, self.prepared.real.test_labels))

    def _arm_results(self) -> dict[str, ArmResult]:
        results: dict[str, ArmResult] = {}
        full = self.config.full_data
        if full.accuracy is not None:
            given = (full.accuracy,) * self.plan.repeats
            arm = summarise_arm("full-hard", given, (None,) * self.plan.repeats, source=full.source)
            results["full-hard"] = attrs.evolve(arm, std=None, n=1)
        for arm_plan in self.plan.arms:
            selected = [self._score_trial(done) for done in self.selected[arm_plan.same_as or arm_plan.name]]
            results[arm_plan.name] = summarise_arm(
                arm_plan.name,
                [trial.accuracy for trial in selected],
                [trial.learning_rate for trial in selected],
                same_as=arm_plan.same_as,
            )
        return results


def fits_test(packed: bytes | None, count: int) -> bool:
    """Return whether stored predictions are whole: none, empty, or one for each of `count` images."""
    return packed is None or len(packed) in (0, 2 * count)


def _pack(predictions: Tensor | None) -> bytes | None:
    return None if predictions is None else predictions.numpy().astype("<u2").tobytes()


def _unpack(packed: bytes | None) -> Tensor | None:
    if packed is None:
        return None
    import numpy as np
    import torch

    return torch.from_numpy(np.frombuffer(packed, dtype="<u2").astype("int64"))
