"""Measure how time grows with IPC, classes, image size, cohort size and repeats on this device.

    python benchmarks/growth.py
    python benchmarks/growth.py --device cuda

Writes growth.json, growth.csv and growth.svg into results/DEVICE. What is not varied is that of CIFAR-10 at
IPC 10 with a ConvNet-3 of width 128; cohorts on a CPU, which pay for tiny networks only, and whole runs train
a ConvNet-2 of width 32 on 8x8 images. The points are measured in turn, and that several times.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import common
import pictures

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.choose import COMPILED
from ddrank_core.engine.bench.pace import processes, ready_trainer, time_arm
from ddrank_core.engine.device import deterministic, keep_freed_memory, resolve, threads_for
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.run import execute
from ddrank_core.store import TrialStore

AXES = ("ipc", "classes", "side", "cohort", "repeats")
MANY = 10
"""Repeats of the measured plans: 50 trials, as many as a GPU may train at once."""


@attrs.frozen(kw_only=True)
class Point:
    """One value of what is varied."""

    axis: str
    value: int
    case: common.Case
    asked: Asked = attrs.field(factory=Asked)


def main() -> None:
    args = parse()
    about = common.machine(args.device)
    points = [point for axis in args.axes for point in points_of(axis, args)]
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(points, Path(folder), args)
    content: dict[str, Any] = {
        "what": "growth",
        "machine": about,
        "versions": common.versions(),
        "settings": {"rounds": args.rounds, "budget": args.budget, "execution": args.execution},
        "rows": rows,
    }
    folder_out = args.output or common.results_folder(args.device)
    common.write_json(folder_out / "growth.json", content)
    write_csv(folder_out / "growth.csv", rows)
    pictures.growth(content, folder_out / "growth.svg")
    print(common.heading(about, content["versions"]))
    print(common.markdown([("", "value", "", "at once"), *map(row_text, rows)]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="what to vary [all]")
    parser.add_argument("--rounds", type=int, default=3, help="times that each point is measured [3]")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of a measurement of epochs [3]")
    parser.add_argument("--run-epochs", type=int, default=50, help="epochs of the whole tiny runs [50]")
    parser.add_argument(
        "--execution",
        choices=["eager", "compiled"],
        default="eager",
        help="how students run that are trained alone; to compile takes about a minute a point [eager]",
    )
    parser.add_argument("--device", type=common.device, default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--output", type=Path, help="folder for the results [results/DEVICE]")
    return parser.parse_args()


# -- what is varied ----------------------------------------------------------------------------


def points_of(axis: str, args: argparse.Namespace) -> list[Point]:
    """Return the points of an axis."""
    gpu = args.device != "cpu"
    tiny: dict[str, Any] = {"student": common.TINY, "side": 8}
    match axis:
        case "ipc":
            return [Point(axis=axis, value=value, case=epochs_case(ipc=value)) for value in (1, 10, 50)]
        case "classes":
            return [Point(axis=axis, value=value, case=epochs_case(classes=value)) for value in (10, 100)]
        case "side":
            return [Point(axis=axis, value=value, case=epochs_case(side=value)) for value in (32, 64)]
        case "cohort":
            values = (1, 2, 5, 10, 20, 50) if gpu else (1, 2, 5, 10)
            case_ = epochs_case() if gpu else epochs_case(**tiny)
            asked = [Asked(workers=1, cohort=value) for value in values]
            return [
                Point(axis=axis, value=v, case=case_, asked=a) for v, a in zip(values, asked, strict=True)
            ]
    whole = common.Case(epochs=args.run_epochs, test_images=1_000, **tiny)
    return [
        Point(axis=axis, value=value, case=attrs.evolve(whole, repeats=value), asked=Asked(compile="off"))
        for value in range(1, 6)
    ]


def epochs_case(**changes: Any) -> common.Case:
    """Return a case of which only the epochs of one arm are timed."""
    case = common.Case(scores=("hlr",), repeats=MANY, test_images=100, epochs=1_000)
    return attrs.evolve(case, **changes)


# -- measuring ---------------------------------------------------------------------------------


def measured(points: Sequence[Point], folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all points in turn, `rounds` times; return a row for each."""
    prepared = [
        common.prepare_case(folder / f"{point.axis}-{point.value}", point.case, args.device)
        for point in points
    ]
    keep_freed_memory(resolve(args.device))
    for point, run in zip(points, prepared, strict=True):
        if point.axis == "repeats":
            whole_run(run, point.asked, folder / "warm-up")
            break
    values: list[list[float]] = [[] for _ in points]
    at_once = [1] * len(points)
    for round_ in range(args.rounds):
        for place, (point, run) in enumerate(zip(points, prepared, strict=True)):
            found, at_once[place] = measure(point, run, folder / f"store-{place}-{round_}", args)
            values[place].append(found)
            print(f"round {round_ + 1}/{args.rounds}: {point.axis} {point.value}", file=sys.stderr)
    return [row(point, found, count) for point, found, count in zip(points, values, at_once, strict=True)]


def measure(point: Point, run: Prepared, store: Path, args: argparse.Namespace) -> tuple[float, int]:
    """Return what one point takes, and how many trials are trained at once."""
    if point.axis == "repeats":
        return whole_run(run, point.asked, store), processes(point.asked, run)
    trainer = ready_trainer(run)
    if args.execution == "compiled":
        trainer.use_execution(COMPILED)
    with conditions(run, point.asked):
        pace = time_arm(trainer, run.plan.trained[0], point.asked, args.budget)
    return 1000 * pace.trial_epoch_seconds.median, pace.at_once


@contextmanager
def conditions(run: Prepared, asked: Asked) -> Iterator[None]:
    """Set what a run sets: threads, and algorithms that repeat themselves."""
    alone = processes(asked, run) == 1
    with deterministic(run.device), threads_for(run.device, run.step_activations, alone=alone):
        yield


def whole_run(run: Prepared, asked: Asked, store: Path) -> float:
    """Return the seconds of a run from its start to its scores, with an empty store."""
    workers = processes(asked, run)
    clock = time.perf_counter()
    with closing(TrialStore(store)) as kept:
        execute(run, kept, lambda hook, event: None, workers, compile=asked.compile)
    return time.perf_counter() - clock


# -- writing -----------------------------------------------------------------------------------


def row(point: Point, values: Sequence[float], at_once: int) -> dict[str, Any]:
    whole = point.axis == "repeats"
    return {
        "axis": point.axis,
        "value": point.value,
        "what": "whole run" if whole else "trial-epoch",
        "unit": "s" if whole else "ms",
        "at_once": at_once,
        **common.summary(values),
    }


def row_text(found: dict[str, Any]) -> tuple[str, ...]:
    what = f"{common.shown(found)} {found['unit']}"
    return f"{found['what']} by {found['axis']}", str(found["value"]), what, str(found["at_once"])


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a line for each point."""
    names = ("axis", "value", "what", "unit", "at_once", "median", "min", "max")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, (*names, "rounds"), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**found, "rounds": len(found["rounds"])} for found in rows)


if __name__ == "__main__":
    main()
