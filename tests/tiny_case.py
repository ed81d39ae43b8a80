"""A tiny but real evaluation for tests: three classes of 8x8 pictures that a small network can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ddrank_core.config import load_run
from ddrank_core.data.distilled import save
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.run import Outcome, execute
from ddrank_core.registry import default_registry
from ddrank_core.store import TrialStore
from ddrank_core.types import DistilledSet, ImageSpace

CLASSES, SIDE, PER_CLASS = 3, 8, 20

RECIPE: dict[str, Any] = {
    "labels": "hard",
    "loss": "ce",
    "augmentation": {"use": "dsa"},
    "optimizer": "sgd",
    "schedule": "constant",
    "epochs": 4,
    "batch_size": 4,
}
CONFIG: dict[str, Any] = {
    "dataset": {"use": "arrays", "path": "real.npz"},
    "distilled": {"path": "distilled.safetensors"},
    "student": {"use": "convnet", "depth": 1, "width": 8},
    "recipe": RECIPE,
    "full_data": {"recipe": {"optimizer": "sgd", "schedule": "constant", "epochs": 2, "batch_size": 16}},
    "protocol": {"use": "strict", "repeats": 2, "learning_rates": [0.01, 0.1], "validation": 0.2},
}


def pictures(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy stripes, uint8 [N, H, W]: each class has its own rows bright. Labels are shuffled."""
    draws = np.random.default_rng(seed)
    labels = draws.permutation(np.repeat(np.arange(CLASSES), per_class))
    images = draws.integers(0, 120, (len(labels), SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 100
    return images.astype("uint8"), labels.astype("int64")


def write_case(
    folder: Path, soft: torch.Tensor | None = None, soft_kind: str = "logits", **changes: Any
) -> Path:
    """Write real data, a distilled set of two images per class and a config; return the config's path."""
    x_train, y_train = pictures(PER_CLASS, 0)
    x_test, y_test = pictures(10, 1)
    np.savez(folder / "real.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    images, labels = pictures(2, 2)
    save(
        DistilledSet(
            images=torch.from_numpy(images).float().unsqueeze(1) / 255,
            labels=torch.from_numpy(labels),
            space=ImageSpace(kind="unit"),
            num_classes=CLASSES,
            soft_labels=soft,
            soft_kind=soft_kind,
            learning_rate=changes.pop("own_rate", None),
        ),
        folder / "distilled.safetensors",
    )
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return path


def prepared_case(folder: Path, *overrides: str, **changes: Any) -> Prepared:
    """Return the tiny evaluation, ready to run on the CPU."""
    registry = default_registry()
    path = write_case(folder, **changes)
    return prepare(load_run(path, registry, overrides), str(path), registry, torch.device("cpu"))


def run_case(prepared: Prepared, cache: Path, emit: Any = lambda hook, event: None) -> Outcome:
    """Run it, with a store of finished trials in `cache`."""
    store = TrialStore(cache)
    try:
        return execute(prepared, store, emit)
    finally:
        store.close()
