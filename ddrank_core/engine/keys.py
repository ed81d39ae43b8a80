"""Digests of everything that determines a training, under which its result is kept."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ddrank_core.engine import device
from ddrank_core.engine.plan import Arm, Training, Trial, asks_teachers, needs_stored_soft
from ddrank_core.engine.prepared import Prepared, digest_of, normalised_images
from ddrank_core.engine.teachers import ReadyTeacher, weights_digest
from ddrank_core.engine.train import build
from ddrank_core.provenance import provenance
from ddrank_core.structure import Chosen


class Keys:
    """The digests of one run's trials and teachers."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self.train = digest_of(prepared.real.train_images, prepared.real.train_labels)
        """SHA-256 of the real training images and labels."""
        self._test_images = digest_of(prepared.real.test_images)
        distilled = prepared.distilled
        soft = () if distilled.soft_labels is None else (distilled.soft_labels,)
        self._distilled = digest_of(normalised_images(prepared), distilled.labels, *soft)
        self._initial: dict[str, str] = {}

    def of_trial(self, arm: Arm, trial: Trial, teachers: tuple[ReadyTeacher, ...]) -> str:
        """Return the SHA-256 of everything that determines a trial's result, its arm's name excepted."""
        training, share = arm.training, self._prepared.plan.validation_share
        config = self._prepared.config
        whole = training.source == "full" and trial.phase == "final"
        return self._digest(
            config.student,
            training,
            trial.learning_rate,
            trial.seed,
            data=self._data(training, trial),
            teachers=[teacher.digest for teacher in teachers] if asks_teachers(training) else [],
            validation=[share, config.seed, self.train] if share and not whole else None,
            test=self._test_images,
            chosen_by_test=self._chosen_by_test(training),
        )

    def of_teacher(self, network: Chosen[Any], training: Training, rate: float, seed: int) -> str:
        """Return the SHA-256 of everything that determines a teacher that is trained here."""
        return self._digest(network, training, rate, seed, data=self.train)

    def _data(self, training: Training, trial: Trial) -> dict[str, object]:
        match training.source:
            case "full":
                return {"train": self.train, "whole": trial.phase == "final"}
            case "distilled":
                return {"distilled": self._distilled, "soft_kind": self._prepared.distilled.soft_kind}
            case "random":
                return {
                    "train": self.train,
                    "counts": self._prepared.counts,
                    "subset_seed": trial.subset_seed,
                    "soft_kind": self._prepared.distilled.soft_kind if needs_stored_soft(training) else None,
                }

    def _chosen_by_test(self, training: Training) -> object:
        """Return what a protocol that selects on the test set looks at; only such a one reads its labels."""
        epochs = self._prepared.config.protocol.component.test_epochs(training.epochs)
        return [epochs, digest_of(self._prepared.real.test_labels)] if epochs else None

    def _digest(
        self, network: Chosen[Any], training: Training, rate: float, seed: int, **more: object
    ) -> str:
        real = self._prepared.real
        chosen = (
            network,
            training.labels,
            training.loss,
            training.optimizer,
            training.schedule,
            *training.augmentation,
        )
        content = {
            "engine": _engine_digest(),
            "libraries": {
                name: metadata.version(name) for name in ("torch", "torchvision", "timm", "kornia")
            },
            "device": device.kind(self._prepared.device),
            "precision": self._prepared.config.precision,
            "initial_weights": self._initial_weights(network),
            "components": [{k: v for k, v in provenance(c).items() if k != "given"} for c in chosen],
            "epochs": training.epochs,
            "batch_size": training.batch_size,
            "normalisation": [real.mean, real.std],
            "learning_rate": rate,
            "seed": seed,
            **more,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def _initial_weights(self, network: Chosen[Any]) -> str:
        """Return the SHA-256 of the network at one seed: pretrained weights and initialisation in one."""
        name = json.dumps(provenance(network), sort_keys=True, default=str)
        if name not in self._initial:
            real = self._prepared.real
            built = build(network.component, real.num_classes, real.image_shape, 0)
            self._initial[name] = weights_digest(built)
        return self._initial[name]


@cache
def _engine_digest() -> str:
    """Return the SHA-256 of the sources that a trial's result depends on besides its components."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), here.parent / "types.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
