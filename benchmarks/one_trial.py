"""Time training and testing here and in ddranking 0.2.0's own loop, in one run, and print the ratios.

Run it with the Python that has this project installed:

    python benchmarks/one_trial.py --peer-python FOLDER/bin/python

`benchmarks/peer/setup.sh` makes that other Python. Both sides get the same images, written once to a
temporary folder, and run in turn, each in a process of its own: ours, peer, ours, peer, ... A trial and a
whole evaluation are extrapolated from the measured epochs and test passes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import common
import numpy as np

HERE = Path(__file__).parent
CLASSES, SIDE = 10, 32
USUAL_IPC = 10
"""The IPC of the whole evaluation."""
Report = dict[str, Any]
"""What our_trial.py or peer_trial.py printed."""


@attrs.frozen(kw_only=True)
class Measured:
    """The reports of every round of a case, ours and the peer's, run in turn on the same images."""

    augmentation: str
    ipc: int
    ours: Sequence[Report]
    peer: Sequence[Report]

    def both(self, quantity: Callable[[Report], float]) -> tuple[list[float], list[float]]:
        """Return a quantity of every round, ours and the peer's."""
        return [quantity(report) for report in self.ours], [quantity(report) for report in self.peer]


def main() -> None:
    args = parse()
    about = common.machine(args.device)
    cases = [
        measure(augmentation, ipc, args) for augmentation in args.augmentation for ipc in sorted(args.ipc)
    ]
    content = content_of(about, cases, args)
    print(text_of(content))
    if args.output:
        common.write_json(args.output, content)
        args.output.with_suffix(".md").write_text(text_of(content) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="the Python that has ddranking 0.2.0")
    parser.add_argument("--augmentation", nargs="+", choices=["none", "dsa"], default=["none"])
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50], help="images per class [1 10 50]")
    parser.add_argument(
        "--processes", type=int, help="students that ours trains at once [as many as there are cores]"
    )
    parser.add_argument(
        "--execution",
        choices=["eager", "compiled"],
        help="how ours runs students [compiled on a CPU, as in a long run; eager on a GPU]",
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each side is run [3]")
    parser.add_argument("--epochs", type=int, default=20, help="epochs measured in a round [20]")
    parser.add_argument("--warm-up", type=int, default=2, help="epochs before them, not counted [2]")
    parser.add_argument("--tests", type=int, default=2, help="test passes in a round, after 1 of warm-up [2]")
    parser.add_argument("--test-images", type=int, default=common.CIFAR_TEST, help="[10000]")
    parser.add_argument(
        "--trial-epochs", type=int, default=common.EPOCHS, help="epochs of a trial [300, the peer's default]"
    )
    parser.add_argument("--device", type=common.device, default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--output", type=Path, help="write the figures to this .json, and a .md beside it")
    args = parser.parse_args()
    args.execution = args.execution or ("compiled" if args.device == "cpu" else "eager")
    return args


# -- measuring ---------------------------------------------------------------------------------


def usual_ipc(args: argparse.Namespace) -> int:
    """Return the IPC at which test passes are timed and the evaluation is extrapolated."""
    return USUAL_IPC if USUAL_IPC in args.ipc else min(args.ipc)


def measure(augmentation: str, ipc: int, args: argparse.Namespace) -> Measured:
    """Run both sides in turn on the same images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images.npz", ipc, args.test_images)
        (folder / "case.json").write_text(json.dumps(settings_of(augmentation, ipc, args)))
        ours, theirs = [], []
        for round_ in range(args.rounds):
            ours.append(run(sys.executable, "our_trial.py", folder))
            theirs.append(run(args.peer_python, "peer_trial.py", folder))
            print(f"{augmentation}, IPC {ipc}: round {round_ + 1}/{args.rounds}", file=sys.stderr)
    if ours[0]["parameters"] != theirs[0]["parameters"]:
        raise SystemExit("the two networks differ in size: the comparison would mean nothing")
    return Measured(augmentation=augmentation, ipc=ipc, ours=ours, peer=theirs)


def settings_of(augmentation: str, ipc: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return what both sides are asked to do."""
    # A test pass depends on neither; elsewhere there is one, which shows what the training came to.
    timed = ipc == usual_ipc(args) and augmentation == args.augmentation[0]
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
        "tests": args.tests if timed else 0,
        "device": args.device,
        "processes": args.processes,
        "execution": args.execution,
    }


def write_images(path: Path, ipc: int, test_images: int) -> None:
    """Write made-up uint8 images [N, 3, 32, 32] that can be learned: accuracies show that both trained."""
    patterns = common.Patterns(CLASSES, SIDE)
    train_labels = np.arange(CLASSES).repeat(ipc)
    test_labels = np.arange(test_images) % CLASSES
    np.savez(
        path,
        train_images=patterns.of(train_labels),
        train_labels=train_labels,
        test_images=patterns.of(test_labels),
        test_labels=test_labels,
    )


def run(python: str, script: str, folder: Path) -> Report:
    """Run one side in a process of its own, and return its report."""
    command = [python, str(HERE / script), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"--peer-python: {error}; benchmarks/peer/setup.sh makes one") from error
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-3000:]}")
    report: Report = json.loads(done.stdout.splitlines()[-1])
    return report


# -- what it comes to --------------------------------------------------------------------------


def content_of(about: dict[str, Any], cases: Sequence[Measured], args: argparse.Namespace) -> dict[str, Any]:
    """Return everything that was measured and extrapolated, as plain values."""
    ours, peer = our_counts(args), common.peer_evaluation(args.trial_epochs)
    hidden = ("peer_python", "output")
    return {
        "machine": about,
        "versions": common.versions(),
        "sides": {"ours": side(cases[0].ours[0]), "peer": side(cases[0].peer[0])},
        "settings": {name: value for name, value in vars(args).items() if name not in hidden},
        "rows": rows_of(cases, ours, peer, args),
        "evaluation": {"ours": ours.record(), "peer": peer.record()},
        "accuracies": [
            {"augmentation": case.augmentation, "ipc": case.ipc, "ours": ours_, "peer": peer_}
            for case in cases
            for ours_, peer_ in [case.both(lambda report: report["accuracy"])]
        ],
        "reports": [attrs.asdict(case) for case in cases],
    }


def side(report: Report) -> dict[str, Any]:
    """Return how a side ran."""
    names = ("torch", "device", "threads", "processes", "execution", "workers")
    return {name: report[name] for name in names if name in report}


def our_counts(args: argparse.Namespace) -> common.Evaluation:
    """Return the work of the whole evaluation, from the plan that `ddrank run` makes of it."""
    case = common.Case(ipc=usual_ipc(args), epochs=args.trial_epochs, test_images=CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        return common.our_evaluation(common.prepare_case(Path(folder), case, "cpu"))


def rows_of(
    cases: Sequence[Measured], ours: common.Evaluation, peer: common.Evaluation, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row per quantity: both sides' rounds and their ratio."""
    usual = next(case for case in cases if case.ours[0]["test_seconds"])
    tests = usual.both(lambda report: median(report["test_seconds"]))
    images = [[seconds / args.test_images for seconds in rounds] for rounds in tests]
    epochs, looks = args.trial_epochs, peer.groups[0].images_asked
    interval = common.PEER_TEST_INTERVAL
    rows = [row("training epoch", "ms", case, *milliseconds(case)) for case in cases]
    rows.append(row(f"test pass of {args.test_images:,} images", "s", None, *tests))
    for title, asked in (
        (f"trial of {epochs} epochs, `strict`", ours_asked(ours)),
        (f"trial of {epochs} epochs, both tested every {interval}", looks),
    ):
        rows += [row(title, "s", case, *trials(case, images, (asked, looks), epochs)) for case in cases]
    whole = (
        extrapolated(ours, usual.ours, images[0]),
        extrapolated(peer, usual.peer, images[1]),
    )
    return [*rows, row("whole hard-label LRS evaluation", "s", usual, *whole)]


def extrapolated(
    evaluation: common.Evaluation, reports: Sequence[Report], images: Sequence[float]
) -> list[float]:
    """Return what the whole evaluation takes by every round; `images` are the seconds of a classified one."""
    return [
        evaluation.seconds(
            epoch=median(report["epoch_seconds"]),
            image=image,
            at_once=report.get("processes", 1),
            start=report.get("start_seconds", 0.0),
        )
        for report, image in zip(reports, images, strict=True)
    ]


def ours_asked(evaluation: common.Evaluation) -> int:
    """Return the images that a chosen trial of ours is asked about: validation and test."""
    first, test = evaluation.groups[:2]
    return first.images_asked + test.images_asked


def milliseconds(case: Measured) -> tuple[list[float], list[float]]:
    return case.both(lambda report: 1000 * median(report["epoch_seconds"]))


def trials(
    case: Measured, images: Sequence[Sequence[float]], asked: tuple[int, int], epochs: int
) -> tuple[list[float], list[float]]:
    """Return what a whole trial takes in every round, extrapolated; starting is not counted."""
    trained = case.both(lambda report: epochs * median(report["epoch_seconds"]))
    ours, theirs = (
        [seconds + count * image for seconds, image in zip(rounds, per_image, strict=True)]
        for rounds, per_image, count in zip(trained, images, asked, strict=True)
    )
    return ours, theirs


def row(
    what: str, unit: str, case: Measured | None, ours: Sequence[float], peer: Sequence[float]
) -> dict[str, Any]:
    ratios = [theirs / mine for mine, theirs in zip(ours, peer, strict=True)]
    return {
        "what": what,
        "unit": unit,
        "augmentation": None if case is None else case.augmentation,
        "ipc": None if case is None else case.ipc,
        "ours": common.summary(ours),
        "peer": common.summary(peer),
        "ratio": common.summary(ratios),
    }


# -- what people read --------------------------------------------------------------------------


def text_of(content: dict[str, Any]) -> str:
    """Return the table in Markdown, and how each figure came about."""
    settings, sides = content["settings"], content["sides"]
    head = ("", "augmentation", "IPC", "ours", "ddranking 0.2.0", "ratio")
    rows = [
        (
            f"{row_['what']}, {row_['unit']}",
            row_["augmentation"] or "",
            "" if row_["ipc"] is None else str(row_["ipc"]),
            *(common.shown(row_[side_]) for side_ in ("ours", "peer", "ratio")),
        )
        for row_ in content["rows"]
    ]
    return "\n\n".join(
        [
            common.heading(content["machine"], content["versions"]),
            f"Ours: {ran(sides['ours'])}. ddranking 0.2.0: {ran(sides['peer'])}.",
            f"ConvNet-3, width 128, {CLASSES} classes, 3x{SIDE}x{SIDE}, batch 256, SGD, fp32. "
            f"Rounds: {settings['rounds']}. Epochs of each: {settings['epochs']}, after "
            f"{settings['warm_up']} of warm-up. Test passes of each: {settings['tests']}, after 1. A figure "
            "is the median over the rounds of a round's median (smallest to largest). Trials and "
            "evaluations are extrapolated from the measured epochs and test passes.",
            common.markdown([head, *rows]),
            counts_text(content),
            accuracies_text(content),
        ]
    )


def ran(side_: dict[str, Any]) -> str:
    """Return how a side ran, in words."""
    words = [f"torch {side_['torch']}", f"threads {side_['threads']}"]
    named = {"processes": "students at once", "execution": "execution", "workers": "loader workers"}
    words += [f"{name} {side_[key]}" for key, name in named.items() if key in side_]
    return ", ".join([side_["device"], *words])


def counts_text(content: dict[str, Any]) -> str:
    """Return what the whole evaluation was counted to be, on both sides."""
    lines = ["The whole evaluation:", ""]
    for name, title in (("ours", "ours (`strict`)"), ("peer", "ddranking 0.2.0 (its defaults)")):
        counts = content["evaluation"][name]
        lines.append(
            f"- {title}: {counts['epochs']:,} epochs, {counts['images_asked']:,} images to classify."
        )
        lines += [f"  - {common.Group(**group)}" for group in counts["groups"]]
    start = max(report["start_seconds"] for report in content["reports"][0]["ours"])
    lines.append(f"- Of ours, what the first epochs and the first pass took longer is added ({start:.1f} s).")
    return "\n".join(lines)


def accuracies_text(content: dict[str, Any]) -> str:
    """Return what the short trainings came to, to show that both sides train."""
    parts = [
        f"{found['augmentation']}, IPC {found['ipc']}: ours {100 * median(found['ours']):.1f} %, "
        f"peer {100 * median(found['peer']):.1f} %"
        for found in content["accuracies"]
    ]
    return "Accuracies on the made-up test images at the end of a round: " + "; ".join(parts) + "."


if __name__ == "__main__":
    main()
