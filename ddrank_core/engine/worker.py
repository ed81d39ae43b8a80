"""One device with all that a run needs to train its trials there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from ddrank_core.asked import Asked
from ddrank_core.engine import device
from ddrank_core.engine.cohorts import Cohorts
from ddrank_core.engine.execution import AS_IT_IS
from ddrank_core.engine.executors.contract import Finished, Task, TaughtHere
from ddrank_core.engine.plan import ArmName, Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.engine.train import build, predict, train
from ddrank_core.engine.trial import OnEpoch, Trainer
from ddrank_core.engine.unfinished import Keeping
from ddrank_core.events import EpochFinished

if TYPE_CHECKING:
    from torch import Tensor


class Worker:
    """Trains tasks, one after another. The threads that it computes on are the caller's to set."""

    def __init__(self, prepared: Prepared, asked: Asked) -> None:
        self.prepared, self.asked = prepared, asked
        self.trainer = Trainer(prepared)
        self.cohorts = Cohorts(self.trainer, asked.cohort, captures=asked.compile != "off")
        self._arms = {arm.name: arm for arm in prepared.plan.arms}
        self._teachers: tuple[ReadyTeacher, ...] = ()

    @property
    def kind(self) -> str:
        """What of the device can change a result's bits."""
        return device.kind(self.prepared.device)

    @property
    def described(self) -> str:
        """The device's name as people know it."""
        return device.describe(self.prepared.device)

    def most(self, arm: ArmName, trial: Trial) -> int:
        """Return how many trials like this one are trained at once."""
        return self.cohorts.most(self._arms[arm], trial)

    def use_teachers(self, teachers: Sequence[ReadyTeacher]) -> None:
        """Ask these from now on, wherever labels need a teacher."""
        self._teachers = tuple(teachers)
        self.trainer.use_teachers([teacher.network for teacher in teachers])

    def train(self, task: Task, on_epoch: OnEpoch) -> Finished:
        """Train a task's trials at once; where that cannot be, only the first of them.

        Raises:
            RunFailed: one line that names the trial, if a component fails.
        """
        arm, (first, *others) = self._arms[task.arm], task.trials
        if others:
            found = self.cohorts.probe(arm, first)
            if found.reason is None:
                dones = self.trainer.train_together(
                    arm, task.trials, found.folded, on_epoch, found.capture, task.keys
                )
                return Finished(task=task, dones=tuple(dones))
        done = self.trainer.train(arm, first, on_epoch, task.keys[0])
        return Finished(task=task, dones=(done,), alone=bool(others))

    def train_teacher(self, index: int, key: str, on_epoch: OnEpoch) -> TaughtHere:
        """Train the config's teacher of that index on the real data."""
        config, training = self.prepared.config, self.prepared.teacher_training
        teacher, recipe, real = config.teachers[index], config.full_data.recipe, self.prepared.real
        # The config's cross-check asks for a recipe.
        assert training is not None
        assert recipe is not None
        seed = derive(config.seed, "teacher", index)
        network = build(teacher.network.component, real.num_classes, real.image_shape, seed)
        network.to(self.prepared.device)
        title = f"teacher {index + 1}/{len(config.teachers)}, {teacher.network.use}"

        def after(epoch: int) -> None:
            on_epoch(EpochFinished(training=title, epoch=epoch, epochs=training.epochs, work=0.0))

        setting = attrs.evolve(self.trainer.setting, execution=AS_IT_IS)
        rate = recipe.learning_rate
        data, keeping = self.trainer.material.full, Keeping((key,), after)
        finite = train(network, data, training, rate, seed, setting, after, keeping)
        weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
        return TaughtHere(weights=weights, finite=finite)

    def ask_teacher(self, index: int) -> Tensor | None:
        """Return what a teacher in use predicts of the test set, int64 [N] on the CPU; None if not finite."""
        setting = attrs.evolve(self.trainer.setting, execution=AS_IT_IS)
        found = predict(self._teachers[index].network, self.trainer.material.test, setting)
        return None if found is None else found.cpu()

    def notes(self) -> tuple[str, ...]:
        """Return what was not trained as it might have been, and why."""
        return (*self.cohorts.notes(), *self.trainer.memory_notes())
