"""Digests of everything that determines a training, under which its result is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import copy
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrank_core.config import RunConfig, TeacherConfig
from ddrank_core.data import distilled as distilled_file
from ddrank_core.engine import device
from ddrank_core.engine.plan import Arm, Training, Trial, asks_teachers, needs_stored_soft, replays_views
from ddrank_core.engine.prepared import Prepared, digest_of, real_digest, working_images
from ddrank_core.engine.teachers import ReadyTeacher, weights_digest
from ddrank_core.engine.train import build
from ddrank_core.provenance import provenance
from ddrank_core.structure import Chosen
from ddrank_core.types import RealData

if TYPE_CHECKING:
    import torch


class TrainingKeys:
    """The digests of trainings on one data set, under one config.

    `kind` is what of the device can change a result's bits; where it is None, that of `place` as it is when a
    digest is asked for.
    """

    def __init__(
        self,
        real: RealData,
        config: RunConfig | TeacherConfig,
        place: torch.device,
        kind: str | None = None,
    ) -> None:
        self._real, self._precision, self._device, self._kind = real, config.precision, place, kind
        self._whitening = None if config.whitening is None else config.whitening.eps
        self.train = real_digest(real, "train")
        """Stands for the real training images and labels: SHA-256 of them, or the data set's own digest."""
        self._initial: dict[str, str] = {}

    def of_teacher(self, network: Chosen[Any], training: Training, rate: float, seed: int) -> str:
        """Return the SHA-256 of everything that determines a teacher that is trained here."""
        return digest_of_content(self._content(network, training, rate, seed, data=self.train))

    def _content(
        self, network: Chosen[Any], training: Training, rate: float, seed: int, **more: object
    ) -> dict[str, Any]:
        real = self._real
        chosen = (
            network,
            training.labels,
            training.loss,
            training.optimizer,
            training.schedule,
            *training.augmentation,
        )
        return {
            "engine": _engine_digest(),
            "libraries": _libraries(),
            "device": self._kind or device.kind(self._device),
            "precision": self._precision,
            "initial_weights": self._initial_weights(network),
            "components": [_without_given(c) for c in chosen],
            "epochs": training.epochs,
            "batch_size": training.batch_size,
            "micro_batch": training.micro_batch,
            "normalisation": [real.mean, real.std],
            "whitening": None if self._whitening is None else [self._whitening, self.train],
            "learning_rate": rate,
            "seed": seed,
            **more,
        }

    def _initial_weights(self, network: Chosen[Any]) -> str:
        """Return the SHA-256 of the network at one seed: pretrained weights and initialisation in one."""
        name = json.dumps(provenance(network), sort_keys=True, default=str)
        if name not in self._initial:
            real = self._real
            built = build(network.component, real.num_classes, real.image_shape, 0)
            self._initial[name] = weights_digest(built)
        return self._initial[name]


class Keys(TrainingKeys):
    """The digests of one run's trials and teachers."""

    def __init__(self, prepared: Prepared, kind: str | None = None) -> None:
        super().__init__(prepared.real, prepared.config, prepared.device, kind)
        self._prepared = prepared
        self._test_images = real_digest(prepared.real, "test images")
        distilled = prepared.distilled
        soft = () if distilled.soft_labels is None else (distilled.soft_labels,)
        self._distilled = digest_of(working_images(prepared), distilled.labels, *soft)
        self._views = None if prepared.views is None else distilled_file.digest(prepared.views.path)

    def on(self, kind: str) -> Keys:
        """Return the same for another kind of device."""
        found = copy(self)
        found._kind = kind
        return found

    def of_trial(self, arm: Arm, trial: Trial, teachers: tuple[ReadyTeacher, ...]) -> str:
        """Return the SHA-256 of everything that determines a trial's result, its arm's name excepted."""
        return digest_of_content(self.determinants(arm, trial, teachers))

    def determinants(self, arm: Arm, trial: Trial, teachers: tuple[ReadyTeacher, ...]) -> dict[str, Any]:
        """Return everything that determines a trial's result, as values that JSON can hold as text."""
        training, plan = arm.training, self._prepared.plan
        share, validated = plan.validation_share, plan.chooses_by_validation(arm, trial)
        config = self._prepared.config
        whole = training.source == "full" and trial.phase == "final"
        return self._content(
            config.student,
            training,
            trial.learning_rate,
            trial.seed,
            data=self._data(training, trial),
            teachers=self._asked(teachers) if asks_teachers(training) else [],
            # Whether it was validated too: only then does it have an accuracy to choose by.
            validation=[share, config.seed, self.train, validated] if share and not whole else None,
            protocol=[config.protocol.use, config.protocol.component.version],
            test=[self._test_images, *map(_without_given, config.validation.augmentation)],
            chosen_by_test=self._chosen_by_test(training),
        )

    def _asked(self, teachers: Sequence[ReadyTeacher]) -> list[object]:
        """Return what determines the answers: equal weights give others in another network."""
        networks = (teacher.network for teacher in self._prepared.config.teachers)
        pairs = zip(networks, teachers, strict=True)
        return [[_without_given(network), teacher.digest] for network, teacher in pairs]

    def _data(self, training: Training, trial: Trial) -> dict[str, object]:
        match training.source:
            case "full":
                return {"train": self.train, "whole": trial.phase == "final"}
            case "distilled":
                return {
                    "distilled": self._distilled,
                    "soft_kind": self._soft_kind(),
                    "views": self._views if replays_views(training) else None,
                }
            case "random":
                return {
                    "train": self.train,
                    "counts": self._prepared.counts,
                    "subset_seed": trial.subset_seed,
                    "soft_kind": self._soft_kind() if needs_stored_soft(training) else None,
                    "views": self._views if replays_views(training) else None,
                }

    def _soft_kind(self) -> tuple[str, float]:
        return self._prepared.distilled.soft_kind, self._prepared.distilled.soft_temperature

    def _chosen_by_test(self, training: Training) -> object:
        """Return what a protocol that selects on the test set looks at; only such a one reads its labels."""
        epochs = self._prepared.config.protocol.component.test_epochs(training.epochs)
        return [epochs, real_digest(self._prepared.real, "test labels")] if epochs else None


def digest_of_content(content: object) -> str:
    """Return the SHA-256 of what determines a training."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _without_given(chosen: Chosen[Any]) -> dict[str, Any]:
    return {name: value for name, value in provenance(chosen).items() if name != "given"}


@cache
def _libraries() -> dict[str, str]:
    """Return the versions of the libraries that trials compute with; read once, as it takes milliseconds."""
    return {name: metadata.version(name) for name in ("torch", "torchvision", "timm", "kornia")}


@cache
def _engine_digest() -> str:
    """Return the SHA-256 of the sources that a trial's result depends on besides its components."""
    here = Path(__file__).parent
    others = ("types.py", "views.py", "data/stored_views.py", "data/distilled.py")
    files = [*sorted(here.glob("*.py")), *(here.parent / name for name in others)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
