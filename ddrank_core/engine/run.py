"""Plan -> trials -> scores: drives one run, on one device, and never trains the same thing twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.device import describe, deterministic
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Arm, Training, Trial
from ddrank_core.engine.prepare import Prepared, digest_of, draw_subset, normalised_images
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import ReadyTeacher, asker, make_teacher
from ddrank_core.engine.train import Setting, accuracy, build, predict, train
from ddrank_core.errors import DDRankError, RunFailed, one_line
from ddrank_core.events import EpochFinished, RunStarted, TrialFinished
from ddrank_core.provenance import provenance
from ddrank_core.results import ArmResult, ScoreResult, TrialResult
from ddrank_core.store import StoredTrial, TrialStore, cache_folder
from ddrank_core.structure import Chosen

if TYPE_CHECKING:
    from torch import Tensor, nn

Emit = Callable[[str, object], None]
"""Lifecycle hook, event."""

_FORWARD_SHARE = 1 / 3
"""A forward pass is about a third of a training step's work."""


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
    """int64 [N_test] on the CPU; None until the test set is due."""
    weights: Mapping[str, Tensor] | None
    """The last epoch's, kept on the CPU until the arm's learning rate is chosen."""


def execute(prepared: Prepared, store: TrialStore, emit: Emit) -> Outcome:
    """Train what is not in the store, choose, test, score.

    Raises:
        RunFailed: one line, if a training cannot be done.
    """
    with deterministic(prepared.device):
        return _Run(prepared, store, emit).execute()


class _Run:
    def __init__(self, prepared: Prepared, store: TrialStore, emit: Emit) -> None:
        self.prepared, self.store, self.emit = prepared, store, emit
        self.config, self.plan, self.device = prepared.config, prepared.plan, prepared.device
        self.protocol = self.config.protocol.component
        real = prepared.real
        self.train_digest = digest_of(real.train_images, real.train_labels)
        self.test_digest = digest_of(real.test_images)
        self.full = self._resident(real.train_images, real.train_labels)
        self.rest = self._part(prepared.split.rest)
        self.validation = self._part(prepared.split.validation)
        # The labels of the test set stay behind: nothing can be chosen by them.
        self.test = self._resident(real.test_images, real.test_labels[:0])
        self.normalised = normalised_images(prepared)
        self.setting = Setting(
            device=self.device,
            precision=self.config.precision,
            normaliser=prepared.normaliser,
            teachers=lambda images: (),
        )
        self.teachers: tuple[ReadyTeacher, ...] = ()
        self.done = 0
        self.selected: dict[str, tuple[_Done, ...]] = {}
        """Arm -> its trials that count, by repeat."""

    # -- the run -----------------------------------------------------------------------------

    def execute(self) -> Outcome:
        started, clock = datetime.now(UTC), time.perf_counter()
        self.emit("ddrank_run_started", self._start())
        self.teachers = tuple(self._teacher(index) for index in range(len(self.config.teachers)))
        self.setting = attrs.evolve(self.setting, teachers=asker(self.teachers))
        finished = [done for arm in self.plan.trained for done in self._arm(arm)]
        # Only now, when every choice is made, are the test labels read.
        trials = tuple(self._score_trial(done) for done in finished)
        arms = self._arm_results()
        return Outcome(
            arms=arms,
            scores=score_all(self.config, arms),
            trials=trials,
            teachers=tuple(self._teacher_record(teacher) for teacher in self.teachers),
            protocol=self._protocol_record(),
            data=self._data_record(),
            device=describe(self.device),
            notes=tuple(self._notes(arms, trials)),
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
            name=self.config.name, device=describe(self.device), arms=names, trials=self.plan.count(), work=work
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
        digest = self._digest(arm, trial)
        stored = self.store.get(digest)
        if stored is not None:
            result = TrialResult(**_identity(trial), **stored.outcome, reused=True)
            done = _Done(trial, result, _unpack(stored.predictions), None)
            self._report(done.result, self._work(arm, trial))
            return done
        done = self._train(arm, trial, self._work(arm, trial, training_only=True))
        self._keep(digest, done)
        self._report(done.result, self._work(arm, trial) - self._work(arm, trial, training_only=True))
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
        predictions = predict(network.to(self.device), self.test, self.setting)
        done.predictions = None if predictions is None else predictions.cpu()
        if predictions is None:
            done.result = attrs.evolve(done.result, diverged=True)
        self._keep(self._digest(arm, done.trial), done)

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
            raise RunFailed(f"{_words(trial, self.plan.repeats)}: {one_line(error)} (it uses {whose})") from error

    def _train_unguarded(self, arm: Arm, trial: Trial, work: float) -> _Done:
        clock = time.perf_counter()
        training, data = arm.training, self._images(arm, trial)
        network = self._student(trial).to(self.device)
        watch = _Watch(self, network, training, trial, work / training.epochs)
        finite = train(network, data, training, trial.learning_rate, trial.seed, self.setting, watch)
        validation = self._validate(network, trial) if finite else None
        predictions, epoch, best = watch.best if finite else (None, training.epochs, None)
        if self.protocol.test_epochs(training.epochs) and best is None:
            finite = False
        if finite and self._tests_at_once(arm, trial):
            guess = predict(network, self.test, self.setting)
            predictions, finite = (None, False) if guess is None else (guess.cpu(), True)
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
        return _Done(trial, result, predictions, _to_host(network) if keeps else None)

    def _validate(self, network: nn.Module, trial: Trial) -> float | None:
        if not self._chooses_by_validation(trial):
            return None
        predictions = predict(network, self.validation, self.setting)
        return None if predictions is None else accuracy(predictions, self.validation.labels)

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

    # -- data on the device ------------------------------------------------------------------

    def _resident(self, images: Tensor, labels: Tensor) -> ImageSet:
        return ImageSet(
            images=images.to(self.device), labels=labels.to(self.device), normaliser=self.prepared.normaliser
        )

    def _part(self, index: Tensor) -> ImageSet:
        if len(index) == len(self.full):
            return self.full
        index = index.to(self.device)
        return attrs.evolve(self.full, images=self.full.images[index], labels=self.full.labels[index])

    def _images(self, arm: Arm, trial: Trial) -> ImageSet:
        """Return what a trial trains on; distilled and random images are normalised beforehand."""
        match arm.training.source:
            case "full":
                return self.rest if trial.phase == "search" else self.full
            case "distilled":
                return self._distilled(arm.training)
            case "random":
                assert trial.subset_seed is not None
                return self._random(arm.training, trial.subset_seed)

    def _distilled(self, training: Training) -> ImageSet:
        distilled = self.prepared.distilled
        stored = _needs_stored(training) and distilled.soft_labels is not None
        return ImageSet(
            images=self.normalised.to(self.device),
            labels=distilled.labels.to(self.device),
            soft=distilled.soft_labels.to(self.device) if stored and distilled.soft_labels is not None else None,
            soft_kind=distilled.soft_kind,
        )

    def _random(self, training: Training, subset_seed: int) -> ImageSet:
        index = draw_subset(self.prepared, subset_seed).to(self.device)
        images = self.full.batch(index)
        kind = self.prepared.distilled.soft_kind
        soft = self._label_softly(images) if _needs_stored(training) else None
        return ImageSet(images=images, labels=self.full.labels[index], soft=soft, soft_kind=kind)

    def _label_softly(self, images: Tensor) -> Tensor:
        """Return the teachers' mean label of each image, of the kind that the distilled set stores."""
        import torch

        logits = torch.stack(self.setting.teachers(images))
        if self.prepared.distilled.soft_kind == "logits":
            return logits.mean(dim=0)
        return logits.softmax(dim=2).mean(dim=0)

    # -- teachers ----------------------------------------------------------------------------

    def _teacher(self, index: int) -> ReadyTeacher:
        teacher, training, real = self.config.teachers[index], self.prepared.teacher_training, self.prepared.real
        seed = derive(self.config.seed, "teacher", index)
        rate = self.config.full_data.recipe.learning_rate if self.config.full_data.recipe else 0.0
        network = build(teacher.network.component, real.num_classes, real.image_shape, seed)

        def train_it(network: nn.Module) -> bool:
            assert training is not None  # the config's cross-check asks for a recipe
            title = f"teacher {index + 1}/{len(self.config.teachers)}, {teacher.network.use}"

            def after(epoch: int) -> None:
                event = EpochFinished(training=title, epoch=epoch, epochs=training.epochs, work=0.0)
                self.emit("ddrank_epoch_finished", event)

            return train(network, self.full, training, rate, seed, self.setting, after)

        key = self._key(teacher.network, training, rate, seed, data=self.train_digest) if training else ""
        cached = cache_folder() / "teachers" / f"{key}.safetensors"
        return make_teacher(teacher, index, network, self.device, cached, train_it)

    def _teacher_record(self, teacher: ReadyTeacher) -> Mapping[str, Any]:
        predictions = predict(teacher.network, self.test, self.setting)
        known = None if predictions is None else accuracy(predictions, self.prepared.real.test_labels)
        return {"use": teacher.use, "source": teacher.source, "digest": teacher.digest, "accuracy": known}

    # -- digests -----------------------------------------------------------------------------

    def _digest(self, arm: Arm, trial: Trial) -> str:
        """Return the SHA-256 of everything that determines a trial's result."""
        training = arm.training
        needs_teacher = getattr(training.labels.component, "needs_teacher", False)
        asks = needs_teacher or (_needs_stored(training) and training.source == "random")
        tests = self.protocol.test_epochs(training.epochs)
        return self._key(
            self.config.student,
            training,
            trial.learning_rate,
            trial.seed,
            data={
                "source": training.source,
                "whole": training.source == "full" and trial.phase == "final",
                "train": None if training.source == "distilled" else self.train_digest,
                "distilled": self.prepared.distilled_digest if training.source == "distilled" else None,
                "counts": self.prepared.counts if training.source == "random" else None,
                "soft_kind": self.prepared.distilled.soft_kind if training.source == "random" else None,
                "subset_seed": trial.subset_seed,
            },
            teachers=[teacher.digest for teacher in self.teachers] if asks else [],
            validation=[self.plan.validation_share, self.config.seed, self.train_digest]
            if self.plan.validation_share
            else None,
            test=self.test_digest,
            selected_by_test=[tests, digest_of(self.prepared.real.test_labels)] if tests else None,
        )

    def _key(
        self,
        network: Chosen[Any],
        training: Training | None,
        rate: float,
        seed: int,
        **more: object,
    ) -> str:
        import torch

        assert training is not None
        chosen = (network, training.labels, training.loss, training.optimizer, training.schedule, *training.augmentation)
        threads = torch.get_num_threads() if self.device.type == "cpu" else None
        content = {
            "engine": _engine_digest(),
            "torch": torch.__version__,
            "device": [describe(self.device), threads],
            "precision": self.config.precision,
            "components": [{k: v for k, v in provenance(c).items() if k != "given"} for c in chosen],
            "epochs": training.epochs,
            "batch_size": training.batch_size,
            "normalisation": [self.prepared.real.mean, self.prepared.real.std],
            "learning_rate": rate,
            "seed": seed,
            **more,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    # -- results -----------------------------------------------------------------------------

    def _score_trial(self, done: _Done) -> TrialResult:
        if done.predictions is None or done.result.accuracy is not None:
            return done.result
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

    def _protocol_record(self) -> Mapping[str, Any]:
        return {
            "name": self.config.protocol.use,
            "version": self.protocol.version,
            "repeats": self.plan.repeats,
            "learning_rates": list(self.plan.candidates),
            "validation_images": len(self.prepared.split.validation) if self.plan.validation_share else 0,
            "selected_on_test_set": bool(self.protocol.test_epochs(1)),
        }

    def _data_record(self) -> Mapping[str, Any]:
        real, distilled = self.prepared.real, self.prepared.distilled
        return {
            "dataset": {
                "name": self.config.dataset.use,
                "source": real.source,
                "train_sha256": self.train_digest,
                "test_sha256": digest_of(real.test_images, real.test_labels),
                "train_images": len(real.train_labels),
                "test_images": len(real.test_labels),
                "classes": list(real.class_names),
                "image_shape": list(real.image_shape),
                "mean": list(real.mean),
                "std": list(real.std),
            },
            "distilled": {
                "path": str(self.config.distilled.path),
                "sha256": self.prepared.distilled_digest,
                "images": len(distilled.labels),
                "images_per_class": list(self.prepared.counts),
                "space": distilled.space.kind,
                "soft_labels": distilled.soft_kind if distilled.soft_labels is not None else None,
                "learning_rate": distilled.learning_rate,
                "info": dict(distilled.info),
            },
        }

    def _notes(self, arms: Mapping[str, ArmResult], trials: Sequence[TrialResult]) -> list[str]:
        notes = []
        if self.config.full_data.accuracy is not None:
            notes.append("The full-data accuracy is given, so no interval holds its uncertainty.")
        if self.protocol.test_epochs(1):
            notes.append("Learning rates and epochs were selected on the test set: these numbers are optimistic.")
        ends = {self.plan.candidates[0], self.plan.candidates[-1]} if len(self.plan.candidates) > 1 else set()
        edge = [arm.name for arm in arms.values() if arm.same_as is None and ends & set(arm.learning_rates)]
        if edge:
            notes.append(f"The chosen learning rate is at an end of the grid for {', '.join(edge)}: widen the grid.")
        if diverged := sum(trial.diverged for trial in trials):
            notes.append(f"{diverged} of {len(trials)} trials diverged; none of them is in a mean.")
        if reused := sum(trial.reused for trial in trials):
            notes.append(f"{reused} of {len(trials)} trials were read back from the store of finished trials.")
        return notes

    # -- work --------------------------------------------------------------------------------

    def _work(self, arm: Arm, trial: Trial, training_only: bool = False) -> float:
        """Return the expected work of a trial, in images forward and backward."""
        training = arm.training
        count = {"full": len(self.full), "distilled": len(self.prepared.distilled.labels)}.get(
            training.source, sum(self.prepared.counts)
        )
        work = float(count * training.epochs)
        if training_only:
            return work
        looks = len(self.protocol.test_epochs(training.epochs)) + self._tests_at_once(arm, trial)
        seen = looks * len(self.test) + len(self.validation) * self._chooses_by_validation(trial)
        return work + seen * _FORWARD_SHARE


class _Watch:
    """Called after every epoch: tells the listeners, and scores where the protocol asks for it."""

    def __init__(self, run: _Run, network: nn.Module, training: Training, trial: Trial, work: float) -> None:
        self._run, self._network, self._training, self._work = run, network, training, work
        self._title = _words(trial, run.plan.repeats)
        self._test_epochs = frozenset(run.protocol.test_epochs(training.epochs))
        self.best: tuple[Tensor | None, int, float | None] = (None, training.epochs, None)
        """Predictions, epoch and test accuracy of the best scored epoch."""

    def __call__(self, epoch: int) -> None:
        if epoch in self._test_epochs:
            self._score(epoch)
        event = EpochFinished(training=self._title, epoch=epoch, epochs=self._training.epochs, work=self._work)
        self._run.emit("ddrank_epoch_finished", event)

    def _score(self, epoch: int) -> None:
        predictions = predict(self._network, self._run.test, self._run.setting)
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


def _needs_stored(training: Training) -> bool:
    return bool(getattr(training.labels.component, "needs_stored_soft", False))


def _to_host(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _pack(predictions: Tensor | None) -> bytes | None:
    return None if predictions is None else predictions.numpy().astype("<u2").tobytes()


def _unpack(packed: bytes | None) -> Tensor | None:
    if packed is None:
        return None
    import numpy as np
    import torch

    return torch.from_numpy(np.frombuffer(packed, dtype="<u2").astype("int64"))


@cache
def _engine_digest() -> str:
    """Return the SHA-256 of the sources that a trial's result depends on besides its components."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parent / "types.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
