"""Train students with this project's engine and report the times, as JSON on stdout.

Called by one_trial.py with the folder that holds case.json and images.npz. On a CPU it trains as a run
does: as many students at once as there are cores, in a process of one thread each, either as they are
(`eager`) or by torch.compile with channels last (`compiled`), which `ddrank run` chooses for long runs where
it is faster. The time of an epoch or a test pass is then a process's own divided by their number.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn

from ddrank_core.engine.bench.choose import COMPILED
from ddrank_core.engine.device import describe, deterministic, keep_freed_memory, resolve
from ddrank_core.engine.execution import AS_IT_IS, Resident
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.plan import Training
from ddrank_core.engine.train import Setting, accuracy, build, predict, train
from ddrank_core.engine.workers import count_workers
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer


def main(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    images = {name: torch.from_numpy(array) for name, array in np.load(folder / "images.npz").items()}
    device = resolve(case["device"])
    # As at the start of a run. The step is far too large for a run to put it on one thread.
    keep_freed_memory(device)
    count = case["processes"] or count_workers(None, device, 1)
    with deterministic(device):
        reports = at_once(count, case, images, device) if count > 1 else [time_trial(case, images, device)]
    print(json.dumps(together(reports)))


def at_once(
    count: int, case: dict[str, Any], images: dict[str, torch.Tensor], device: torch.device
) -> list[Any]:
    """Return the reports of `count` processes, forked as a run forks its workers, that start together."""
    context = multiprocessing.get_context("fork")
    start, reports = context.Barrier(count), context.SimpleQueue()

    def one() -> None:
        torch.set_num_threads(1)
        reports.put(time_trial(case, images, device, start.wait))

    processes = [context.Process(target=one) for _ in range(count)]
    for process in processes:
        process.start()
    found = [reports.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def together(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one report: an epoch of `n` students at once counts as an n-th of its time."""
    count = len(reports)
    times = {
        name: [sum(values) / count / count for values in zip(*(r[name] for r in reports), strict=True)]
        for name in ("epoch_seconds", "test_seconds")
    }
    start = max(report["start_seconds"] for report in reports)
    return {**reports[0], **times, "processes": count, "start_seconds": start}


def time_trial(
    case: dict[str, Any],
    images: dict[str, torch.Tensor],
    device: torch.device,
    together: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Train and test as `ddrank run` does, and return the seconds of every epoch and test pass."""
    structurer = Structurer(default_registry(), Path())
    normal = normaliser(tuple(case["mean"]), tuple(case["std"]), device)
    setting = Setting(
        device=device,
        precision="fp32",
        space=normal,
        teachers=lambda images: (),
        execution=COMPILED if case["execution"] == "compiled" else AS_IT_IS,
    )
    real = ImageSet(
        images=images["train_images"].to(device), labels=images["train_labels"].to(device), space=normal
    )
    # Distilled images are stored normalised, in float32.
    distilled = ImageSet(images=real.batch(slice(None)), labels=real.labels)
    test = attrs.evolve(
        real, images=images["test_images"].to(device), labels=images["test_labels"].to(device)
    )

    student = structurer.chosen(
        "architecture", {"use": "convnet", "depth": case["depth"], "width": case["width"]}
    )
    channels, height, width = real.images.shape[1:]
    fresh = build(student.component, case["classes"], (channels, height, width), 0).to(device)
    network = executed(fresh, setting)
    together()
    clock = Clock(device)
    train(network, distilled, training_of(case, structurer), case["learning_rate"], 0, setting, clock.tick)
    together()
    test_clock = Clock(device)
    for number in range(1 + case["tests"]):
        predictions = predict(network, test, setting)
        assert predictions is not None
        reached = accuracy(predictions, test.labels)
        test_clock.tick(number)
    return {
        "epoch_seconds": clock.seconds[case["warm_up"] :],
        "test_seconds": test_clock.seconds[1:],
        "start_seconds": extra(clock.seconds, case["warm_up"]) + extra(test_clock.seconds, 1),
        "accuracy": reached,
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": describe(device),
        "execution": case["execution"],
    }


def executed(network: nn.Module, setting: Setting) -> nn.Module:
    """Return the network as `Trainer.student` hands it out: compiled, if so, at its first step."""
    ready = setting.execution.ready(network)
    return Resident(ready).become(ready) if setting.execution.compiled else ready


def extra(seconds: list[float], warm_up: int) -> float:
    """Return what the first of several took longer than the others: compiling, above all."""
    counted = seconds[warm_up:]
    return max(0.0, sum(seconds[:warm_up]) - warm_up * median(counted)) if counted else 0.0


def training_of(case: dict[str, Any], structurer: Structurer) -> Training:
    """Return the training that the case describes, its components chosen as a config chooses them."""
    values = {
        "source": "distilled",
        "labels": "hard",
        "loss": "ce",
        "augmentation": [] if case["augmentation"] == "none" else [case["augmentation"]],
        "optimizer": {"use": "sgd", "momentum": case["momentum"], "weight_decay": case["weight_decay"]},
        "schedule": {"use": "step", "step_size": case["step_size"]},
        "epochs": case["warm_up"] + case["epochs"],
        "batch_size": case["batch_size"],
    }
    training: Training = structurer.structure(values, Training, "case.json")
    return training


class Clock:
    """Collects the seconds between its ticks; the device has done its work at every tick."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self.last = time.perf_counter()

    def tick(self, _number: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


if __name__ == "__main__":
    main(Path(sys.argv[1]))
