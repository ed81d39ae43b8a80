"""Time one trial here and in ddranking 0.2.0's own loop, in one run, and print the ratio.

Run it with the Python that has this project installed:

    python benchmarks/one_trial.py --peer-python FOLDER/bin/python

`benchmarks/peer/setup.sh` makes that other Python. Both sides get the same images, written once to a
temporary folder, and run in turn, each in a process of its own: ours, peer, ours, peer, ...
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CLASSES, SHAPE = 10, (3, 32, 32)
PEER_TEST_INTERVAL = 20
"""Epochs between two test passes in ddranking 0.2.0's soft-label and augmentation scores, and in our
protocol of that name. Its hard-label score tests twice as often."""


def main() -> None:
    args = parse()
    print(about(args))
    for augmentation in args.augmentation:
        for ipc in args.ipc:
            ours, theirs = measure(augmentation, ipc, args)
            print(table(augmentation, ipc, ours, theirs, args), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="the Python that has ddranking 0.2.0")
    parser.add_argument("--augmentation", nargs="+", choices=["none", "dsa"], default=["none", "dsa"])
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50], help="images per class [1 10 50]")
    parser.add_argument(
        "--processes", type=int, help="students that ours trains at once [as many as there are cores]"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each side is run [3]")
    parser.add_argument("--epochs", type=int, default=20, help="epochs measured in a round [20]")
    parser.add_argument("--warm-up", type=int, default=2, help="epochs before them, not counted [2]")
    parser.add_argument("--tests", type=int, default=2, help="test passes in a round, after 1 of warm-up [2]")
    parser.add_argument("--test-images", type=int, default=10_000, help="[10000]")
    parser.add_argument("--trial-epochs", type=int, default=1000, help="epochs of the whole trial [1000]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    return parser.parse_args()


def measure(augmentation: str, ipc: int, args: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Return the reports of every round, ours and the peer's, run in turn on the same images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images.npz", ipc, args.test_images)
        (folder / "case.json").write_text(json.dumps(case(augmentation, args)))
        ours, theirs = [], []
        for round_ in range(args.rounds):
            ours.append(run(sys.executable, "our_trial.py", folder))
            theirs.append(run(args.peer_python, "peer_trial.py", folder))
            print(f"{augmentation}, IPC {ipc}: round {round_ + 1}/{args.rounds}", file=sys.stderr)
    if ours[0]["parameters"] != theirs[0]["parameters"]:
        raise SystemExit("the two networks differ in size: the comparison would mean nothing")
    return ours, theirs


def case(augmentation: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return what both sides are asked to do."""
    return {
        "augmentation": augmentation,
        "classes": CLASSES,
        "depth": 3,
        "width": 128,
        "batch_size": 256,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "step_size": args.trial_epochs // 2,
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2023, 0.1994, 0.2010],
        "warm_up": args.warm_up,
        "epochs": args.epochs,
        "tests": args.tests,
        "device": args.device,
        "processes": args.processes,
    }


def write_images(path: Path, ipc: int, test_images: int) -> None:
    """Write synthetic uint8 images [N, 3, 32, 32]: one random pattern per class, under noise.

    The work on an image does not depend on what is in it. The patterns make a learnable task, so
    that the accuracies of both sides show that both have trained.
    """
    draw = np.random.default_rng(0)
    patterns = draw.integers(0, 256, (CLASSES, *SHAPE))

    def sample(labels: np.ndarray) -> np.ndarray:
        noise = draw.integers(0, 256, (len(labels), *SHAPE))
        return ((patterns[labels] + 2 * noise) // 3).astype(np.uint8)

    train_labels = np.arange(CLASSES).repeat(ipc)
    test_labels = draw.integers(0, CLASSES, test_images)
    np.savez(
        path,
        train_images=sample(train_labels),
        train_labels=train_labels,
        test_images=sample(test_labels),
        test_labels=test_labels,
    )


def run(python: str, script: str, folder: Path) -> Any:
    """Run one side in a process of its own, and return its report."""
    command = [python, str(HERE / script), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"--peer-python: {error}; benchmarks/peer/setup.sh makes one") from error
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(augmentation: str, ipc: int, ours: list[Any], theirs: list[Any], args: argparse.Namespace) -> str:
    """Return one line per quantity: both medians over the rounds, their range, and the ratio."""
    looks = args.trial_epochs // PEER_TEST_INTERVAL
    lines = [
        f"\naugmentation {augmentation}, IPC {ipc}",
        f"{versions('ours', ours[0])}; {versions('peer', theirs[0])}",
        f"accuracy at the end of a round: ours {accuracies(ours)}, peer {accuracies(theirs)}",
        f"{'':34} {'ours':>26} {'peer':>26}   {'peer / ours':>18}",
    ]
    for title, our_tests, their_tests in (
        ("training epoch, ms", None, None),
        (f"test pass of {args.test_images} images, ms", None, None),
        (f"trial of {args.trial_epochs} epochs, strict, s", 1, looks),
        (f"trial, test every {PEER_TEST_INTERVAL} epochs, s", looks, looks),
        ("trial of a hard-label score, strict, s", 1, 2 * looks),
    ):
        if our_tests is None or their_tests is None:
            key = "epoch_seconds" if "epoch" in title else "test_seconds"
            a, b = ([1000 * median(report[key]) for report in side] for side in (ours, theirs))
        else:
            a = [trial_seconds(report, args.trial_epochs, our_tests) for report in ours]
            b = [trial_seconds(report, args.trial_epochs, their_tests) for report in theirs]
        ratios = [theirs_ / ours_ for ours_, theirs_ in zip(a, b, strict=True)]
        lines.append(f"{title:34} {spread(a):>26} {spread(b):>26}   {spread(ratios, 2):>18}")
    return "\n".join(lines)


def trial_seconds(report: Any, epochs: int, tests: int) -> float:
    """Return what a whole trial takes, extrapolated from one round."""
    return epochs * median(report["epoch_seconds"]) + tests * median(report["test_seconds"])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return 'median (min-max)'."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def accuracies(reports: list[Any]) -> str:
    return spread([100 * report["accuracy"] for report in reports]) + " %"


def versions(side: str, report: Any) -> str:
    at_once = f"{report['processes']} at once, " if "processes" in report else ""
    return f"{side} on torch {report['torch']}, {at_once}{report['threads']} threads each, {report['device']}"


def about(args: argparse.Namespace) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} CPU cores ({platform.machine()}), "
        f"{memory:.0f} GiB, load {load} at the start\n"
        f"ConvNet-3, width 128, {CLASSES} classes, {'x'.join(map(str, SHAPE))}, "
        f"batch 256, SGD\n{args.rounds} rounds of {args.epochs} epochs after {args.warm_up} of warm-up; "
        "each figure: the median over the rounds of the round's median (min-max over the rounds)"
    )


if __name__ == "__main__":
    main()
