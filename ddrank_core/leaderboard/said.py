"""What a record says beside its numbers: protocol and device, the distilled set, the teachers' weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddrank_core.config import RunConfig, Teacher
from ddrank_core.data import stored_views
from ddrank_core.engine.teachers import load_checkpoint, weights_digest
from ddrank_core.engine.train import build
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.measured import take, typed
from ddrank_core.leaderboard.parameters import parameters
from ddrank_core.leaderboard.planned import Planned
from ddrank_core.leaderboard.sizes import check_weights
from ddrank_core.structure import plain
from ddrank_core.types import DistilledSet

MAX_DEVICE = 100
"""Characters of what a record calls its device."""


def check_said(record: Mapping[str, Any], planned: Planned, where: str) -> None:
    """Check what a record says of its protocol, precision and device.

    Raises:
        DataError: one line that names the file and the field.
    """
    config, plan = planned.config, planned.plan
    check_equal(record, "protocol.name", config.protocol.use, where)
    check_equal(record, "protocol.version", config.protocol.component.version, where)
    check_equal(record, "protocol.learning_rates", list(plan.candidates), where)
    on_test = bool(config.protocol.component.test_epochs(1))
    check_equal(record, "protocol.selected_on_test_set", on_test, where)
    check_equal(record, "precision", config.precision, where)
    device = take(record, "device", str, where)
    if not device.strip() or len(device) > MAX_DEVICE or not device.isprintable():
        raise DataError(f"{where}: device: must be one line of 1 to {MAX_DEVICE} characters")


def check_set_said(
    record: Mapping[str, Any],
    distilled: DistilledSet,
    config: RunConfig,
    own_rate: float | None,
    is_control: bool,
    where: str,
) -> None:
    """Check what a record says of the set that it was made with; a control has what the distilled set has.

    `own_rate` is the learning rate that the set brings, where the track has it.

    Raises:
        DataError: one line that names the file and the field.
    """
    soft = None if distilled.soft_labels is None else distilled.soft_kind
    if is_control and not getattr(config.recipe.labels.component, "needs_stored_soft", False):
        soft = None
    counts = distilled.labels.bincount(minlength=distilled.num_classes).tolist()
    expected: dict[str, Any] = {
        "images": len(distilled.labels),
        "images_per_class": counts,
        "soft_labels": soft,
        "learning_rate": own_rate,
    }
    if not is_control:
        expected["space"] = distilled.space.kind
    for field, value in expected.items():
        check_equal(record, f"data.distilled.{field}", value, where)


def check_views(config: RunConfig, distilled: DistilledSet) -> None:
    """Check that the stored views of a recipe are views, of these images.

    Raises:
        DataError: one line that names the file and the field.
    """
    if config.distilled.views is not None:
        count, _, height, width = distilled.images.shape
        size = (int(height), int(width))
        stored_views.load(config.distilled.views, images=count, num_classes=distilled.num_classes, size=size)


def check_teachers(record: Mapping[str, Any], distilled: DistilledSet, config: RunConfig, where: str) -> None:
    """Check that the teachers that a run asked had the weights that lie in the submission.

    Raises:
        DataError: one line that names the file and the field.
    """
    said = take(record, "teachers", list, where)
    if not said:
        return
    if len(said) != len(config.teachers):
        raise DataError(f"{where}: teachers: {len(said)}, but the recipe names {len(config.teachers)}")
    for index, teacher in enumerate(config.teachers):
        field = f"{where}: teachers[{index}]"
        given = take(typed(said[index], dict, field), "digest", str, field)
        if teacher.checkpoint is not None and given != _weights(teacher, distilled, field):
            raise DataError(f"{field}.digest: is not that of {teacher.checkpoint}; evaluate it again")


def _weights(teacher: Teacher, distilled: DistilledSet, where: str) -> str:
    """Return the SHA-256 of a checkpoint's weights."""
    path, shape = teacher.checkpoint, list(distilled.images.shape[1:])
    assert path is not None
    # Counted before it is built: a network that does not fit its file is never held in memory.
    count = parameters(plain(teacher.network), distilled.num_classes, shape, where)
    check_weights(path.stat().st_size, count, f"{where}: {path}")
    network = build(teacher.network.component, distilled.num_classes, (shape[0], shape[1], shape[2]), 0)
    load_checkpoint(network, path, where)
    return weights_digest(network)


def check_equal(record: Mapping[str, Any], field: str, expected: Any, where: str) -> None:
    """Check that a record says at a dotted field what is known here.

    Raises:
        DataError: one line that names the file and the field.
    """
    *outer, name = field.split(".")
    values = take(record, ".".join(outer), dict, where) if outer else record
    found = values.get(name, "nothing")
    if found != expected or isinstance(found, bool) != isinstance(expected, bool):
        raise DataError(
            f"{where}: {field}: {str(found)[:64]}, but it is {str(expected)[:64]} here; evaluate it again"
        )
