"""Checks of a data set: of what it says without its files, and of what it loads where it can."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddrank_core.data.facts import DatasetFacts
from ddrank_core.errors import DataError
from ddrank_core.spec import parameters_of
from ddrank_core.testing.case import Case, call, hold, refusal
from ddrank_core.testing.observed import (
    hold_close,
    hold_same,
    hold_untouched,
    is_like,
    known_generators,
    shown,
)
from ddrank_core.types import RealData


def paths_of(case: Case) -> list[str]:
    """Return the parameters that say where the files are."""
    return [field.name for field in parameters_of(case.cls) if field.type in (Path, Path | None)]


def has_files(case: Case) -> bool:
    return bool(paths_of(case))


def states_facts(case: Case) -> bool:
    return hasattr(case.cls, "facts")


def can_load(case: Case) -> bool:
    """Return whether there is something to load: a data set without files, or with an author's example."""
    return bool(case.given) or not paths_of(case)


@lru_cache(maxsize=1)
def loaded(case: Case) -> RealData:
    """Return what the data set loads, not to be changed."""
    data: RealData = call("load()", case.component.load)
    return data


def says_what_is_missing(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        nowhere = str(Path(folder) / "nothing-here")
        given = {**case.given, **dict.fromkeys(paths_of(case), nowhere)}
        component = case.structurer.chosen(case.kind, {"use": case.name, **given}).component
        _, refused = refusal("load() without its files", component.load, DataError)
        hold(
            refused is not None and nowhere in refused,
            f"load() without its files says {refused!r}; a DataError names the path, here {nowhere}",
        )
        hold(
            not list(Path(folder).iterdir()),
            "load() made files where it found none; data is got with 'ddrank data'",
        )


def facts_are_sound(case: Case) -> None:
    facts = call("facts()", case.component.facts)
    hold(isinstance(facts, DatasetFacts), f"facts() returned {shown(facts)}, not ddrank_core.DatasetFacts")
    hold(bool(facts.source and facts.licence), "facts() leaves out the source or the licence")
    classes, names = facts.num_classes, facts.class_names
    hold(not names or len(names) == classes, f"facts() has {len(names)} class names for {classes} classes")
    hold(
        len(facts.mean) == len(facts.std) and all(std > 0 for std in facts.std),
        f"facts() has mean {facts.mean} and std {facts.std}; both are per channel, and std is above 0",
    )


def loads_sound_data(case: Case) -> None:
    data = loaded(case)
    hold(isinstance(data, RealData), f"load() returned {shown(data)}, not ddrank_core.RealData")
    hold(len(set(data.class_names)) == data.num_classes >= 2, f"has the class names {data.class_names}")
    for part in ("train", "test"):
        _hold_part(part, getattr(data, f"{part}_images"), getattr(data, f"{part}_labels"), data.num_classes)
    shapes = [list(images.shape[1:]) for images in (data.train_images, data.test_images)]
    hold(
        shapes[0] == shapes[1],
        f"loads images of two sizes: train {shapes[0]}, test {shapes[1]}",
    )
    channels = data.image_shape[0]
    hold(
        len(data.mean) == len(data.std) == channels and all(std > 0 for std in data.std),
        f"has mean {data.mean} and std {data.std} for {channels} channels; each has one above-0 std",
    )
    if states_facts(case):
        _hold_as_stated(case.component.facts(), data)


def _hold_part(part: str, images: Any, labels: Any, classes: int) -> None:
    pixels = isinstance(images, Tensor) and images.dtype in (torch.uint8, torch.float32) and images.ndim == 4
    hold(
        pixels and images.device.type == "cpu",
        f"loads {part}_images {shown(images)}; they are uint8 or float32 [N, C, H, W] on the CPU",
    )
    low, high = float(images.min()), float(images.max())
    hold(
        images.dtype == torch.uint8 or 0 <= low <= high <= 1,
        f"loads {part}_images from {low:g} to {high:g}; floats are in [0, 1]",
    )
    hold(
        is_like(labels, torch.int64, (len(images),)),
        f"loads {part}_labels {shown(labels)} for {len(images)} images; they are int64 [N]",
    )
    hold(
        0 <= int(labels.min()) and int(labels.max()) < classes,
        f"loads {part}_labels from {int(labels.min())} to {int(labels.max())} for {classes} classes",
    )


def _hold_as_stated(facts: DatasetFacts, data: RealData) -> None:
    """Fail where data differ from the facts; there may be fewer images than in the published whole."""
    pairs: Sequence[tuple[str, Any, Any]] = (
        ("num_classes", facts.num_classes, data.num_classes),
        ("class_names", facts.class_names or None, data.class_names),
        ("image_shape", facts.image_shape, data.image_shape),
    )
    for name, stated, found in pairs:
        hold(stated is None or stated == found, f"loads {name} {found}, and facts() says {stated}")
    for name, stated, found in (
        ("train", facts.train_images, len(data.train_images)),
        ("test", facts.test_images, len(data.test_images)),
    ):
        hold(stated is None or found <= stated, f"loads {found} {name} images, and facts() says {stated}")


def same_each_time(case: Case) -> None:
    with known_generators():
        again = call("load()", case.component.load)
    hold_same(loaded(case), again, "the data", "data are the same at every load")


def leaves_generators(case: Case) -> None:
    hold_untouched(case.component.load, "loading draws nothing that others see")


def agrees_with_reference(case: Case) -> None:
    hold_close(case.expected(), loaded(case), "in what it loads")
