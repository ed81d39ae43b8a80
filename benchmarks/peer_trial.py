"""Train one student with ddranking 0.2.0's own functions and report the times, as JSON on stdout.

Called by one_trial.py, under the Python that has ddranking 0.2.0, with the folder that holds
case.json and images.npz. What is timed is the package's own `train_one_epoch` and `validate`, with its
network, data set class, optimiser, scheduler and DSA, and data loaders made the way it makes them: 4 worker
processes, RandomSampler. The loop around them follows `LabelRobustScoreHard._compute_hard_label_metrics`.

Where the package stops with an error, or needs what is not here, and what is done instead:
- Its score classes download the data set and read a teacher's file while they are made, so their method is
  not called; its body, which is the two calls timed here, is.
- Its test set is torchvision's CIFAR10. Here that class gets the images of the benchmark instead of reading a
  folder; what it does for each image (PIL, ToTensor, Normalize) is untouched.
- `get_lr_scheduler('step', ...)` fails an assertion without `step_size`, which is None by default. It is
  given here.
- Its default augmentation of hard labels, CutMix with `{'cutmix_p': 1.0}`, stops with a KeyError ('beta').
  Here there is none unless DSA is asked for, which is in its favour.
- Images on the GPU cannot go through worker processes ("Cannot re-initialize CUDA in forked subprocess").
  They stay on the CPU, and its `train_one_epoch` moves every batch.
- Its DSA gets the strengths of the DSA paper as `aug_params`, since it has no defaults.

Nothing is made slower. What it prints goes to the null device. Its progress bar is left out, which is
in its favour.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ddranking.aug import DSA
from ddranking.utils import (
    TensorDataset,
    build_model,
    get_lr_scheduler,
    get_optimizer,
    train_one_epoch,
    validate,
)
from torch.utils.data import DataLoader, RandomSampler
from torchvision import datasets, transforms

WORKERS = 4
"""Its default `num_workers`."""

DSA_STRENGTHS = {
    "flip": 0.5,
    "scale": 1.2,
    "rotate": 15.0,
    "crop": 0.125,
    "cutout": 0.5,
    "brightness": 1.0,
    "saturation": 2.0,
    "contrast": 0.5,
}
"""As in the paper, and as this project's `dsa` has them."""


def main(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    images = dict(np.load(folder / "images.npz"))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        report = time_trial(case, images)
    print(json.dumps(report))


def time_trial(case: dict[str, Any], images: dict[str, np.ndarray]) -> dict[str, Any]:
    """Train and test as the package does, and return the seconds of every epoch and test pass."""
    device = case["device"]
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(case["mean"], case["std"])])
    unit = torch.from_numpy(images["train_images"]).float() / 255
    train_images = transforms.functional.normalize(unit, case["mean"], case["std"])
    train_set = TensorDataset(train_images, torch.from_numpy(images["train_labels"]))
    test_set = Images(images["test_images"], images["test_labels"], transform)

    # It reads the depth out of the name; the width of its ConvNet is always 128.
    model = build_model(
        f"ConvNet-{case['depth']}", num_classes=case["classes"], im_size=(32, 32), device=device
    )
    train_loader, test_loader = loader(train_set, case), loader(test_set, case)
    loss_fn = torch.nn.CrossEntropyLoss()
    optimizer = get_optimizer("sgd", model, case["learning_rate"], case["weight_decay"], case["momentum"])
    lr_scheduler = get_lr_scheduler("step", optimizer, case["epochs"], case["step_size"])
    aug_func = DSA(dict(DSA_STRENGTHS)) if case["augmentation"] == "dsa" else None

    epoch_seconds, test_seconds = [], []
    for epoch in range(case["warm_up"] + case["epochs"]):
        start = time.perf_counter()
        train_one_epoch(
            epoch=epoch,
            stu_model=model,
            loader=train_loader,
            loss_fn=loss_fn,
            optimizer=optimizer,
            aug_func=aug_func,
            lr_scheduler=lr_scheduler,
            class_map=None,
            device=device,
        )
        # No synchronisation is needed: it reads the loss back after every step.
        epoch_seconds.append(time.perf_counter() - start)
    class_map = {label: label for label in range(case["classes"])}
    for _ in range(1 + case["tests"]):
        start = time.perf_counter()
        reached = validate(model=model, loader=test_loader, class_map=class_map, device=device)
        test_seconds.append(time.perf_counter() - start)
    return {
        "epoch_seconds": epoch_seconds[case["warm_up"] :],
        "test_seconds": test_seconds[1:],
        "accuracy": reached / 100,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "workers": WORKERS,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
    }


def loader(data: Any, case: dict[str, Any]) -> DataLoader:
    """Return a data loader made as the package makes its own, for training and for testing."""
    return DataLoader(data, batch_size=case["batch_size"], num_workers=WORKERS, sampler=RandomSampler(data))


class Images(datasets.CIFAR10):
    """torchvision's CIFAR10 with other images, uint8 [N, 3, 32, 32]; `__getitem__` is torchvision's."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Any) -> None:
        # Past CIFAR10's own, which reads the files.
        datasets.VisionDataset.__init__(self, "", transform=transform)
        self.data = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.targets = labels.tolist()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
