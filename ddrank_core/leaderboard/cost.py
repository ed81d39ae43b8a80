"""What a submission asks of whoever evaluates it: how much is trained, and whether a device can hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from ddrank_core.config import RunConfig
from ddrank_core.engine.plan import Plan, Training
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.findings import Findings
from ddrank_core.leaderboard.measured import MAX_REPEATS
from ddrank_core.leaderboard.planned import planned
from ddrank_core.leaderboard.submission import leaves
from ddrank_core.protocols import Architecture
from ddrank_core.registry import Registry
from ddrank_core.structure import Chosen, plain

if TYPE_CHECKING:
    from ddrank_core.leaderboard.set_check import Loaded
    from ddrank_core.types import RealData

MAX_SHOWN = 10**9
"""Images that one training is shown, again counted again: 300 epochs of ImageNet are 4e8."""
MAX_TRAININGS = 10_000
"""Of the method alone: 100 repeats of 7 arms at 10 learning rates are 7,000."""
MANY_STEPS = 10_000_000
"""Of all its trainings: a small network does 100 to 1,000 a second, so that these are half a day or more."""
MAX_PARAMETER = 1 << 16
"""Of a network's whole numbers, which are widths, depths and sizes; none is as large."""
MAX_PASS_BYTES = 16 << 30
"""Of the images of one forward pass, float32: their activations are many times as much, and no device has
that."""


def check_cost(
    config: RunConfig,
    loaded: Loaded | None,
    real: RealData | None,
    registry: Registry,
    where: str,
    findings: Findings,
) -> None:
    """Check what training by the method's own recipe takes, as far as its data are here; say if it is much.

    Raises:
        DataError: one line that names the file and the field, if no device holds it or it does not end.
    """
    repeats = getattr(config.protocol.component, "repeats", 1)
    if repeats > MAX_REPEATS:
        raise DataError(f"{where}: protocol.repeats: {repeats}, of which at most {MAX_REPEATS} are ranked")
    check_network(config.student, f"{where}: student")
    for index, teacher in enumerate(config.teachers):
        check_network(teacher.network, f"{where}: teachers[{index}]")
    plan = planned(config, None if loaded is None else loaded.distilled.learning_rate, registry).plan
    if plan.count() > MAX_TRAININGS:
        raise DataError(
            f"{where}: protocol: {plan.count()} trainings, of which at most {MAX_TRAININGS} are done for a "
            "submission; take fewer repeats or learning rates"
        )
    steps = 0 if loaded is None else sum(_steps(plan, loaded, real, where))
    if steps > MANY_STEPS:
        text = f"{where}: {plan.count()} trainings of the method alone take {steps:,} steps"
        findings.note("warning", "cost", text)


def check_network(network: Chosen[Architecture], where: str) -> None:
    """Check that a network can be built at all.

    Raises:
        DataError: one line that names the field.
    """
    for field, value in leaves(plain(network.component)):
        if type(value) is int and abs(value) > MAX_PARAMETER:
            raise DataError(f"{where}.{field}: {value}, but no network has a parameter above {MAX_PARAMETER}")


def _steps(plan: Plan, loaded: Loaded, real: RealData | None, where: str) -> Iterator[int]:
    """Yield the steps of each arm's trainings."""
    channels, height, width = loaded.distilled.images.shape[1:]
    for arm in plan.trained:
        training, full = arm.training, arm.training.source == "full"
        field = f"{where}: {'full_data.recipe' if full else 'recipe'}"
        count = len(loaded.distilled.labels)
        if full:
            count = 0 if real is None else len(real.train_labels)
        _check_training(training, count, 4 * channels * height * width, field)
        trainings = attrs.evolve(plan, arms=(arm,)).count()
        yield trainings * training.epochs * -(-count // training.batch_size)


def _check_training(training: Training, count: int, image_bytes: int, field: str) -> None:
    if (shown := training.epochs * count) > MAX_SHOWN:
        raise DataError(
            f"{field}.epochs: {training.epochs} of {count} images show {shown:,} images in one training, of "
            f"which at most {MAX_SHOWN:,} are shown for a submission"
        )
    at_once = min(training.micro_batch or training.batch_size, training.batch_size, count)
    if at_once * image_bytes > MAX_PASS_BYTES:
        raise DataError(
            f"{field}.batch_size: {at_once} images at once have {at_once * image_bytes >> 30} GiB before any "
            f"activation (at most {MAX_PASS_BYTES >> 30}); give micro_batch"
        )
