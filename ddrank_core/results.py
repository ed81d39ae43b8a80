"""What trainings and scores come to: small frozen types, accuracies as fractions in [0, 1]."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class TrialResult:
    """One training of one student, as it ended.

    `accuracy` is on the test set and None where the protocol never tested this trial (a learning
    rate that lost on the validation split, a search trial, a diverged one).
    """

    arm: str
    phase: str
    """"search" for a trial that only serves to choose a learning rate, else "final"."""
    repeat: int
    learning_rate: float
    seed: int
    """Seeds the initial weights, the order of the images and the augmentation."""
    subset_seed: int | None
    """Seeds the choice of real images; None where the arm does not draw any."""
    validation_accuracy: float | None
    accuracy: float | None
    epoch: int
    """The epoch whose weights were scored, counted from 1."""
    diverged: bool
    seconds: float
    reused: bool = False
    """Read back from the store of finished trials instead of trained in this run."""
    how: str = ""
    """How it was computed: alone or in a cohort, compiled or not. It changes the order of sums."""
    error: str | None = None
    """Why it was given up; such a trial has neither an accuracy nor diverged."""


@attrs.frozen
class Rung:
    """A part of an arm's search: these repeats are trained, at so many of the candidate rates."""

    repeats: tuple[int, ...]
    rates: int


@attrs.frozen(kw_only=True)
class ArmResult:
    """An arm's selected trials: test accuracies by repeat, and their summary.

    `std` is the sample standard deviation over repeats (n - 1), None for fewer than two.
    """

    name: str
    accuracies: tuple[float | None, ...]
    learning_rates: tuple[float | None, ...]
    """The selected learning rate, by repeat."""
    mean: float | None
    std: float | None
    n: int
    diverged: int
    """How many of the selected trials diverged; they are not in `mean`, and no score uses them."""
    failed: int = 0
    """How many trials were given up; an arm with one has no accuracies, since nothing was chosen."""
    same_as: str | None = None
    """The arm whose trainings these are, where two arms ask for the very same ones."""
    source: str | None = None
    """Where the accuracy is from, when the config gave it instead of a training."""


@attrs.frozen(kw_only=True)
class ScoreResult:
    """A score over the repeats.

    `std` is the sample standard deviation (n - 1); `ci95` the half-width of the Student-t
    interval for the mean. All None, with a `reason`, where the score is undefined.
    """

    name: str
    mean: float | None
    std: float | None
    ci95: float | None
    n: int
    values: tuple[float, ...] = ()
    reason: str | None = None
