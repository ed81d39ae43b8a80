"""Give ddranking 0.2.0's DSA and ours the same images and draws, and compare the views.

Run it with the peer's Python (`benchmarks/peer/setup.sh` makes it), with the root and the plugins of this
project on the path:

    PYTHONPATH=.:plugins PEER/bin/python benchmarks/agreement/dsa.py

The same draws: the peer draws from torch's global generator, ours from generators with the same seed. Ends
with exit code 1 if what should agree differs by more than 1e-5, or if a listed disagreement is none.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import torch
from ddrank_augmentations.dsa import DSA
from ddranking.aug import DSA as Peer
from torch import Tensor
from torch.nn import functional as F

from ddrank_core import Randomness

TOLERANCE = 1e-5
SEEDS = range(20)
SHAPES = ((64, 3, 32, 32), (16, 1, 28, 28), (16, 3, 20, 33))
PEERS_ORDER = ("scale", "rotate", "flip", "color", "crop", "cutout")
DEFAULTS = {
    "flip": 0.5,
    "scale": 1.2,
    "rotate": 15.0,
    "crop": 0.125,
    "cutout": 0.5,
    "brightness": 1.0,
    "saturation": 2.0,
    "contrast": 0.5,
}
OTHERS = {
    "flip": 0.2,
    "scale": 1.5,
    "rotate": 40.0,
    "crop": 0.25,
    "cutout": 0.3,
    "brightness": 0.4,
    "saturation": 1.2,
    "contrast": 0.8,
}

View = Callable[[Tensor], Tensor]


def pictures(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(123))


def ours(start: int, **parameters: Any) -> View:
    """Return our view, both of the trial's generators starting from the seed `start`."""

    def view(images: Tensor) -> Tensor:
        draws = Randomness(torch.Generator().manual_seed(start), torch.Generator().manual_seed(start))
        return DSA(**parameters)(images, draws).images

    return view


def peers(start: int, strategies: tuple[str, ...], values: dict[str, float], **settings: Any) -> View:
    """Return the peer's view, torch's global generator starting from the seed `start`."""

    def view(images: Tensor) -> Tensor:
        augmentation = Peer(dict(values), **settings)
        augmentation.transform_funcs = augmentation.create_transform_funcs(strategies)
        torch.manual_seed(start)
        viewed: Tensor = augmentation(images)
        return viewed

    return view


def pairs() -> Iterator[tuple[str, View, View]]:
    """Yield what should agree: a label, the peer's view and ours, for many seeds."""
    for seed in SEEDS:
        for label, values in (("defaults", DEFAULTS), ("other parameters", OTHERS)):
            for strategy in PEERS_ORDER:
                yield (
                    f"{strategy}, {label}",
                    peers(seed, (strategy,), values, aug_mode="M"),
                    ours(seed, strategies=(strategy,), mode="multiple", **values),
                )
        yield (
            "all, mode M, the peer's order",
            peers(seed, PEERS_ORDER, DEFAULTS, aug_mode="M"),
            ours(seed, strategies=PEERS_ORDER, mode="multiple"),
        )
        for mode, own in (("M", "multiple"), ("S", "single")):
            yield (
                f"siamese, a seed, mode {mode}",
                peers(seed, PEERS_ORDER, DEFAULTS, aug_mode=mode, seed=seed),
                ours(0, strategies=PEERS_ORDER, mode=own, seed=seed),
            )


def largest(theirs: View, own: View, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> float:
    """Return the largest difference of a pixel."""
    return max((theirs(x) - own(x)).abs().max().item() for x in map(pictures, shapes))


def rotated_as_torch_now_does(images: Tensor) -> Tensor:
    """Return the original's rotation, whose grid leaves align_corners out: today that is False."""
    torch.manual_seed(0)
    turn = (torch.rand(len(images)) - 0.5) * 2 * 15 / 180 * math.pi
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = turn.cos(), -turn.sin()
    theta[:, 1, 0], theta[:, 1, 1] = turn.sin(), turn.cos()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return F.grid_sample(images, F.affine_grid(theta, list(images.shape)))


def disagreements() -> Iterator[tuple[str, float, str]]:
    """Yield what differs, by how much, and who is right."""
    yield (
        "mode M: the peer scales first and cuts out last, whatever it is told; strategies cannot be chosen",
        largest(peers(0, PEERS_ORDER, DEFAULTS, aug_mode="M"), ours(0, mode="multiple")),
        "ours: the original (utils.py, DiffAugment) applies what its strategy names, in that order: "
        "color_crop_cutout_flip_scale_rotate; `strategies` in the peer's order gives the peer's views",
    )
    yield (
        "mode S: the peer's strategies stand in another order, so that the same draw is another strategy",
        largest(peers(0, PEERS_ORDER, DEFAULTS, aug_mode="S", seed=1), ours(0, mode="single", seed=1)),
        "both, as all are equally likely; the original's draws are ours",
    )
    yield (
        "mode S without a seed: the peer draws strategy and images from one stream, ours from two",
        max(
            largest(peers(seed, PEERS_ORDER, DEFAULTS), ours(seed, strategies=PEERS_ORDER, mode="single"))
            for seed in SEEDS
        ),
        "both, as the draws are as likely; ours never waits for the GPU to learn the strategy",
    )
    yield (
        "rotate in the original under today's torch, whose grids have align_corners=False, 20 x 33 pixels",
        largest(rotated_as_torch_now_does, ours(0, strategies=("rotate",), mode="multiple"), SHAPES[2:]),
        "ours and the peer's: the original asks for torch 1.2, which had only align_corners=True; "
        "square images turn alike",
    )


def main() -> int:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    print(f"ddranking {version('ddranking')}, torch {torch.__version__}; largest |difference| of a pixel")
    found: dict[str, float] = {}
    for label, theirs, own in pairs():
        found[label] = max(found.get(label, 0.0), largest(theirs, own))
    for label, difference in found.items():
        print(f"{difference:8.1e}  {label}{'' if difference <= TOLERANCE else '  DISAGREES'}")
    failed = sum(not difference <= TOLERANCE for difference in found.values())
    print(
        f"{len(found)} comparisons of {len(SEEDS)} seeds and {len(SHAPES)} shapes, largest difference "
        f"{max(found.values()):.1e} (at most {TOLERANCE:g} wanted)\n\nDisagreements"
    )
    for label, difference, verdict in disagreements():
        failed += difference <= TOLERANCE
        what = f"pixels differ by up to {difference:.2g}" if difference > TOLERANCE else "NONE FOUND"
        print(f"- {label}: {what}. Right: {verdict}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
