"""Checks of an augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ddrank_core.engine.seed import randomness
from ddrank_core.testing.case import Case, Shape, call, hold, refusal
from ddrank_core.testing.observed import (
    CPU,
    close,
    devices,
    hold_close,
    hold_same,
    hold_untouched,
    is_like,
    known_generators,
    shown,
)
from ddrank_core.types import Augmented, Mixing

COUNT = 4
_SHAPES: tuple[Shape, ...] = ((3, 32, 32), (1, 32, 32))
"""What is tried where nothing is claimed; of these one may be refused."""
_SEEDS = range(5)
_UNSEEN = "the view would be another one in another run of the same seed"
_MIXED = (
    "mixed images come with mixed labels: mixes = True, and Augmented.mixing says for each image "
    "whose share is in it"
)


def pictures(
    case: Case, shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> Tensor:
    """Return images [4, C, H, W] of the space that the augmentation works in."""
    draws = torch.Generator().manual_seed(0)
    unit = torch.rand(COUNT, *shape, generator=draws, dtype=dtype).to(device)
    return unit if getattr(case.component, "space", "normalised") == "unit" else (unit - 0.5) / 0.25


def _view(case: Case, images: Tensor, seed: int = 1) -> Augmented:
    what = f"images {shown(images)}"
    augmented: Augmented = call(what, case.component, images.clone(), randomness(seed, images.device))
    hold(
        isinstance(augmented, Augmented), f"returned {shown(augmented)} for {what}, not ddrank_core.Augmented"
    )
    return augmented


@lru_cache(maxsize=1)
def taken(case: Case) -> tuple[Shape, ...]:
    """Return the shapes that the augmentation takes: all that it claims, or some of the usual ones."""
    found = []
    for shape in case.shapes or _SHAPES:
        images = pictures(case, shape)
        run = partial(case.component, images, randomness(1, CPU))
        _, refused = refusal(f"images {shown(images)}", run, ValueError)
        hold(
            refused is None or not case.shapes,
            f"claims to take images of {_size(shape)}, and refuses them: {refused}",
        )
        found += [] if refused else [shape]
    tried = " or ".join(map(_size, _SHAPES))
    hold(bool(found), f"takes no images of {tried} ({refused}); say in image_shapes which it takes")
    return tuple(found)


def _size(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _batches(case: Case) -> Iterator[Tensor]:
    yield from (pictures(case, shape) for shape in taken(case))


def takes_image_shapes(case: Case) -> None:
    for images in _batches(case):
        view = _view(case, images)
        hold(
            isinstance(view.images, Tensor) and view.images.shape == images.shape,
            f"returned images {shown(view.images)} for {shown(images)}; an augmentation keeps the shape",
        )
        hold(
            bool(view.images.isfinite().all()),
            f"returned pixels that are not finite for {shown(images)}; images stay finite",
        )


def keeps_device_and_dtype(case: Case) -> None:
    for device in devices():
        for shape in taken(case):
            for dtype in (torch.float32, torch.float64):
                images = pictures(case, shape, dtype, device)
                run = partial(case.component, images, randomness(1, images.device))
                view, refused = refusal(f"images {shown(images)}", run, ValueError)
                if dtype == torch.float64 and refused:
                    continue
                hold(refused is None, f"refuses images {shown(images)}: {refused}")
                hold(
                    is_like(view.images, dtype, view.images.shape, device),
                    f"returned images {shown(view.images)} for {shown(images)}; "
                    "an augmentation keeps device and dtype",
                )


def leaves_input(case: Case) -> None:
    for images in _batches(case):
        for seed in _SEEDS:
            handed = images.clone()
            call(f"images {shown(images)}", case.component, handed, randomness(seed, CPU))
            hold(torch.equal(images, handed), f"edited its input {shown(images)}; return new images")


def same_seed(case: Case) -> None:
    for images in _batches(case):
        found = []
        for _ in range(2):
            with known_generators():
                found.append([_view(case, images, seed) for seed in (1, 2)])
        for first, again in zip(*found, strict=True):
            hold_same(first, again, "the view", f"it draws from the Randomness alone, or {_UNSEEN}")


def leaves_generators(case: Case) -> None:
    for images in _batches(case):
        for seed in _SEEDS:
            hold_untouched(
                partial(_view, case, images, seed),
                f"draw from the Randomness that is given, or {_UNSEEN}",
            )


def mixes_labels(case: Case) -> None:
    declared = case.flag("mixes")
    for images in _batches(case):
        views = [_view(case, images, seed) for seed in _SEEDS]
        mixings = [view.mixing for view in views if view.mixing is not None]
        hold(
            bool(mixings) == declared,
            f"has mixes = {declared} and returned {len(mixings)} mixings in {len(views)} batches; {_MIXED}",
        )
        for mixing in mixings:
            _hold_sound(mixing)
        for seed, view in zip(_SEEDS, views, strict=True):
            _hold_told(case, images, view, seed)


def _hold_sound(mixing: Any) -> None:
    hold(isinstance(mixing, Mixing), f"returned the mixing {shown(mixing)}, not ddrank_core.Mixing")
    for name, dtype in (("partner", torch.int64), ("weight", torch.float32)):
        tensor = getattr(mixing, name)
        hold(
            is_like(tensor, dtype, (COUNT,)),
            f"returned mixing.{name} {shown(tensor)}; it is {str(dtype).removeprefix('torch.')} [{COUNT}]",
        )
    partner, weight = mixing.partner.tolist(), mixing.weight.tolist()
    hold(set(partner) <= set(range(COUNT)), f"returned the partners {partner}; they are 0 to {COUNT - 1}")
    hold(all(0 <= share <= 1 for share in weight), f"returned the weights {weight}; they are in [0, 1]")


def _hold_told(case: Case, images: Tensor, view: Augmented, seed: int) -> None:
    """Fail if an image is in another one's view, and the mixing does not say so: change it, and look."""
    last = COUNT - 1
    other = images.clone()
    other[last] = images[last].flip(-1).flip(-2) * 0.5 + images[last].mean() * 0.5
    again = _view(case, other, seed)
    for place in range(last):
        told = view.mixing is not None and int(view.mixing.partner[place]) == last
        hold(
            told or close(view.images[place], again.images[place]),
            f"gave image {place} another view when only image {last} was changed, without saying that "
            f"image {last} is its partner; {_MIXED}",
        )


def agrees_with_reference(case: Case) -> None:
    for images in _batches(case):
        for seed in _SEEDS:
            expected = case.expected(images, randomness(seed, CPU))
            found = _view(case, images, seed)
            hold_close(
                expected,
                found.images if isinstance(expected, Tensor) else found,
                f"for images {shown(images)} and seed {seed}",
            )
