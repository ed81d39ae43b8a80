"""Plan -> trials -> scores: drives one run, on one device, and never trains the same thing twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.device import describe, deterministic, keep_freed_memory, threads_for
from ddrank_core.engine.keys import Keys
from ddrank_core.engine.material import Material
from ddrank_core.engine.plan import Arm, Training, Trial, asks_teachers
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.records import data_record, notes, protocol_record
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import ReadyTeacher, asker, make_teacher
from ddrank_core.engine.train import Setting, accuracy, build, predict, train
from ddrank_core.errors import DDRankError, RunFailed, one_line
from ddrank_core.events import EpochFinished, RunStarted, TrialFinished
from ddrank_core.results import ArmResult, ScoreResult, TrialResult
from ddrank_core.store import StoredTrial, TrialStore, cache_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

Emit = Callable[[str, object], None]
"""Lifecycle hook, event."""

_FORWARD_SHARE = 1 / 3
"""A forward pass is about a third of a training step's work."""

_STEP_COST = 64
"""What a step costs beside its images, in images: Python and the launch of some 100 kernels."""


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


@attrs.define(eq=False)
class _Done:
    """A finished trial while its arm is under way."""

    trial: Trial
    result: TrialResult
    predictions: Tensor | None
    """int64 [N_test] on the CPU; None until the test set is due, empty if a logit was not finite."""
    weights: Mapping[str, Tensor] | None
    """The last epoch's, kept on the CPU until the arm's learning rate is chosen."""
    reported_work: float = 0.0
    """What the events of its epochs have added up to."""


def execute(prepared: Prepared, store: TrialStore, emit: Emit) -> Outcome:
    """Train what is not in the store, choose, test, score.

    Raises:
        RunFailed: one line, if a training cannot be done.
    """
    keep_freed_memory(prepared.device)
    with deterministic(prepared.device), threads_for(prepared.device, prepared.step_activations):
        try:
            return _Run(prepared, store, emit).execute()
        except DDRankError:
            raise
        except Exception as error:  # components and the device raise what they like
            raise RunFailed(f"{prepared.where}: the run broke off: {one_line(error)}") from error


class _Run:
    def __init__(self, prepared: Prepared, store: TrialStore, emit: Emit) -> None:
        self.prepared, self.store, self.emit = prepared, store, emit
        self.config, self.plan, self.device = prepared.config, prepared.plan, prepared.device
        self.protocol = self.config.protocol.component
        self.keys, self.material = Keys(prepared), Material(prepared)
        self.setting = Setting(
            device=self.device,
            precision=self.config.precision,
            space=prepared.space,
            teachers=lambda images: (),
            validation=self.config.validation.augmentation,
        )
        self.teachers: tuple[ReadyTeacher, ...] = ()
        self.done = 0
        self.selected: dict[str, tuple[_Done, ...]] = {}
        """Arm -> its trials that count, by repeat."""

    # -- the run -----------------------------------------------------------------------------

    def execute(self) -> Outcome:
        started, clock = datetime.now(UTC), time.perf_counter()
        self.emit("ddrank_run_started", self._start())
        if any(asks_teachers(arm.training) for arm in self.plan.trained):
            self.teachers = tuple(self._teacher(index) for index in range(len(self.config.teachers)))
        self.setting = attrs.evolve(
            self.setting, teachers=asker([teacher.network for teacher in self.teachers])
        )
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
            device=describe(self.device),
            notes=notes(self.prepared, arms, trials),
            started=started.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - clock,
        )

    def _start(self) -> RunStarted:
        work = sum(
            self._work(arm, trial)
            for arm in self.plan.trained
            for trial in (
                *self.plan.first_trials(arm),
                *(self.plan.final_trials(arm, 0.0) if self.plan.searches_apart(arm) else ()),
            )
        )
        names = tuple(arm.name for arm in self.plan.trained)
        return RunStarted(
            name=self.config.name,
            device=describe(self.device),
            arms=names,
            trials=self.plan.count(),
            work=work,
        )

    # -- arms --------------------------------------------------------------------------------

    def _arm(self, arm: Arm) -> list[_Done]:
        """Return all of the arm's trials; the selected ones have test predictions."""
        first = [self._trial(arm, trial) for trial in self.plan.first_trials(arm)]
        by_result = {done.result: done for done in first}
        selected = tuple(by_result[result] for result in self.protocol.select(tuple(by_result)))
        finals: tuple[_Done, ...] = ()
        if self.plan.searches_apart(arm):
            rate = selected[0].result.learning_rate
            finals = tuple(self._trial(arm, trial) for trial in self.plan.final_trials(arm, rate))
        self.selected[arm.name] = finals or selected
        for done in self.selected[arm.name]:
            self._test(arm, done)
        for done in first:
            done.weights = None
        return [*first, *finals]

    def _trial(self, arm: Arm, trial: Trial) -> _Done:
        digest = self.keys.of_trial(arm, trial, self.teachers)
        stored = self.store.get(digest)
        if stored is not None and _fits(stored.predictions, len(self.material.test)):
            result = TrialResult(**_identity(trial), **stored.outcome, reused=True)
            done = _Done(trial, result, _unpack(stored.predictions), None)
            self._report(done.result, self._work(arm, trial))
            return done
        done = self._train(arm, trial, self._work(arm, trial, training_only=True))
        self._keep(digest, done)
        self._report(done.result, self._work(arm, trial) - done.reported_work)
        return done

    def _report(self, result: TrialResult, work: float) -> None:
        self.done += 1
        event = TrialFinished(result=result, done=self.done, total=self.plan.count(), work=work)
        self.emit("ddrank_trial_finished", event)

    def _keep(self, digest: str, done: _Done) -> None:
        result = done.result
        outcome = {
            "validation_accuracy": result.validation_accuracy,
            "accuracy": result.accuracy,
            "epoch": result.epoch,
            "diverged": result.diverged,
            "seconds": result.seconds,
        }
        self.store.put(digest, StoredTrial(outcome=outcome, predictions=_pack(done.predictions)))

    def _test(self, arm: Arm, done: _Done) -> None:
        """Let a selected trial predict the test set, once, unless it already has."""
        if done.predictions is not None or done.result.diverged:
            return
        if done.weights is None:
            # Read back from the store of a run that was stopped before this arm's choice was made.
            done.weights = self._train(arm, done.trial, 0.0).weights
        assert done.weights is not None
        network = self._student(done.trial)
        network.load_state_dict(done.weights)
        predictions = predict(network.to(self.device), self.material.test, self.setting)
        # What the test images did must not touch the choice that a rerun makes: `result` stays as it is.
        done.predictions = predictions.cpu() if predictions is not None else _nothing()
        self._keep(self.keys.of_trial(arm, done.trial, self.teachers), done)

    # -- one trial ---------------------------------------------------------------------------

    def _train(self, arm: Arm, trial: Trial, work: float) -> _Done:
        try:
            return self._train_unguarded(arm, trial, work)
        except DDRankError:
            raise
        except Exception as error:  # the plugin boundary: components run in here
            training = arm.training
            whose = ", ".join(
                f"{chosen.use} of {chosen.entry.owner}"
                for chosen in (self.config.student, training.labels, training.loss, *training.augmentation)
            )
            raise RunFailed(
                f"{_words(trial, self.plan.repeats)}: {one_line(error)} (it uses {whose})"
            ) from error

    def _train_unguarded(self, arm: Arm, trial: Trial, work: float) -> _Done:
        clock = time.perf_counter()
        training, data = arm.training, self.material.of(arm.training, trial, self.setting.teachers)
        network = self._student(trial).to(self.device)
        watch = _Watch(self, network, training, trial, work / training.epochs)
        finite = train(network, data, training, trial.learning_rate, trial.seed, self.setting, watch)
        validation = self._validate(network, trial) if finite else None
        predictions, epoch, best = watch.best if finite else (None, training.epochs, None)
        if self.protocol.test_epochs(training.epochs) and best is None:
            finite = False
        if finite and self._tests_at_once(arm, trial):
            guess = predict(network, self.material.test, self.setting)
            predictions = guess.cpu() if guess is not None else _nothing()
        if finite and self._chooses_by_validation(trial) and validation is None:
            finite = False
        keeps = finite and predictions is None and trial.phase == "final"
        result = TrialResult(
            **_identity(trial),
            validation_accuracy=validation,
            accuracy=best if finite else None,
            epoch=epoch,
            diverged=not finite,
            seconds=time.perf_counter() - clock,
        )
        return _Done(trial, result, predictions, _to_host(network) if keeps else None, watch.reported)

    def _validate(self, network: nn.Module, trial: Trial) -> float | None:
        if not self._chooses_by_validation(trial):
            return None
        predictions = predict(network, self.material.validation, self.setting)
        return None if predictions is None else accuracy(predictions, self.material.validation.labels)

    def _chooses_by_validation(self, trial: Trial) -> bool:
        """Return whether a choice still hangs on this trial; final trials of a searched arm are chosen."""
        return self.plan.validation_share > 0 and not self._after_search(trial)

    def _after_search(self, trial: Trial) -> bool:
        return trial.arm == "full-hard" and trial.phase == "final"

    def _tests_at_once(self, arm: Arm, trial: Trial) -> bool:
        """Return whether this trial is known to be selected before it is trained."""
        if self.protocol.test_epochs(arm.training.epochs):
            return False
        return len(self.plan.candidates) == 1 or (self.plan.searches_apart(arm) and trial.phase == "final")

    def _student(self, trial: Trial) -> nn.Module:
        real = self.prepared.real
        return build(self.config.student.component, real.num_classes, real.image_shape, trial.seed)

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

            return train(network, self.material.full, training, rate, seed, self.setting, after)

        key = self.keys.of_teacher(teacher.network, training, rate, seed) if training else "none"
        cached = cache_folder() / "teachers" / f"{key}.safetensors"
        return make_teacher(teacher, index, network, self.device, cached, train_it)

    def _teacher_record(self, index: int) -> Mapping[str, Any]:
        teacher, check = self.teachers[index], self.prepared.teacher_checks[index]
        predictions = predict(teacher.network, self.material.test, self.setting)
        known = None if predictions is None else accuracy(predictions, self.prepared.real.test_labels)
        return {
            "use": teacher.use,
            "source": teacher.source,
            "digest": teacher.digest,
            "accuracy": known,
            "check": None if check is None else attrs.asdict(check),
        }

    # -- results -----------------------------------------------------------------------------

    def _score_trial(self, done: _Done) -> TrialResult:
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

    # -- work --------------------------------------------------------------------------------

    def _work(self, arm: Arm, trial: Trial, training_only: bool = False) -> float:
        """Return the expected work of a trial, in the time that an image takes forward and backward."""
        training = arm.training
        count = {"full": len(self.material.full), "distilled": len(self.prepared.distilled.labels)}.get(
            training.source, sum(self.prepared.counts)
        )
        steps = -(-count // training.batch_size)
        work = float((count + steps * _STEP_COST) * training.epochs)
        if training_only:
            return work
        looks = len(self.protocol.test_epochs(training.epochs)) + self._tests_at_once(arm, trial)
        seen = looks * len(self.material.test) + len(self.material.validation) * self._chooses_by_validation(
            trial
        )
        return work + seen * _FORWARD_SHARE


class _Watch:
    """Called after every epoch: tells the listeners, and scores where the protocol asks for it."""

    def __init__(self, run: _Run, network: nn.Module, training: Training, trial: Trial, work: float) -> None:
        self._run, self._network, self._training, self._work = run, network, training, work
        self._title = _words(trial, run.plan.repeats)
        self._test_epochs = frozenset(run.protocol.test_epochs(training.epochs))
        self.best: tuple[Tensor | None, int, float | None] = (None, training.epochs, None)
        """Predictions, epoch and test accuracy of the best scored epoch."""
        self.reported = 0.0

    def __call__(self, epoch: int) -> None:
        if epoch in self._test_epochs:
            self._score(epoch)
        event = EpochFinished(
            training=self._title, epoch=epoch, epochs=self._training.epochs, work=self._work
        )
        self._run.emit("ddrank_epoch_finished", event)
        self.reported += self._work

    def _score(self, epoch: int) -> None:
        predictions = predict(self._network, self._run.material.test, self._run.setting)
        if predictions is None:
            return
        reached = accuracy(predictions, self._run.prepared.real.test_labels)
        if self.best[2] is None or reached > self.best[2]:
            self.best = (predictions.cpu(), epoch, reached)


def _identity(trial: Trial) -> dict[str, Any]:
    return attrs.asdict(trial)


def _words(trial: Trial, repeats: int) -> str:
    search = ", search" if trial.phase == "search" else ""
    return f"{trial.arm} {trial.repeat + 1}/{repeats}, learning rate {trial.learning_rate:g}{search}"


def _to_host(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _nothing() -> Tensor:
    """Return the predictions of a network whose logits were not finite."""
    import torch

    return torch.empty(0, dtype=torch.int64)


def _fits(packed: bytes | None, count: int) -> bool:
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
