"""Config -> plan: which arms the asked scores need, and every training they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import attrs

from ddrank_core.config import FullRecipe, RunConfig, ScoreName
from ddrank_core.engine.seed import derive
from ddrank_core.protocols import Augmentation, LabelMapping, Loss, Optimizer, Schedule
from ddrank_core.results import Rung
from ddrank_core.structure import Chosen

ArmName = Literal["full-hard", "syn-hard", "syn-any", "rdm-any", "syn-aug", "rdm-aug", "syn-naug", "rdm-naug"]
Source = Literal["full", "distilled", "random"]
Phase = Literal["search", "final"]

_LABEL_ARMS: tuple[ArmName, ...] = ("full-hard", "syn-hard", "syn-any", "rdm-any")
ARMS_OF: dict[ScoreName, tuple[ArmName, ...]] = {
    "hlr": ("full-hard", "syn-hard"),
    "ior": ("syn-any", "rdm-any"),
    "ior_hlr": _LABEL_ARMS,
    "lrs": _LABEL_ARMS,
    "ars": ("syn-aug", "rdm-aug", "syn-naug", "rdm-naug"),
}
"""Score -> the arms whose accuracies it is made of."""


@attrs.frozen(kw_only=True)
class Training:
    """How the students of an arm are trained; two arms with equal trainings share their trials."""

    source: Source
    labels: Chosen[LabelMapping]
    loss: Chosen[Loss]
    augmentation: tuple[Chosen[Augmentation], ...]
    optimizer: Chosen[Optimizer]
    schedule: Chosen[Schedule]
    epochs: int
    batch_size: int
    micro_batch: int | None = None


def replays_views(training: Training) -> bool:
    """Return whether a training's images, order and mixing come from stored views."""
    return bool(getattr(training.labels.component, "replays_views", False))


def needs_stored_soft(training: Training) -> bool:
    """Return whether every image must come with a stored soft label."""
    return bool(getattr(training.labels.component, "needs_stored_soft", False))


def asks_teachers(training: Training) -> bool:
    """Return whether a training depends on the teachers: for every view, or to label random images once."""
    on_views = bool(getattr(training.labels.component, "needs_teacher", False))
    stored = needs_stored_soft(training) or replays_views(training)
    return on_views or (training.source == "random" and stored)


@attrs.frozen
class Arm:
    """An arm, how it is trained, and the arm whose trials it shares, if it does."""

    name: ArmName
    training: Training
    same_as: ArmName | None = None
    candidates: tuple[float, ...] = ()
    """The learning rates that it tries, ascending."""
    rungs: tuple[Rung, ...] = ()
    """How its search goes on; each rung has the best rates of the one before."""


@attrs.frozen(kw_only=True)
class Trial:
    """One training of one student, still to be done."""

    arm: ArmName
    phase: Phase
    repeat: int
    learning_rate: float
    seed: int
    subset_seed: int | None


@attrs.frozen
class Plan:
    """What a run will do."""

    arms: tuple[Arm, ...]
    candidates: tuple[float, ...]
    """The learning rates that every arm tries, ascending, but for one that has rates of its own."""
    validation_share: float
    """The share of the real training set that is set aside to choose by."""
    repeats: int
    rungs: tuple[Rung, ...]
    """How the search over these goes on."""
    seed: int
    subset_seed: int

    @property
    def trained(self) -> tuple[Arm, ...]:
        """Return the arms that need trials of their own."""
        return tuple(arm for arm in self.arms if arm.same_as is None)

    @property
    def with_own_rates(self) -> tuple[Arm, ...]:
        """Return the arms that try other rates than the rest: the one on the full data, if any."""
        return tuple(arm for arm in self.trained if arm.candidates != self.candidates)

    def searches_apart(self, arm: Arm) -> bool:
        """Return whether the arm's rate is searched on less data than its final trials get."""
        return arm.training.source == "full" and self.validation_share > 0 and len(arm.candidates) > 1

    def chooses_by_validation(self, arm: Arm, trial: Trial) -> bool:
        """Return whether a choice still hangs on this trial; final trials of a searched arm are chosen."""
        after_search = self.searches_apart(arm) and trial.phase == "final"
        return self.validation_share > 0 and len(arm.candidates) > 1 and not after_search

    def first_trials(self, arm: Arm, rung: Rung, rates: Sequence[float]) -> tuple[Trial, ...]:
        """Return the arm's trials of a rung, at the rates that are left."""
        phase: Phase = "search" if self.searches_apart(arm) else "final"
        return tuple(self._trial(arm, phase, repeat, rate) for repeat in rung.repeats for rate in rates)

    def expected_trials(self, arm: Arm) -> tuple[Trial, ...]:
        """Return as many trials as the arm will have, at the rates that are known beforehand."""
        first = (self.first_trials(arm, rung, arm.candidates[: rung.rates]) for rung in arm.rungs)
        finals = self.final_trials(arm, arm.candidates[0]) if self.searches_apart(arm) else ()
        return (*(trial for trials in first for trial in trials), *finals)

    def final_trials(self, arm: Arm, learning_rate: float) -> tuple[Trial, ...]:
        """Return the trials that follow the search of an arm that searches apart."""
        return tuple(self._trial(arm, "final", repeat, learning_rate) for repeat in range(self.repeats))

    def count(self) -> int:
        """Return how many trials the whole plan has."""
        return sum(
            sum(len(rung.repeats) * rung.rates for rung in arm.rungs)
            + self.repeats * self.searches_apart(arm)
            for arm in self.trained
        )

    def _trial(self, arm: Arm, phase: Phase, repeat: int, rate: float) -> Trial:
        draws = arm.training.source == "random"
        return Trial(
            arm=arm.name,
            phase=phase,
            repeat=repeat,
            learning_rate=rate,
            # Not the arm and not the rate: repeats of different arms start alike, and are paired.
            seed=derive(self.seed, "trial", repeat),
            subset_seed=derive(self.subset_seed, "subset", repeat) if draws else None,
        )


def make_plan(
    config: RunConfig, own_rate: float | None, hard: Chosen[LabelMapping], cross_entropy: Chosen[Loss]
) -> Plan:
    """Return the plan of a run.

    `own_rate` is the learning rate that the distilled set brings, if it does; every arm tries it.
    `hard` and `cross_entropy` are what the hard-label arms train with.
    """
    protocol = config.protocol.component
    candidates = _candidates(protocol.learning_rates, own_rate)
    full = config.full_data.recipe
    of_full = tuple(sorted(full.learning_rates)) if full and full.learning_rates else candidates
    arms = tuple(
        attrs.evolve(arm, candidates=rates, rungs=protocol.rungs(len(rates)))
        for arm in _share(_arms(config, hard, cross_entropy))
        for rates in (of_full if arm.training.source == "full" else candidates,)
    )
    return Plan(
        arms=arms,
        candidates=candidates,
        validation_share=max(protocol.validation_share(arm.candidates) for arm in arms),
        repeats=protocol.repeats,
        rungs=protocol.rungs(len(candidates)),
        seed=config.seed,
        subset_seed=config.seed if config.subset_seed is None else config.subset_seed,
    )


def _candidates(grid: Sequence[float], own_rate: float | None) -> tuple[float, ...]:
    """Return the rates that every arm tries; a rate that was stored as float32 is not a second one."""
    new = own_rate is not None and not any(math.isclose(own_rate, rate, rel_tol=1e-6) for rate in grid)
    return tuple(sorted([*grid, own_rate] if new and own_rate is not None else grid))


def _arms(
    config: RunConfig, hard: Chosen[LabelMapping], cross_entropy: Chosen[Loss]
) -> list[tuple[ArmName, Training]]:
    needed = {arm for score in config.scores for arm in ARMS_OF[score]}
    if config.full_data.accuracy is not None:
        needed.discard("full-hard")
    recipe = config.recipe
    common: dict[str, Any] = {
        "labels": recipe.labels,
        "loss": recipe.loss,
        "optimizer": recipe.optimizer,
        "schedule": recipe.schedule,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "micro_batch": recipe.micro_batch,
    }
    augmented = _without_none(recipe.augmentation)
    hard_labels = {"labels": hard, "loss": cross_entropy}
    trainings: dict[ArmName, Training] = {
        "syn-hard": Training(
            source="distilled",
            augmentation=_without_none(config.hard.augmentation),
            **{**common, **hard_labels},
        ),
        "syn-any": Training(source="distilled", augmentation=augmented, **common),
        "rdm-any": Training(source="random", augmentation=augmented, **common),
        "syn-aug": Training(source="distilled", augmentation=augmented, **common),
        "rdm-aug": Training(source="random", augmentation=augmented, **common),
        "syn-naug": Training(source="distilled", augmentation=(), **common),
        "rdm-naug": Training(source="random", augmentation=(), **common),
    }
    if config.full_data.recipe is not None:
        full = full_training(config.full_data.recipe, hard, cross_entropy)
        trainings = {"full-hard": full, **trainings}
    return [(name, training) for name, training in trainings.items() if name in needed]


def full_training(recipe: FullRecipe, hard: Chosen[LabelMapping], cross_entropy: Chosen[Loss]) -> Training:
    """Return how a network is trained on the whole real set: the full-hard arm, and teachers."""
    return Training(
        source="full",
        labels=hard,
        loss=cross_entropy,
        augmentation=_without_none(recipe.augmentation),
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        micro_batch=recipe.micro_batch,
    )


def _without_none(augmentation: Sequence[Chosen[Augmentation]]) -> tuple[Chosen[Augmentation], ...]:
    return tuple(chosen for chosen in augmentation if chosen.use != "none")


def _share(arms: Sequence[tuple[ArmName, Training]]) -> tuple[Arm, ...]:
    """Point each arm whose training equals an earlier one's to that arm."""
    shared: list[Arm] = []
    for name, training in arms:
        twin = next((arm.name for arm in shared if arm.training == training and arm.same_as is None), None)
        shared.append(Arm(name, training, twin))
    return tuple(shared)
