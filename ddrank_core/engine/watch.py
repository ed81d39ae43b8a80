"""What happens beside a training: its epochs are reported, and scored where the protocol asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.plan import Training, Trial
from ddrank_core.engine.train import accuracy, predict
from ddrank_core.engine.unfinished import Keeping
from ddrank_core.events import EpochFinished

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddrank_core.engine.trial import OnEpoch, Trainer


class Counted:
    """Passes on what epochs report; work that is done again, after want of memory, counts only once."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        self._on_epoch = on_epoch
        self.done = 0.0
        """To be set back to what it was before the work that was lost."""
        self._reported = 0.0

    def __call__(self, event: EpochFinished) -> None:
        self.done += event.work
        new = max(0.0, self.done - self._reported)
        self._reported += new
        self._on_epoch(attrs.evolve(event, work=new))


class Watch:
    """Called after every epoch: tells the listeners, and scores where the protocol asks for it."""

    def __init__(
        self,
        trainer: Trainer,
        network: nn.Module,
        training: Training,
        trial: Trial,
        work: float,
        on_epoch: OnEpoch,
        title: str | None = None,
    ) -> None:
        self._trainer, self._network, self._training = trainer, network, training
        self._work, self._on_epoch = work, on_epoch
        self._title = title or words(trial, trainer.plan.repeats)
        self._test_epochs = frozenset(trainer.protocol.test_epochs(training.epochs))
        self.best: tuple[Tensor | None, int, float | None] = (None, training.epochs, None)
        """Predictions, epoch and test accuracy of the best scored epoch."""
        self.reported = 0.0

    def __call__(self, epoch: int) -> None:
        if epoch in self._test_epochs:
            self._score(epoch)
        epochs = self._training.epochs
        self._on_epoch(EpochFinished(training=self._title, epoch=epoch, epochs=epochs, work=self._work))
        self.reported += self._work

    def resumed(self, epoch: int) -> None:
        """Tell the listeners of the epochs that an earlier process did, in one event."""
        epochs = self._training.epochs
        self._on_epoch(EpochFinished(training=self._title, epoch=epoch, epochs=epochs, work=self.reported))

    def state(self) -> Any:
        """Return what it has seen, to be kept."""
        return {"best": self.best, "reported": self.reported}

    def restore(self, state: Any) -> None:
        """Have seen what is kept."""
        self.best, self.reported = state["best"], state["reported"]

    def _score(self, epoch: int) -> None:
        trainer = self._trainer
        predictions = predict(self._network, trainer.material.test, trainer.setting)
        if predictions is None:
            return
        reached = accuracy(predictions, trainer.prepared.real.test_labels)
        if self.best[2] is None or reached > self.best[2]:
            self.best = (predictions.cpu(), epoch, reached)


def keeping_of(keys: Sequence[str], watches: Sequence[Watch]) -> Keeping | None:
    """Return what keeps the training of the trials of these keys, if they have any."""
    if not keys:
        return None

    def resumed(epoch: int) -> None:
        for watch in watches:
            watch.resumed(epoch)

    return Keeping(keys, resumed, {f"watch {place}": watch for place, watch in enumerate(watches)})


def words(trial: Trial, repeats: int) -> str:
    """Return a trial in words, for progress and errors."""
    search = ", search" if trial.phase == "search" else ""
    return f"{trial.arm} {trial.repeat + 1}/{repeats}, learning rate {trial.learning_rate:g}{search}"
