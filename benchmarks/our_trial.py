"""Train one student with this project's engine and report the times, as JSON on stdout.

Called by one_trial.py with the folder that holds case.json and images.npz.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from ddrank_core.engine.device import describe, deterministic, keep_freed_memory, resolve
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.plan import Training
from ddrank_core.engine.train import Setting, accuracy, build, predict, train
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer


def main(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    images = {name: torch.from_numpy(array) for name, array in np.load(folder / "images.npz").items()}
    device = resolve(case["device"])
    # As at the start of a run. The step is far too large for a run to put it on one thread.
    keep_freed_memory(device)
    with deterministic(device):
        report = time_trial(case, images, device)
    print(json.dumps(report))


def time_trial(case: dict[str, Any], images: dict[str, torch.Tensor], device: torch.device) -> dict[str, Any]:
    """Train and test as `ddrank run` does, and return the seconds of every epoch and test pass."""
    structurer = Structurer(default_registry(), Path())
    normal = normaliser(tuple(case["mean"]), tuple(case["std"]), device)
    setting = Setting(device=device, precision="fp32", normaliser=normal, teachers=lambda images: ())
    real = ImageSet(
        images=images["train_images"].to(device), labels=images["train_labels"].to(device), normaliser=normal
    )
    # Distilled images are stored normalised, in float32.
    distilled = ImageSet(images=real.batch(slice(None)), labels=real.labels)
    test = attrs.evolve(
        real, images=images["test_images"].to(device), labels=images["test_labels"].to(device)
    )

    student = structurer.chosen(
        "architecture", {"use": "convnet", "depth": case["depth"], "width": case["width"]}
    )
    network = build(student.component, case["classes"], tuple(real.images.shape[1:]), 0).to(device)
    clock = Clock(device)
    train(network, distilled, training_of(case, structurer), case["learning_rate"], 0, setting, clock.tick)
    test_clock = Clock(device)
    for number in range(1 + case["tests"]):
        predictions = predict(network, test, setting)
        assert predictions is not None
        reached = accuracy(predictions, test.labels)
        test_clock.tick(number)
    return {
        "epoch_seconds": clock.seconds[case["warm_up"] :],
        "test_seconds": test_clock.seconds[1:],
        "accuracy": reached,
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": describe(device),
    }


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
