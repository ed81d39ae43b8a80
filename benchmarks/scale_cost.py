"""Reckon what one leaderboard costs on paper: trials, FLOPs, GPU hours and bytes, for docs/scale.md.

    python benchmarks/scale_cost.py

Nothing is timed. The FLOPs of an image are counted by running the network, as `ddrank bench` counts them; the
bytes of predictions are those of draws that are as hard to compress as can be. The rest are the assumptions
below: `GPU_FLOPS` and `UTILISATION` say how fast a GPU goes through it, and are no measurement.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import common
import numpy as np

from ddrank_core.engine.bench.arithmetic import forward_flops, training_flops
from ddrank_core.registry import default_registry
from ddrank_core.store.trial import pack
from ddrank_core.structure import Structurer

METHODS, IPCS = 50, (1, 10, 50)
RATES, REPEATS = 5, 5
"""`strict` with a grid of five rates; with published rates there is one."""
ARMS = 5
"""Trained for all five scores: syn-hard, syn-any, rdm-any, syn-naug, rdm-naug; the other two share trials."""
RANDOM_ARMS = 2
"""Of these, the arms that methods with equal recipes share."""
GPU_FLOPS, UTILISATION = 67e12, 0.3
"""NVIDIA's data sheet of the H100 SXM, fp32 without tensor cores; and the share of it that is assumed."""


@attrs.frozen(kw_only=True)
class Bench:
    """A data set of the leaderboard, with the student and the epochs that methods use there."""

    name: str
    classes: int
    side: int
    train: int
    test: int
    student: Mapping[str, Any]
    epochs: int
    full_epochs: int = 0
    """Of the arm on all real images; 0 where its accuracy is given."""
    validation: float = 0.1


CONVNET_3, CONVNET_4 = ({"use": "convnet", "depth": depth, "width": 128} for depth in (3, 4))
BENCHES = (
    Bench(
        name="CIFAR-10",
        classes=10,
        side=32,
        train=50_000,
        test=10_000,
        student=CONVNET_3,
        epochs=1000,
        full_epochs=40,
    ),
    Bench(
        name="CIFAR-100",
        classes=100,
        side=32,
        train=50_000,
        test=10_000,
        student=CONVNET_3,
        epochs=1000,
        full_epochs=40,
    ),
    Bench(
        name="TinyImageNet",
        classes=200,
        side=64,
        train=100_000,
        test=10_000,
        student=CONVNET_4,
        epochs=1000,
        full_epochs=40,
    ),
    Bench(
        name="ImageNet-1K",
        classes=1000,
        side=224,
        train=1_281_167,
        test=50_000,
        student={"use": "torchvision/resnet18"},
        epochs=300,
    ),
)


def main() -> None:
    rows, whole = [], []
    for bench in BENCHES:
        train, test = flops_of(bench)
        # Every trial is validated once, and tested once.
        looks = (bench.validation * bench.train + bench.test) * test
        for ipc in IPCS:
            one = ipc * bench.classes * bench.epochs * train + looks
            trials = METHODS * ARMS * RATES * REPEATS
            shared = trials - (METHODS - 1) * RANDOM_ARMS * RATES * REPEATS
            whole.append((trials, one * trials, one * shared, trials * stored(bench)))
            rows.append(
                (
                    f"{bench.name}, IPC {ipc}",
                    f"{train / 1e9:.2f}",
                    f"{one / 1e12:,.1f}",
                    common.number(hours(one) * 3600),
                    common.number(hours(one * trials)),
                    common.number(hours(one * shared)),
                    f"{trials * stored(bench) / 1e6:,.0f}",
                )
            )
        if bench.full_epochs:
            full = bench.full_epochs * bench.train * train + bench.test * test
            search = (1 - bench.validation) * bench.full_epochs * bench.train * train + looks
            cost = full * REPEATS + search * RATES * REPEATS
            rows.append((f"{bench.name}, full-hard, for all", "", "", "", common.number(hours(cost)), "", ""))
            whole.append((RATES * REPEATS + REPEATS, cost, cost, 0))
    trials, flops, shared, size = (sum(column) for column in zip(*whole, strict=True))
    rows.append(
        ("all", "", f"{flops / trials / 1e12:,.0f} on average", common.number(hours(flops) * 3600 / trials),
         common.number(hours(flops)), common.number(hours(shared)), f"{size / 1e6:,.0f}")
    )  # fmt: skip
    print(common.markdown([HEAD, *rows]))
    print(f"\n{trials:,} trials, {flops:.2g} FLOPs; at {GPU_FLOPS * UTILISATION / 1e12:.0f} TFLOP/s")


HEAD = (
    "",
    "GFLOP per image",
    "TFLOP per trial",
    "seconds per trial",
    "GPU hours, nothing shared",
    "GPU hours, one recipe",
    "store, MB",
)


def flops_of(bench: Bench) -> tuple[float, float]:
    """Return the FLOPs of an image, trained on and asked about."""
    structurer, shape = Structurer(default_registry(), Path()), (3, bench.side, bench.side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = structurer.chosen("architecture", dict(bench.student)).component.build(bench.classes, shape)
        return training_flops(network, shape), forward_flops(network, shape)


OTHER_BYTES = 1_580
"""Of a row beside its predictions: about what benchmarks/scale.py finds."""


def stored(bench: Bench) -> int:
    """Return the bytes of a stored trial: predictions of equally frequent classes, and what is kept of it."""
    drawn = np.random.default_rng(0).integers(0, bench.classes, bench.test).astype("<u2").tobytes()
    return len(pack(drawn) or b"") + OTHER_BYTES


def hours(flops: float) -> float:
    """Return the hours of one GPU."""
    return flops / (GPU_FLOPS * UTILISATION) / 3600


if __name__ == "__main__":
    main()
