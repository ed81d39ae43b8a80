"""The cases that are measured where no config is given: the field's usual network on noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrank_core.config import load_run
from ddrank_core.data import distilled as distilled_file
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.prepared import Prepared
from ddrank_core.registry import Registry
from ddrank_core.types import DistilledSet, ImageSpace

if TYPE_CHECKING:
    import torch

CLASSES, SHAPE, TEST_IMAGES = 10, (3, 32, 32), 10_000
"""CIFAR-10's."""
IPCS = (1, 10, 50)
CONFIG: dict[str, Any] = {
    "dataset": {"use": "arrays", "path": "real.npz", "mean": [0.5] * 3, "std": [0.25] * 3},
    "student": {"use": "convnet", "depth": 3, "width": 128},
    "recipe": {
        "labels": "hard",
        "loss": "ce",
        "optimizer": {"use": "sgd", "momentum": 0.9, "weight_decay": 0.0005},
        "schedule": "constant",
        "epochs": 1000,
        "batch_size": 256,
    },
    "full_data": {"accuracy": 0.5, "source": "none, these images are noise"},
    "protocol": {"use": "strict", "repeats": 10},
    "scores": ["hlr"],
}
"""One arm, `syn-hard`, of 50 trials. What is in an image does not change how long it takes."""


def synthetic_runs(
    folder: Path, registry: Registry, device: torch.device
) -> tuple[tuple[Prepared, ...], ...]:
    """Write the cases into `folder` and return them, ready to be measured, by precision; a GPU has three."""
    _write_real(folder / "real.npz")
    paths = [_write_case(folder, ipc) for ipc in IPCS]
    real = None
    groups = []
    for precision in ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32",):
        runs = []
        for path in paths:
            config = load_run(path, registry, [f"precision={precision}"])
            runs.append(prepare(config, str(path), registry, device, real))
            real = runs[0].real
        groups.append(tuple(runs))
    return tuple(groups)


def _write_real(path: Path) -> None:
    import numpy as np

    draws = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 10 * CLASSES), ("test", TEST_IMAGES)):
        arrays[f"x_{part}"] = draws.integers(0, 256, (count, *SHAPE), dtype="uint8")
        arrays[f"y_{part}"] = np.arange(count) % CLASSES
    np.savez(path, **arrays)


def _write_case(folder: Path, ipc: int) -> Path:
    import torch

    labels = torch.arange(CLASSES).repeat_interleave(ipc)
    images = torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(ipc))
    noise = DistilledSet(images=images, labels=labels, space=ImageSpace(kind="unit"), num_classes=CLASSES)
    distilled_file.save(noise, folder / f"ipc{ipc}.safetensors")
    path = folder / f"ipc{ipc}.yaml"
    config = {**CONFIG, "name": f"IPC-{ipc}", "distilled": {"path": f"ipc{ipc}.safetensors", "ipc": ipc}}
    path.write_text(json.dumps(config))
    return path
