"""Measure published accuracies again with `ddrank`, and print them beside what was published.

    DDRANK_TEST_DATA=FOLDER python benchmarks/reproduce/run.py

Run it with the Python that has this project installed. What is finished is kept: the same command goes on
where an earlier one stopped, and --table-only shows how far it got.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HERE = Path(__file__).parent
DDRANK = (sys.executable, "-m", "ddrank_core")
DC = "Zhao, Mopuri & Bilen 2021 (DC), table 1"


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A published accuracy, and the runs that measure it."""

    name: str
    config: str
    """A run config beside this file."""
    arm: str
    """The arm of its record that is the published thing."""
    dataset: str
    published: tuple[float, float]
    """Mean and standard deviation, in percent."""
    source: str
    file: str | None = None
    """A published set in the folder of test data; where there is none, sets are drawn at random."""
    ipc: int
    sets: int = 1
    """How many sets are drawn, each with a seed of its own."""


ANCHORS = (
    Anchor(
        name="DC, MNIST, IPC 1",
        config="dc-mnist-ipc1",
        arm="syn-any",
        dataset="mnist",
        published=(92.01, 0.31),
        source="the file: 20 networks",
        file="distilled/mnist-ipc1-dc/res_DC_MNIST_ConvNet_1ipc.pt",
        ipc=1,
    ),
    Anchor(
        name="random, MNIST, IPC 1 (arm rdm-any)",
        config="dc-mnist-ipc1",
        arm="rdm-any",
        dataset="mnist",
        published=(64.9, 3.5),
        source=DC,
        file="distilled/mnist-ipc1-dc/res_DC_MNIST_ConvNet_1ipc.pt",
        ipc=1,
    ),
    Anchor(
        name="random, MNIST, IPC 1",
        config="random-mnist",
        arm="syn-hard",
        dataset="mnist",
        published=(64.9, 3.5),
        source=DC,
        ipc=1,
        sets=5,
    ),
    Anchor(
        name="random, MNIST, IPC 10",
        config="random-mnist",
        arm="syn-hard",
        dataset="mnist",
        published=(95.1, 0.9),
        source=DC,
        ipc=10,
        sets=5,
    ),
    Anchor(
        name="CAMDM, CIFAR-10, IPC 10",
        config="camdm-cifar10-ipc10",
        arm="syn-hard",
        dataset="cifar10",
        published=(47.85, 0.43),
        source="the file: 5 networks",
        file="distilled/cifar10-ipc10-camdm/res_CAMDM_CIFAR10_ConvNet_10ipc.pt",
        ipc=10,
    ),
    *(
        Anchor(
            name=f"random, CIFAR-10, IPC {ipc}",
            config="random-cifar10",
            arm="syn-hard",
            dataset="cifar10",
            published=published,
            source=DC,
            ipc=ipc,
            sets=5,
        )
        for ipc, published in ((1, (14.4, 2.0)), (10, (26.0, 1.2)), (50, (43.4, 1.0)))
    ),
)


def main() -> None:
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    anchors = [anchor for anchor in ANCHORS if args.only is None or args.only in anchor.name]
    try:
        for anchor in () if args.table_only else anchors:
            measure(anchor, args)
    except subprocess.CalledProcessError as error:
        # ddrank has said on stderr what is wrong.
        sys.exit(error.returncode)
    finally:
        rows = [row for anchor in anchors if (row := result(anchor, args)) is not None]
        write(rows, args.work)
        print(table(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("DDRANK_TEST_DATA")
    parser.add_argument("--data", type=Path, default=data, help="the folder of test data [$DDRANK_TEST_DATA]")
    parser.add_argument(
        "--cifar10", type=Path, help="a folder with the whole of CIFAR-10, for random selection and all tests"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="[runs/reproduce]")
    parser.add_argument("--only", metavar="TEXT", help="only the anchors with this in their name")
    parser.add_argument("--repeats", type=int, help="networks per set [the configs']")
    parser.add_argument("--device", help="cpu or cuda [ddrank's choice]")
    parser.add_argument("--table-only", action="store_true", help="train nothing, show what is finished")
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or set DDRANK_TEST_DATA: the folder with real/ and distilled/")
    return args


def measure(anchor: Anchor, args: argparse.Namespace) -> None:
    """Make each of an anchor's sets, and run it."""
    changes = real_data(anchor, args)
    if changes is None:
        print(f"{anchor.name}: needs the whole of CIFAR-10, give --cifar10", file=sys.stderr)
        return
    for seed in range(anchor.sets):
        distilled = args.work / "sets" / f"{label(anchor, seed)}.safetensors"
        make_set(anchor, seed, distilled, changes, args)
        run_changes = {**changes, "distilled.path": distilled, "distilled.ipc": anchor.ipc, "seed": seed}
        if args.repeats:
            run_changes["protocol.repeats"] = args.repeats
        out = folder(anchor, seed, args)
        ddrank("run", HERE / f"{anchor.config}.yaml", *options(run_changes, args), "--out", out)


def make_set(
    anchor: Anchor, seed: int, path: Path, changes: Mapping[str, object], args: argparse.Namespace
) -> None:
    """Import the anchor's published set, or draw a random one, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    if anchor.file is not None:
        ddrank("import", args.data / anchor.file, path, "--dataset", anchor.dataset)
        return
    draw = {**changes, "output": path, "ipc": anchor.ipc, "seed": seed}
    ddrank("distill", HERE / f"draw-{anchor.dataset}.yaml", *options(draw, args))


def real_data(anchor: Anchor, args: argparse.Namespace) -> dict[str, object] | None:
    """Return what the config must be told about the real data; None where it is not there."""
    if anchor.dataset == "mnist":
        return {"dataset.root": (args.data / "real/mnist").resolve()}
    if args.cifar10 is not None:
        return {"dataset": f"{{use: cifar10, root: '{args.cifar10.resolve()}'}}"}
    if anchor.file is None:
        # A part of the training images is not what the published subsets were drawn from.
        return None
    return {"dataset.path": (args.data / "real/cifar10-subset/cifar10_lossless_subset.npz").resolve()}


def options(changes: Mapping[str, object], args: argparse.Namespace) -> list[str]:
    # Absolute, for a path in a config counts from the config's folder.
    texts = {k: v.resolve() if isinstance(v, Path) else v for k, v in changes.items()}
    sets = [part for field, value in texts.items() for part in ("--set", f"{field}={value}")]
    return [*sets, *(("--device", args.device) if args.device else ())]


def ddrank(*arguments: object) -> None:
    subprocess.run([*DDRANK, *map(str, arguments)], check=True)


def label(anchor: Anchor, seed: int) -> str:
    return anchor.config if anchor.file is not None else f"{anchor.config}-ipc{anchor.ipc}-{seed}"


def folder(anchor: Anchor, seed: int, args: argparse.Namespace) -> Path:
    """Return the run folder: one for each number of networks, since a folder holds one config's run."""
    networks = f"-{args.repeats}" if args.repeats else ""
    whole = "-whole" if anchor.dataset == "cifar10" and args.cifar10 is not None else ""
    work: Path = args.work
    return work / f"{label(anchor, seed)}{whole}{networks}"


def result(anchor: Anchor, args: argparse.Namespace) -> dict[str, Any] | None:
    """Return a row of the table, over all finished runs of an anchor; None where there is none."""
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for seed in range(anchor.sets)
        if (path := folder(anchor, seed, args) / "record.json").is_file()
    ]
    values = [100 * v for record in records for v in record["arms"][anchor.arm]["accuracy"]["values"]]
    if not values:
        return None
    spread = stdev(values) if len(values) > 1 else None
    difference = mean(values) - anchor.published[0]
    return {
        "anchor": anchor.name,
        "source": anchor.source,
        "published": anchor.published[0],
        "published_std": anchor.published[1],
        "ours": mean(values),
        "ours_std": spread,
        "networks": len(values),
        # In this arm every network draws images of its own.
        "sets": len(values) if anchor.arm == "rdm-any" else len(records),
        "test_images": records[0]["data"]["dataset"]["test_images"],
        "difference": difference,
        "within": abs(difference) <= anchor.published[1] + (spread or 0.0),
        "values": values,
        "device": records[0]["device"],
        "torch": records[0]["versions"]["torch"],
    }


def write(rows: Sequence[Mapping[str, Any]], work: Path) -> None:
    """Write results.json and results.csv, in percent."""
    about = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    text = json.dumps({"about": about, "results": list(rows)}, indent=1)
    (work / "results.json").write_text(text, encoding="utf-8")
    fields = [name for name in rows[0] if name != "values"] if rows else []
    with (work / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the results as a Markdown table, in percent."""
    head = ("anchor", "published", "ours (networks, sets)", "test images", "difference", "within both ±")
    cells = [head, ("---",) * len(head), *map(line, rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def line(row: Mapping[str, Any]) -> tuple[str, ...]:
    spread = "" if row["ours_std"] is None else f" ± {row['ours_std']:.2f}"
    return (
        row["anchor"],
        f"{row['published']:g} ± {row['published_std']:g}",
        f"{row['ours']:.2f}{spread} ({row['networks']}, {row['sets']})",
        f"{row['test_images']:,}",
        f"{row['difference']:+.2f}",
        "yes" if row["within"] else "no",
    )


if __name__ == "__main__":
    main()
