"""Whether a teacher knows this data: asked before its use, on real training images and never on test ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ddrank_core.engine.checkpoints import About, read_about, weights_digest
from ddrank_core.engine.images import ImageSet, WorkingSpace
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.rehearse import fault
from ddrank_core.engine.seed import derive, generator
from ddrank_core.engine.teachers import freeze, load_checkpoint
from ddrank_core.engine.train import build, evaluation_batch
from ddrank_core.errors import DataError
from ddrank_core.types import RealData

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

SAMPLE = 2048
"""At most so many training images are asked about; a share of a half is then known to about two percent."""

_SURE = 4.0
"""Standard errors beyond which a difference is not taken for chance."""
_EXPLAINS = 0.3
"""How far above guessing, on the way to all right, an order of classes must bring a teacher to be believed.
Untrained ConvNets on digits came to 0.09 to 0.26 (0 to 0.18 of the way), a trained one to more than 0.9."""
_WEAK = 0.25
"""How far above guessing a teacher is still weak enough to be worth a word."""
_BELOW_DECLARED = 0.05
"""How far below the declared test accuracy that on training images may be, beside its standard errors."""
_SAME_STATISTIC = 0.01
"""Rounded, or computed over n - 1, normalisation statistics differ by less; another data set's by more."""
_NAMED = 3
"""Classes that an error names."""


@attrs.frozen(kw_only=True)
class TeacherCheck:
    """What a teacher was found to know before its use."""

    images: int
    """Real training images that it was asked about."""
    accuracy: float
    """Its accuracy on them, a fraction; of images that it was most likely trained on."""
    reordered: float
    """The accuracy under the order of classes that fits best, found on one half of the images and measured on
    the other; well above `accuracy` only where the classes are in another order."""
    declared: float | None = None
    """The test accuracy that the config or the checkpoint gives."""
    note: str | None = None
    """What a reader should know, one sentence."""


def check_teachers(prepared: Prepared) -> tuple[TeacherCheck | None, ...]:
    """Check every teacher that brings its weights; None stands for one that is trained here.

    Raises:
        DataError: one line that names the teacher, what is wrong and what to do.
    """
    sample: ImageSet | None = None
    checks: list[TeacherCheck | None] = []
    for index, teacher in enumerate(prepared.config.teachers):
        if teacher.is_trained_here:
            checks.append(None)
            continue
        real, where = prepared.real, f"{prepared.where}: teachers[{index}]"
        with fault(where):
            network = build(teacher.network.component, real.num_classes, real.image_shape, 0)
        about = None
        if teacher.checkpoint is not None:
            where = f"{where}.checkpoint"
            load_checkpoint(network, teacher.checkpoint, where)
            whitening = prepared.config.whitening
            eps = None if whitening is None else whitening.eps
            about = check_about(network, teacher.checkpoint, real, eps, where)
        declared = about.accuracy if about and teacher.accuracy is None else teacher.accuracy
        sample = sample or check_sample(real, prepared.space, prepared.device)
        network = freeze(network, prepared.device)
        checks.append(check_teacher(network, sample, real.class_names, declared, where))
    return tuple(checks)


def check_sample(real: RealData, space: WorkingSpace, device: torch.device) -> ImageSet:
    """Return up to `SAMPLE` real training images, the same in every run: of every class alike, or nearly.

    With more classes than images, some classes have one image and the others none.
    """
    import torch

    source = generator(derive(0, "teacher check"))
    order = torch.randperm(len(real.train_labels), generator=source)
    # The n-th image of each class comes before any class's n+1-th: a stable sort by the place in a class.
    labels = real.train_labels[order]
    by_class = labels.argsort(stable=True)
    ends = labels.bincount(minlength=real.num_classes).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(len(order)) - starts[labels[by_class]]
    index = order[rank.argsort(stable=True)[:SAMPLE]].sort().values
    return ImageSet(
        images=real.train_images[index].to(device),
        labels=real.train_labels[index].to(device),
        num_classes=real.num_classes,
        space=space,
    )


def check_about(
    network: nn.Module, path: Path, real: RealData, whitening: float | None, where: str
) -> About | None:
    """Compare what a checkpoint says about itself with the data set; return it, None where it says nothing.

    `network` holds its weights; `whitening` is the run's eps.

    Raises:
        DataError: if its classes, their order, its normalisation or whitening are others, or its weights are.
    """
    about = read_about(path)
    if about is None:
        return None
    if about.weights != weights_digest(network):
        raise DataError(f"{where}: {path}: the weights are not those that its description was written for")
    if about.class_names != real.class_names:
        raise DataError(
            f"{where}: {path} was trained on {about.dataset} with other classes, or in another order: "
            f"{_first_difference(about.class_names, real.class_names)}; train one with 'ddrank teacher train'"
        )
    if about.whitening != whitening:
        raise DataError(
            f"{where}: {path} was trained on {_space_in_words(about.whitening)} images, and this run is on "
            f"{_space_in_words(whitening)} ones; set whitening alike"
        )
    for name in ("mean", "std") if whitening is None else ():
        theirs, ours = getattr(about, name), getattr(real, name)
        if len(theirs) != len(ours) or any(
            abs(a - b) > _SAME_STATISTIC for a, b in zip(theirs, ours, strict=True)
        ):
            raise DataError(
                f"{where}: {path} was trained on images normalised with {name} {_rounded(theirs)}, and the "
                f"data set's is {_rounded(ours)}; train one with 'ddrank teacher train'"
            )
    return about


def check_teacher(
    network: nn.Module, images: ImageSet, class_names: Sequence[str], declared: float | None, where: str
) -> TeacherCheck:
    """Ask a network about real training images with their labels, and refuse one that does not know them.

    `network` is in evaluation mode on the images' device. `declared` is the test accuracy it is said to
    have, a fraction; on images that it was trained on it should do no worse. Test images and labels are not
    looked at.

    With K classes and guessing right in g = 1/K of the cases, these are refused: logits that are not finite;
    an order of classes other than the data set's, if that explains the answers far better (two exchanged
    classes are enough); an accuracy of at most g + g(1 - g)/2, or g and four standard errors; and one
    more than 0.05 and four standard errors below the declared.

    Raises:
        DataError: one line.
    """
    guess, count = 1 / len(class_names), len(images)
    answers, labels = _answers(network, images, where), images.labels.cpu()
    accuracy = int((answers == labels).sum()) / count
    order = _best_order(answers, labels, len(class_names))
    believed = order.accuracy >= guess + _EXPLAINS * (1 - guess)
    if believed and order.gained > 2 * order.lost and _sure(order.gained, order.lost):
        raise DataError(
            f"{where}: the teacher's classes are in another order: {_moved(order.of, class_names)}"
        )
    found = f"the teacher gets {_percent(accuracy)} of {count} real training images right"
    if accuracy <= guess + max(_SURE * _error(guess, count), guess * (1 - guess) / 2):
        raise DataError(
            f"{where}: {found}, and guessing {_percent(guess)}: it was trained on other data, with another "
            "normalisation or order of classes"
        )
    if declared is not None and accuracy < declared - _BELOW_DECLARED - _SURE * _error(declared, count):
        raise DataError(
            f"{where}: {found}, far below its declared test accuracy of {_percent(declared)}: it expects "
            "other images (size, normalisation, whitening), or is not the one that was meant"
        )
    weak = accuracy < guess + _WEAK * (1 - guess)
    note = (
        f"The teacher gets only {_percent(accuracy)} of {count} real training images right." if weak else None
    )
    return TeacherCheck(
        images=count, accuracy=accuracy, reordered=order.accuracy, declared=declared, note=note
    )


def _answers(network: nn.Module, images: ImageSet, where: str) -> Tensor:
    """Return the class that the network gives each image, int64 [N] on the CPU."""
    import torch

    size = evaluation_batch(images, images.labels.device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), size):
            logits = network(images.batch(slice(start, start + size)))
            if not bool(logits.isfinite().all()):
                raise DataError(f"{where}: the teacher gives NaN or infinite logits for real training images")
            parts.append(logits.argmax(dim=1).cpu())
    return torch.cat(parts)


@attrs.frozen(kw_only=True)
class _Order:
    """The order of classes that fits a teacher best, and its worth on images that it was not found on."""

    of: dict[int, int]
    """The data set's class -> the teacher's, found on all images; only classes that were seen."""
    accuracy: float
    gained: int
    """Images of moved classes that are right in this order."""
    lost: int
    """Images of moved classes that are right in the data set's own order."""


def _best_order(answers: Tensor, labels: Tensor, num_classes: int) -> _Order:
    """Find the order on each half of the images and measure it on the other.

    Measured where it was found, an order of 1,000 classes from two images each explains any answers.
    """
    import torch

    # Every second image of each class, since the labels are sorted first.
    by_class = labels.argsort(stable=True)
    halves = by_class[::2], by_class[1::2]
    right = gained = lost = 0
    for find, measure in (halves, halves[::-1]):
        order = _assignment(answers[find], labels[find])
        theirs = torch.tensor([order.get(label, label) for label in range(num_classes)])[labels[measure]]
        moved = theirs != labels[measure]
        right += int((answers[measure] == theirs).sum())
        gained += int((answers[measure] == theirs)[moved].sum())
        lost += int((answers[measure] == labels[measure])[moved].sum())
    return _Order(of=_assignment(answers, labels), accuracy=right / len(labels), gained=gained, lost=lost)


def _assignment(answers: Tensor, labels: Tensor) -> dict[int, int]:
    """Return the one-to-one map from labels to answers that most images agree with, clearest pairs first.

    Over classes that occur, so its cost is bounded by the sample, however many classes there are. A pair that
    no image speaks for is left out.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    rows, row = np.unique(labels.numpy(), return_inverse=True)
    columns, column = np.unique(answers.numpy(), return_inverse=True)
    agree: NDArray[np.int64] = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(agree, (row, column), 1)
    # A class stays where it is unless more than its own count speaks for another place.
    tied = 2 * agree + (rows[:, None] == columns[None, :])
    pairs = sorted(zip(*linear_sum_assignment(tied, maximize=True), strict=True), key=lambda p: -agree[p])
    return {int(rows[r]): int(columns[c]) for r, c in pairs if agree[r, c]}


def _sure(gained: int, lost: int) -> bool:
    """Return whether images that one of two orders gets right speak clearly for the first (a sign test)."""
    return gained - lost > _SURE * math.sqrt(gained + lost)


def _error(share: float, count: int) -> float:
    """Return the standard error of a share that is measured on `count` images."""
    return math.sqrt(share * (1 - share) / count)


def _moved(order: dict[int, int], class_names: Sequence[str]) -> str:
    moved = [(theirs, ours) for ours, theirs in order.items() if ours != theirs]
    named = ", ".join(f"its class {t} is the data set's {o} '{class_names[o]}'" for t, o in moved[:_NAMED])
    more = f" and {len(moved) - _NAMED} more are moved" if len(moved) > _NAMED else ""
    return f"{named}{more}{_reason(order, class_names)}; use one that was trained in the data set's order"


def _reason(order: dict[int, int], class_names: Sequence[str]) -> str:
    """Say which order it is, where it is the one that folders of images come in."""
    by_name = sorted(range(len(class_names)), key=lambda label: class_names[label])
    by_number = sorted(range(len(class_names)), key=str)
    for words, listed in (("of their names", by_name), ("of their numbers as text", by_number)):
        place = {label: position for position, label in enumerate(listed)}
        moves = sum(place[ours] != ours for ours in order)
        if moves and sum(place[ours] == theirs for ours, theirs in order.items()) >= 0.9 * len(order):
            return f" (they follow the alphabet {words})"
    return ""


def _first_difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    if len(theirs) != len(ours):
        return f"{len(theirs)} classes, and the data set has {len(ours)}"
    index = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    return f"its class {index} is '{theirs[index]}', the data set's '{ours[index]}'"


def _space_in_words(whitening: float | None) -> str:
    return "normalised" if whitening is None else f"ZCA-whitened (eps {whitening:g})"


def _rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
