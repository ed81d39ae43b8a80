"""What the benchmarks share: the machine, made-up data, the work of an evaluation, and what they write."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

if TYPE_CHECKING:
    from ddrank_core.engine.prepared import Prepared

RESULTS = Path(__file__).parent / "results"
CONVNET = {"use": "convnet", "depth": 3, "width": 128}
"""The field's usual student."""
TINY = {"use": "convnet", "depth": 2, "width": 32}
CIFAR_TRAIN, CIFAR_TEST = 50_000, 10_000
"""CIFAR-10's training and test images."""
EPOCHS = 300
"""ddranking 0.2.0's default."""
Summary = dict[str, Any]
"""Median, smallest and largest of several rounds, and the rounds themselves."""


# -- figures -----------------------------------------------------------------------------------


def summary(values: Sequence[float]) -> Summary:
    """Return the median, the smallest and the largest of at least one value, and the values.

    >>> summary([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0, 'rounds': [3.0, 1.0, 2.0]}
    """
    return {"median": median(values), "min": min(values), "max": max(values), "rounds": list(values)}


def shown(found: Summary) -> str:
    """Return a summary as people read it; one round has no spread.

    >>> shown(summary([3.0, 1.0, 2.0])), shown(summary([1234.5]))
    ('2.00 (1.00 to 3.00)', '1,234')
    """
    if len(found["rounds"]) == 1:
        return number(found["median"])
    return f"{number(found['median'])} ({number(found['min'])} to {number(found['max'])})"


def number(value: float) -> str:
    """Return a number to three digits, or whole where it has more.

    >>> number(1234.5), number(56.78), number(2.0), number(0.0123456)
    ('1,234', '56.8', '2.00', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


# -- the machine and the files -----------------------------------------------------------------


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what a figure depends on beside the code: when, on what, and how busy it was."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "name": device_name(device),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory),
        "system": platform.platform(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }
    if device.startswith("cuda"):
        import torch

        found["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30)
    return found


def device(text: str) -> str:
    """Return the name of a device that is there; an argparse type, which refuses others in one line."""
    from ddrank_core.engine.device import resolve
    from ddrank_core.errors import DeviceError

    try:
        found = str(resolve(text))
    except DeviceError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return found if text == "auto" else text


def device_name(device: str) -> str:
    """Return the GPU's or the processor's name, with the number of its cores."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"{_cpu()}, {os.cpu_count()} cores"


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python, of this project and of the libraries that compute."""
    from ddrank_core.cli.versions import versions

    return versions()


def results_folder(device: str) -> Path:
    """Return the folder of this machine's results."""
    return RESULTS / re.sub("[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, the folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def heading(about: Mapping[str, Any], libraries: Mapping[str, str]) -> str:
    """Return one line about the machine and the versions."""
    load = about["load_before"][0]
    return (
        f"{about['time']}, {about['name']}, {about['memory_gib']} GiB, load {load} before; "
        f"Python {libraries['python']}, torch {libraries['torch']}, ddrank {libraries['ddrank']}"
    )


# -- made-up data ------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Case:
    """An evaluation of made-up images; what is in an image does not change how long it takes."""

    ipc: int = 10
    classes: int = 10
    side: int = 32
    student: Mapping[str, Any] = attrs.field(factory=lambda: CONVNET)
    augmentation: tuple[str, ...] = ()
    epochs: int = EPOCHS
    repeats: int = 5
    learning_rates: tuple[float, ...] | None = None
    """The protocol's own grid where it is None."""
    train_images: int = 2_000
    test_images: int = CIFAR_TEST
    scores: tuple[str, ...] = ("lrs",)
    precision: str = "fp32"

    def config(self) -> dict[str, Any]:
        """Return the config of its run, with the full-data accuracy given."""
        rates = {} if self.learning_rates is None else {"learning_rates": list(self.learning_rates)}
        recipe = {
            "labels": "hard",
            "loss": "ce",
            "augmentation": list(self.augmentation),
            "optimizer": {"use": "sgd", "momentum": 0.9, "weight_decay": 0.0005},
            "schedule": {"use": "step", "step_size": max(1, self.epochs // 2)},
            "epochs": self.epochs,
            "batch_size": 256,
        }
        return {
            "name": "benchmark",
            "dataset": {"use": "arrays", "path": "real.npz", "mean": [0.5] * 3, "std": [0.25] * 3},
            "distilled": {"path": "distilled.safetensors"},
            "student": dict(self.student),
            "recipe": recipe,
            "full_data": {"accuracy": 0.85, "source": "none: the images are made up"},
            "protocol": {"use": "strict", "repeats": self.repeats, **rates},
            "scores": list(self.scores),
            "precision": self.precision,
        }


class Patterns:
    """Draws uint8 images [N, 3, side, side]: a random pattern per class, under noise.

    A learnable task, so that an accuracy shows that a network has trained.
    """

    def __init__(self, classes: int, side: int, seed: int = 0) -> None:
        self._draws = np.random.default_rng(seed)
        self._patterns = self._draws.integers(0, 256, (classes, 3, side, side), dtype="uint8")

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Return an image for each label."""
        images = np.empty((len(labels), *self._patterns.shape[1:]), dtype="uint8")
        for start in range(0, len(labels), 5_000):
            part = slice(start, start + 5_000)
            noise = self._draws.integers(0, 256, images[part].shape, dtype="uint8")
            images[part] = (self._patterns[labels[part]].astype("uint16") + 2 * noise.astype("uint16")) // 3
        return images


def write_case(folder: Path, case: Case) -> Path:
    """Write the data, the distilled set and the config of a case; return the config's path."""
    import torch

    from ddrank_core.data import distilled
    from ddrank_core.types import DistilledSet, ImageSpace

    patterns = Patterns(case.classes, case.side)
    train, test = (np.arange(count) % case.classes for count in (case.train_images, case.test_images))
    real = {"x_train": patterns.of(train), "y_train": train, "x_test": patterns.of(test), "y_test": test}
    np.savez(folder / "real.npz", **real)
    labels = np.arange(case.classes).repeat(case.ipc)
    images = DistilledSet(
        images=torch.from_numpy(patterns.of(labels)).float() / 255,
        labels=torch.from_numpy(labels),
        space=ImageSpace(kind="unit"),
        num_classes=case.classes,
    )
    distilled.save(images, folder / "distilled.safetensors")
    path = folder / "case.yaml"
    path.write_text(json.dumps(case.config()))
    return path


def prepare_case(folder: Path, case: Case, device: str, overrides: Sequence[str] = ()) -> Prepared:
    """Write a case and return it ready to run."""
    from ddrank_core.config import load_run
    from ddrank_core.engine.device import resolve
    from ddrank_core.engine.prepare import prepare
    from ddrank_core.registry import default_registry

    folder.mkdir(parents=True, exist_ok=True)
    path, registry = write_case(folder, case), default_registry()
    # Without the path: it would stand in errors and notes.
    return prepare(load_run(path, registry, overrides), "benchmark", registry, resolve(device))


# -- the work of a whole evaluation ------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Group:
    """Networks that do the same: train so many epochs, and are asked about so many images."""

    what: str
    count: int
    epochs: int
    images_asked: int

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.count} networks, {self.epochs:,} epochs and {self.images_asked:,} images "
            "to classify each"
        )


@attrs.frozen
class Evaluation:
    """What a whole LRS evaluation comes to, counted from the code that does it."""

    groups: tuple[Group, ...]

    @property
    def epochs(self) -> int:
        """Return the epochs of all networks."""
        return sum(group.count * group.epochs for group in self.groups)

    @property
    def images_asked(self) -> int:
        """Return the images that all networks are asked about."""
        return sum(group.count * group.images_asked for group in self.groups)

    def seconds(self, epoch: float, image: float, at_once: int = 1, start: float = 0.0) -> float:
        """Return its time, extrapolated from an epoch's and a classified image's.

        Of `at_once` networks side by side the times are an `at_once`-th, and the last turn is as long as
        any, however few it has. `start` is spent once.
        """
        turns = [at_once * -(-group.count // at_once) for group in self.groups]
        work = [group.epochs * epoch + group.images_asked * image for group in self.groups]
        return start + sum(turn * each for turn, each in zip(turns, work, strict=True))

    def record(self) -> dict[str, Any]:
        """Return every count as plain values."""
        groups = [attrs.asdict(group) for group in self.groups]
        return {"groups": groups, "epochs": self.epochs, "images_asked": self.images_asked}


def our_evaluation(prepared: Prepared, train_images: int = CIFAR_TRAIN) -> Evaluation:
    """Return the work of a prepared run: `strict`, hard labels, the full-data accuracy given.

    `train_images` are the real data set's, of which the protocol sets its share aside to choose by.
    """
    plan, groups = prepared.plan, []
    aside = round(plan.validation_share * train_images)
    for arm in plan.trained:
        sharing = [other.name for other in plan.arms if other.same_as == arm.name]
        also = f", whose trials are also {', '.join(sharing)}'s" if sharing else ""
        trials = sum(len(rung.repeats) * rung.rates for rung in arm.rungs)
        what = f"{arm.name}{also}: {len(arm.candidates)} rates x {plan.repeats} repeats, validation"
        epochs = arm.training.epochs
        groups.append(Group(what=what, count=trials, epochs=epochs, images_asked=aside))
        test = f"{arm.name}: the chosen rate's trials, test"
        groups.append(Group(what=test, count=plan.repeats, epochs=0, images_asked=CIFAR_TEST))
    return Evaluation(tuple(groups))


PEER_RATES, PEER_REPEATS, PEER_TEST_INTERVAL = 5, 5, 10
"""`lr_list`, `num_eval` and `test_interval` in ddranking 0.2.0's `metrics/hard_label.py`."""


def peer_evaluation(epochs: int = EPOCHS) -> Evaluation:
    """Return the work of ddranking 0.2.0's `LabelRobustScoreHard.compute_metrics` at its defaults.

    Each of `num_eval` rounds searches `lr_list` twice: on the distilled images (its `syn_lr` is None by
    default) and on random ones. Each training tests after every 10th epoch. The full data is not trained on
    (its `eval_full_data` is False). With CIFAR-10 it stops then, for want of an accuracy in its table;
    here that is taken as given, as for ours.
    """
    trials, tests = PEER_RATES * PEER_REPEATS, epochs // PEER_TEST_INTERVAL
    return Evaluation(
        tuple(
            Group(
                what=f"{images}: {PEER_RATES} rates x {PEER_REPEATS} rounds, "
                f"test every {PEER_TEST_INTERVAL} epochs",
                count=trials,
                epochs=epochs,
                images_asked=tests * CIFAR_TEST,
            )
            for images in ("distilled images", "random images")
        )
    )
