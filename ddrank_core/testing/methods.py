"""Checks of a distillation method, on a few random images."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from typing import Any

import torch

from ddrank_core.data.checks import check_described
from ddrank_core.errors import DataError
from ddrank_core.testing.case import Case, ContractBroken, call, hold
from ddrank_core.testing.observed import (
    CPU,
    copies,
    devices,
    hold_close,
    hold_same,
    hold_unchanged,
    hold_untouched,
    is_like,
    known_generators,
    shown,
)
from ddrank_core.types import DistilledSet, RealData

_CLASSES, _IPC = 3, 2
_SHAPE = (1, 8, 8)


def real_data(test: str = "cpu") -> RealData:
    """Return 24 random grey images of three classes, and six to test with, on the device `test`."""
    draws = torch.Generator().manual_seed(0)
    return RealData(
        train_images=torch.rand(24, *_SHAPE, generator=draws),
        train_labels=torch.arange(24) % _CLASSES,
        test_images=torch.rand(6, *_SHAPE, generator=draws).to(test),
        test_labels=(torch.arange(6) % _CLASSES).to(test),
        class_names=("a", "b", "c"),
        mean=(0.5,),
        std=(0.3,),
        source="random images",
    )


def network(case: Case) -> Any:
    """Return a small architecture to distil with."""
    return case.structurer.chosen("architecture", {"use": "convnet", "depth": 1, "width": 4}).component


def distil(
    case: Case,
    data: RealData,
    device: torch.device = CPU,
    steps: list[tuple[int, int]] | None = None,
) -> DistilledSet:
    """Return what the method distils of the data into two images per class."""
    reported: list[tuple[int, int]] = [] if steps is None else steps
    found: DistilledSet = call(
        "distill",
        case.component.distill,
        data,
        network(case),
        _IPC,
        str(device),
        1,
        lambda step, total: reported.append((step, total)),
    )
    hold(isinstance(found, DistilledSet), f"returned {shown(found)}, not ddrank_core.DistilledSet")
    return found


@lru_cache(maxsize=1)
def distilled(case: Case) -> DistilledSet:
    """Return the distilled set that the checks share, not to be changed."""
    with known_generators():
        return distil(case, real_data())


def gives_what_is_asked(case: Case) -> None:
    found = distilled(case)
    counts = torch.bincount(found.labels, minlength=_CLASSES).tolist()
    hold(
        found.num_classes == _CLASSES and counts == [_IPC] * _CLASSES,
        f"gives {counts} images of {found.num_classes} classes; asked were {_IPC} of each of {_CLASSES}",
    )
    hold(
        len(found.images) == len(found.labels) and bool(found.images.isfinite().all()),
        f"gives {shown(found.images)} for {len(found.labels)} labels; every label has one finite image",
    )
    soft = None if found.soft_labels is None else found.soft_labels.shape[1]
    try:
        check_described(found, _SHAPE[0], soft, "its distilled set")
    except DataError as error:
        raise ContractBroken(str(error)) from error
    call("writing its info as JSON", lambda: json.dumps(dict(found.info)))


def keeps_device_and_dtype(case: Case) -> None:
    for device in devices():
        found = distilled(case) if device == CPU else distil(case, real_data(), device)
        hold(
            is_like(found.images, torch.float32, (_IPC * _CLASSES, *_SHAPE)),
            f"gives images {shown(found.images)} when it works on {device.type}; "
            f"a distilled set is float32 {[_IPC * _CLASSES, *_SHAPE]} on the CPU",
        )
        hold(
            is_like(found.labels, torch.int64, (len(found.images),)),
            f"gives labels {shown(found.labels)}; they are int64 [N] on the CPU",
        )


def leaves_input(case: Case) -> None:
    data = real_data()
    before = copies(data)
    distil(case, data)
    hold_unchanged(before, data, "the data")


def same_seed(case: Case) -> None:
    with known_generators():
        again = distil(case, real_data())
    hold_same(distilled(case), again, "the distilled set", "the same seed distils the same images")


def leaves_generators(case: Case) -> None:
    hold_untouched(
        partial(distil, case, real_data()), "a method draws from its seed, and puts back what it lends"
    )


def leaves_test_images(case: Case) -> None:
    """Hand over test images that have a shape, and no pixels."""
    found = distil(case, real_data(test="meta"))
    made = [name for name, tensor in copies(found).items() if tensor.device != CPU]
    hold(not made, f"made {', '.join(made)} of the test images, which a method never looks at")


def reports_steps(case: Case) -> None:
    steps: list[tuple[int, int]] = []
    distil(case, real_data(), steps=steps)
    total = steps[-1][1] if steps else 0
    hold(
        bool(steps) and steps == [(step, total) for step in range(1, total + 1)],
        f"reported the steps {steps[:4]} ...; report(step, steps) is called for each step from 1 to steps",
    )


def agrees_with_reference(case: Case) -> None:
    expected = case.expected(real_data(), network(case), _IPC, "cpu", 1, lambda step, total: None)
    hold_close(expected, distilled(case), "in what it distils")
