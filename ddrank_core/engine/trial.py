"""One trial from its seed to its result: trained, validated and, where it may count, tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.capture import Capture
from ddrank_core.engine.cohort import train_cohort
from ddrank_core.engine.execution import Execution, Resident
from ddrank_core.engine.material import Material
from ddrank_core.engine.plan import Arm, Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.teachers import asker
from ddrank_core.engine.train import Setting, accuracy, build, predict, train
from ddrank_core.engine.unfinished import Keeping
from ddrank_core.engine.watch import Counted, Watch, keeping_of, words
from ddrank_core.errors import DDRankError, RunFailed, one_line
from ddrank_core.results import TrialResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddrank_core.events import EpochFinished

OnEpoch = Callable[["EpochFinished"], None]

_FORWARD_SHARE = 1 / 3
"""A forward pass is about a third of a training step's work."""

_STEP_COST = 64
"""What a step costs beside its images, in images: Python and the launch of some 100 kernels."""


@attrs.define(eq=False)
class Done:
    """A finished trial while its arm is under way."""

    trial: Trial
    result: TrialResult
    predictions: Tensor | None
    """int64 [N_test] on the CPU; None of a trial that only serves a search or diverged, empty if a logit of
    the test was not finite."""
    reported_work: float = 0.0
    """What the events of its epochs have added up to."""


class Trainer:
    """Trains and tests the trials of one run; what it returns depends on the trial alone."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.plan, self.device = prepared, prepared.plan, prepared.device
        self.protocol = prepared.config.protocol.component
        self.material = Material(prepared)
        self.setting = Setting(
            device=prepared.device,
            precision=prepared.config.precision,
            space=prepared.space,
            teachers=asker(()),
            validation=prepared.config.validation.augmentation,
        )
        self._resident: Resident | None = None
        self.fitting: dict[str, tuple[int, int]] = {}
        """Arm -> how many trials at once were tried, and how many the device's memory holds."""
        self.unkept: str | None = None
        """Why a training's state could not be kept, if that happened."""

    def use_teachers(self, teachers: Sequence[nn.Module]) -> None:
        """Ask these networks from now on, wherever labels need a teacher."""
        self.setting = attrs.evolve(self.setting, teachers=asker(teachers))

    def use_execution(self, execution: Execution) -> None:
        """Run students that are trained alone in this way from now on."""
        self.setting, self._resident = attrs.evolve(self.setting, execution=execution), None

    def train(self, arm: Arm, trial: Trial, on_epoch: OnEpoch, key: str | None = None) -> Done:
        """Train a trial; let it predict the test set too where it may count.

        With a `key`, the digest of all that determines it, a long one goes on where an earlier process was
        killed. What is kept for that stays until `unfinished.forget` removes it.

        Raises:
            RunFailed: one line that names the trial, if a component fails.
        """
        try:
            return self._train(arm, trial, on_epoch, key)
        except DDRankError:
            raise
        except Exception as error:  # the plugin boundary: components run in here
            raise self._failed(arm, words(trial, self.plan.repeats), error) from error

    def _failed(self, arm: Arm, what: str, error: Exception) -> RunFailed:
        """Return the error of a training in one line that names whose components it uses."""
        training = arm.training
        used = (self.prepared.config.student, training.labels, training.loss, *training.augmentation)
        whose = ", ".join(f"{chosen.use} of {chosen.entry.owner}" for chosen in used)
        return RunFailed(f"{what}: {one_line(error)} (it uses {whose})")

    def train_together(
        self,
        arm: Arm,
        trials: Sequence[Trial],
        folded: bool,
        on_epoch: OnEpoch,
        capture: Capture | None = None,
        keys: Sequence[str] = (),
    ) -> list[Done]:
        """Train trials of an arm at once; where the device's memory does not hold them, half as many.

        What fits is remembered for the arm's other trials. `keys`, one for each trial, are as for `train`.

        Raises:
            RunFailed: one line that names the first trial, if a component fails.
        """
        return self._train_in_parts(arm, trials, folded, Counted(on_epoch), capture, keys)

    def memory_notes(self) -> tuple[str, ...]:
        """Return what there was no room for, on the device and on the disk, one sentence each."""
        found = [
            f"Of {arm}, {tried} trials at once did not fit the device's memory; {fit} were trained at once."
            for arm, (tried, fit) in self.fitting.items()
        ]
        if self.unkept is not None:
            found.append(f"Trainings under way could not be kept, to go on from later: {self.unkept}.")
        return tuple(found)

    def _train_in_parts(
        self,
        arm: Arm,
        trials: Sequence[Trial],
        folded: bool,
        on_epoch: Counted,
        capture: Capture | None,
        keys: Sequence[str],
    ) -> list[Done]:
        import torch

        tried, most = self.fitting.get(arm.name, (len(trials), len(trials)))
        before = on_epoch.done
        if len(trials) > most:
            parts = [slice(start, start + most) for start in range(0, len(trials), most)]
            found = (
                self._train_in_parts(arm, trials[part], folded, on_epoch, capture, keys[part])
                for part in parts
            )
            return [done for dones in found for done in dones]
        if len(trials) == 1:
            return [self.train(arm, trials[0], on_epoch, *keys)]
        try:
            return self._train_together(arm, trials, folded, on_epoch, capture, keys)
        except torch.OutOfMemoryError:
            self.fitting[arm.name] = tried, -(-len(trials) // 2)
        except DDRankError:
            raise
        except Exception as error:  # the plugin boundary: components run in here
            raise self._failed(arm, f"{arm.name}, {len(trials)} trials at once", error) from error
        # Outside the handler: what the failed attempt held is free by now.
        torch.cuda.empty_cache()
        on_epoch.done = before
        return self._train_in_parts(arm, trials, folded, on_epoch, capture, keys)

    def _train_together(
        self,
        arm: Arm,
        trials: Sequence[Trial],
        folded: bool,
        on_epoch: OnEpoch,
        capture: Capture | None,
        keys: Sequence[str],
    ) -> list[Done]:
        clock = time.perf_counter()
        training, teachers = arm.training, self.setting.teachers
        # Trials of one repeat have the same images, which are drawn and labelled once.
        sets = {trial.subset_seed: trial for trial in trials}
        drawn = {seed: self.material.of(training, trial, teachers) for seed, trial in sets.items()}
        networks = [self.fresh(trial) for trial in trials]
        title = f"{arm.name}, {len(trials)} trials at once"
        watches = [
            Watch(self, network, training, trial, self._epoch_work(arm, trial), on_epoch, title)
            for network, trial in zip(networks, trials, strict=True)
        ]

        def after_epoch(epoch: int) -> None:
            for watch in watches:
                watch(epoch)

        keeping = keeping_of(keys, watches)
        finite = train_cohort(
            networks,
            [drawn[trial.subset_seed] for trial in trials],
            training,
            [trial.learning_rate for trial in trials],
            [trial.seed for trial in trials],
            self.setting,
            after_epoch,
            folded,
            capture,
            keeping,
        )
        clock -= self._kept_before(keeping)
        seconds = (time.perf_counter() - clock) / len(trials)
        captured = ", captured" if capture is not None and capture.failed is None else ""
        how = f"in a cohort of {len(trials)}, {'folded' if folded else 'vmap'}{captured}"
        return [
            self._done(arm, trial, network, stayed, watch, time.perf_counter() - seconds, how)
            for trial, network, stayed, watch in zip(trials, networks, finite, watches, strict=True)
        ]

    def _train(self, arm: Arm, trial: Trial, on_epoch: OnEpoch, key: str | None) -> Done:
        clock = time.perf_counter()
        training, data = arm.training, self.material.of(arm.training, trial, self.setting.teachers)
        network = self.student(trial)
        watch = Watch(self, network, training, trial, self._epoch_work(arm, trial), on_epoch)
        keeping = keeping_of(() if key is None else (key,), [watch])
        finite = train(network, data, training, trial.learning_rate, trial.seed, self.setting, watch, keeping)
        clock -= self._kept_before(keeping)
        how = f"alone, {self.setting.execution}"
        return self._done(arm, trial, network, finite, watch, clock, how)

    def _kept_before(self, keeping: Keeping | None) -> float:
        """Return the seconds that earlier processes spent on a training; note it if it could not be kept."""
        if keeping is None:
            return 0.0
        self.unkept = keeping.failed or self.unkept
        return keeping.seconds

    def _epoch_work(self, arm: Arm, trial: Trial) -> float:
        return self.work(arm, trial, training_only=True) / arm.training.epochs

    def _done(
        self,
        arm: Arm,
        trial: Trial,
        network: nn.Module,
        finite: bool,
        watch: Watch,
        clock: float,
        how: str,
    ) -> Done:
        """Return what a trained network came to; `clock` is when its training began."""
        training = arm.training
        validation = self._validate(network, trial) if finite else None
        predictions, epoch, best = watch.best if finite else (None, training.epochs, None)
        if self.protocol.test_epochs(training.epochs) and best is None:
            finite = False
        if finite and self.tests(arm, trial):
            predictions = _kept(predict(network, self.material.test, self.setting))
        if finite and self.chooses_by_validation(trial) and validation is None:
            finite = False
        result = TrialResult(
            **identity(trial),
            validation_accuracy=validation,
            accuracy=best if finite else None,
            epoch=epoch,
            diverged=not finite,
            seconds=time.perf_counter() - clock,
            how=how,
        )
        return Done(trial, result, predictions, watch.reported)

    def work(self, arm: Arm, trial: Trial, training_only: bool = False) -> float:
        """Return the expected work of a trial, in the time that an image takes forward and backward."""
        training, count = arm.training, self.images_of(arm)
        steps = -(-count // training.batch_size)
        work = float((count + steps * _STEP_COST) * training.epochs)
        if training_only:
            return work
        looks = len(self.protocol.test_epochs(training.epochs)) + self.tests(arm, trial)
        validated = len(self.material.validation) * self.chooses_by_validation(trial)
        return work + (looks * len(self.material.test) + validated) * _FORWARD_SHARE

    def images_of(self, arm: Arm) -> int:
        """Return how many images an epoch of the arm's trials has."""
        return len(self.material.full) if arm.training.source == "full" else sum(self.prepared.counts)

    def total_work(self) -> float:
        """Return the expected work of all trials of the plan."""
        return sum(self.arm_work(arm) for arm in self.plan.trained)

    def arm_work(self, arm: Arm) -> float:
        """Return the expected work of all of an arm's trials."""
        return sum(self.work(arm, trial) for trial in self.plan.expected_trials(arm))

    def step_work(self, images: int) -> float:
        """Return the work of one training step on so many images, in the same unit."""
        return images + _STEP_COST

    def _validate(self, network: nn.Module, trial: Trial) -> float | None:
        if not self.chooses_by_validation(trial):
            return None
        predictions = predict(network, self.material.validation, self.setting)
        return None if predictions is None else accuracy(predictions, self.material.validation.labels)

    def chooses_by_validation(self, trial: Trial) -> bool:
        """Return whether a choice still hangs on this trial."""
        (arm,) = (one for one in self.plan.arms if one.name == trial.arm)
        return self.plan.chooses_by_validation(arm, trial)

    def tests(self, arm: Arm, trial: Trial) -> bool:
        """Return whether a trial predicts the test set when it is trained; its labels are read much later.

        Every trial that a score may count does, so that no weights have to be kept until one is chosen.
        """
        return trial.phase == "final" and not self.protocol.test_epochs(arm.training.epochs)

    def student(self, trial: Trial) -> nn.Module:
        """Return the network of a trial with its initial weights, on the device, ready to be run.

        Where students are compiled it is always the same one: the trial before must be done with it.
        """
        execution, network = self.setting.execution, self.fresh(trial)
        if not execution.compiled:
            return execution.ready(network)
        if self._resident is None:
            self._resident = Resident(execution.ready(self.fresh(trial)))
        return self._resident.become(network)

    def fresh(self, trial: Trial) -> nn.Module:
        """Return a network of its own for a trial, with its initial weights, on the device."""
        real, student = self.prepared.real, self.prepared.config.student.component
        return build(student, real.num_classes, real.image_shape, trial.seed).to(self.device)


def identity(trial: Trial) -> dict[str, Any]:
    """Return what of a trial's result was known before it was trained."""
    return attrs.asdict(trial)


def _kept(predictions: Tensor | None) -> Tensor:
    """Return predictions on the CPU; an empty tensor for a network whose logits were not finite."""
    import torch

    return torch.empty(0, dtype=torch.int64) if predictions is None else predictions.cpu()
