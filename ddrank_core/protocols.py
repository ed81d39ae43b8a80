"""What each kind of component must do. A component is a class made with `ddrank_core.component`.

The engine makes it once per run from the config, and calls it once per training step. Class
variables that a protocol lists may be left out where the default fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from ddrank_core.types import Augmented, DistilledSet, Randomness, RealData, Targets, View

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from ddrank_core.events import Event, RunStarted
    from ddrank_core.results import Rung, TrialResult

Teachers = Callable[["Tensor"], "tuple[Tensor, ...]"]
"""Normalised images [B, C, H, W] -> one logits tensor [B, K] per teacher, without gradients."""


class Loss(Protocol):
    """Compares a student's logits with the targets.

    `needs_soft` is True for a loss that has no meaning without soft labels; a config that pairs it
    with a label mapping that gives none is refused before anything is trained.
    `needs_logits` is True where stored probabilities will not do.
    """

    needs_soft: ClassVar[bool] = False
    needs_logits: ClassVar[bool] = False

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the batch, a scalar of the logits' dtype.

        Pure torch, no random draws, no `.item()`: it is called inside the training step.
        """
        ...


class LabelMapping(Protocol):
    """Says what each image is trained towards.

    `gives_soft`: its targets carry soft labels. `needs_stored_soft`: every image must come with a
    stored soft label. `needs_teacher`: it asks the teachers about every augmented view.
    `replays_views`: images, order and mixing come from the distilled set's stored views.
    """

    gives_soft: ClassVar[bool] = False
    needs_stored_soft: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    replays_views: ClassVar[bool] = False

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the batch's targets; `teachers` returns an empty tuple where there are none."""
        ...


class Augmentation(Protocol):
    """Turns a batch of images into another view of it.

    `space` is the pixel space it works in: the engine hands it normalised images, or images
    brought back to [0, 1] first (`unit`). `mixes` is True if it mixes images with each other; it
    then says how in `Augmented.mixing`, and at most one such augmentation may be in a recipe.
    """

    space: ClassVar[Literal["normalised", "unit"]] = "normalised"
    mixes: ClassVar[bool] = False

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return a new batch [B, C, H, W] of the same shape, dtype and device.

        Never edits `images`; draws only from `randomness`; all images at once, on their device.
        """
        ...


class Architecture(Protocol):
    """Builds a network."""

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return a network [B, C, H, W] -> logits [B, num_classes], on the CPU, freshly initialised.

        Initial weights come from torch's global generator, which the engine seeds.
        All that it remembers from step to step is in parameters and buffers, from which a long training goes
        on after an interruption; all that it draws comes from torch's global generators.

        Raises:
            ValueError: if the network cannot take images of that shape.
        """
        ...


class Dataset(Protocol):
    """A real data set.

    Two methods may be left out. `facts() -> DatasetFacts` says what is known of it without reading it, for
    `ddrank data list` and `ddrank data info`. `pictures() -> Sequence[Pictures]` lists the picture files of
    each part, which `ddrank data prepare` then decodes beforehand; `load` gets the pixels with `decoded`.
    """

    def load(self) -> RealData:
        """Read the data set from disk.

        Raises:
            DataError: naming the file, what is wrong with it and what to do.
        """
        ...


class Method(Protocol):
    """A distillation method, run by `ddrank distill`."""

    def distill(
        self,
        data: RealData,
        architecture: Architecture,
        ipc: int,
        device: str,
        seed: int,
        report: Callable[[int, int], None],
    ) -> DistilledSet:
        """Distil the training images of `data` into `ipc` images per class.

        Calls `report(step, steps)` as it goes. Never looks at the test images.
        """
        ...


class Sink(Protocol):
    """Keeps what happens in a run, in a file or with a tracker: `ddrank run --sink NAME:FIELD=VALUE,...`.

    A method may be left out: `check() -> None` is called before anything is loaded, and raises a
    `ConfigError` in one line where the sink cannot work: a library that is missing, a path that is no file.
    """

    def open(self, event: RunStarted) -> SinkWriter:
        """Begin a run, and return what its later events are written with. Nothing is trained yet.

        A run that was stopped and goes on is opened again with the same `event.folder`: what is there stays.
        A path that the user does not give is in that folder.

        Raises:
            OSError: if a file cannot be written.
            ConfigError: one line, if it cannot be opened for another reason.
        """
        ...


class SinkWriter(Protocol):
    """Writes the events of one run, on the process that drives the run."""

    def write(self, event: Event) -> None:
        """Keep one event, so that it is not lost if the process dies. They come in the run's order.

        They are the events of a run after its `RunStarted`; the last is a `RunFinished` or a `RunFailed`.
        One that it has no use for, or does not know, is passed over. It is called many times a second
        in the middle of a run: it does not wait for a network.
        """
        ...

    def close(self) -> None:
        """Give back what it holds. Called once, also where `write` has raised or the run broke off."""
        ...


class Optimizer(Protocol):
    """Makes a torch optimiser. The engine's own kind: no hook brings one."""

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return the optimiser of `parameters` at `learning_rate`."""
        ...


class Schedule(Protocol):
    """Says how the learning rate changes. The engine's own kind."""

    def factor(self, epoch: int, epochs: int) -> float:
        """Return what the learning rate of `epoch` (0 .. epochs - 1) is multiplied with."""
        ...


class Selection(Protocol):
    """A protocol: how many repeats, and how learning rate and epoch are chosen. The engine's own kind."""

    version: ClassVar[str]
    repeats: int
    learning_rates: tuple[float, ...]

    def validation_share(self, candidates: Sequence[float]) -> float:
        """Return the share of the real training set that is set aside to choose by; 0 for none."""
        ...

    def test_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs (from 1) after which a trial is scored on the test set as it trains."""
        ...

    def rungs(self, rates: int) -> tuple[Rung, ...]:
        """Return how an arm's search over `rates` candidates goes on: the first rung has all of them."""
        ...

    def keep(self, trials: Sequence[TrialResult], rates: int) -> tuple[float, ...]:
        """Return the `rates` best candidates of an arm's trials so far, ascending, for its next rung."""
        ...

    def select(self, trials: Sequence[TrialResult]) -> tuple[TrialResult, ...]:
        """Return, of one arm's trials over all rates and repeats, the one that counts for each repeat."""
        ...
