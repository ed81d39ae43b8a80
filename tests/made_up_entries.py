"""Entries of a board, made up from a seed: as many as asked for, alike in shape to measured ones."""

from __future__ import annotations

import math
import random
from pathlib import Path

import attrs

from ddrank_core.engine import score
from ddrank_core.leaderboard.types import (
    Claim,
    Cost,
    DistilledFile,
    Entry,
    Finding,
    Measured,
    Submission,
    Track,
    Variant,
)

REPEATS = 5
BOARDS = (
    ("cifar10", 1, 0.45, 0.15, 10, (3, 32, 32)),
    ("cifar10", 10, 0.6, 0.3, 10, (3, 32, 32)),
    ("cifar100", 10, 0.4, 0.18, 100, (3, 32, 32)),
    ("digits", 1, 0.88, 0.6, 10, (1, 8, 8)),
    ("digits", 10, 0.95, 0.84, 10, (1, 8, 8)),
)
"""Data set, IPC, about how accurate a good set is, and random images, classes, and shape."""
NAMES = (
    "Matching",
    "Trajectory",
    "Kernel",
    "Prior",
    "Relabel",
    "Cluster",
    "Gradient",
    "Coreset",
    "Flow",
    "Patch",
)
CONTROLS = {"noise": -0.1, "random": 0.0, "herding": 0.02, "k-means": 0.04}


def measured(dice: random.Random, syn: float, rdm: float, full: float, tests: int = 1000) -> Measured:
    """Return a run whose arms lie around the given accuracies."""

    def about(middle: float, spread: float = 0.012) -> tuple[float, ...]:
        drawn = (dice.gauss(middle, spread) for _ in range(REPEATS))
        return tuple(round(min(1, max(0, value)) * tests) / tests for value in drawn)

    augmented = about(syn), about(rdm)
    arms = {
        "full-hard": (full,) * REPEATS,
        "syn-hard": about(syn - 0.08),
        "syn-any": augmented[0],
        "rdm-any": augmented[1],
        "syn-aug": augmented[0],
        "rdm-aug": augmented[1],
        "syn-naug": about(syn - 0.03),
        "rdm-naug": about(rdm - 0.06),
    }
    return Measured(
        arms=arms,
        learning_rates=dict.fromkeys(arms, (0.01,) * REPEATS),
        full_given=True,
        scores=scores(arms),
        device="cpu",
        protocol="strict 1",
        ddrank="0.1",
        seeds=tuple(range(REPEATS)),
    )


def scores(arms: dict[str, tuple[float, ...]], w: float = 0.5, g: float = 0.5) -> dict:
    """Return mean and 95 % half-width of the scores as the engine defines them."""
    repeats = [dict(zip(arms, values, strict=True)) for values in zip(*arms.values(), strict=True)]
    values = {
        "hlr": [score.hlr(r) for r in repeats],
        "ior": [score.ior(r) for r in repeats],
        "lrs": [score.label_robust_score(score.ior(r), score.hlr(r), w) for r in repeats],
        "ars": [
            score.augmentation_robust_score(r["syn-aug"] - r["rdm-aug"], r["syn-naug"] - r["rdm-naug"], g)
            for r in repeats
        ],
    }
    found = {name: score.summarise(name, of) for name, of in values.items()}
    return {name: (result.mean, result.ci95) for name, result in found.items()}


def submission(
    number: int, folder: Path, method: str | None = None, slug: str | None = None, **changes
) -> Submission:
    """Return submission `number`; its method, data set and cost are drawn from the number."""
    dice = random.Random(number)
    dataset, ipc, good, *_ = BOARDS[number % len(BOARDS)]
    name = f"{dice.choice(NAMES)} {dice.choice(NAMES).lower()} {number}"
    fields = {
        "folder": folder,
        "slug": slug or f"method-{number:03d}/{dataset}-ipc{ipc}",
        "method": method or name,
        "authors": ("A. Author", "B. Author"),
        "paper": f"https://example.org/{number}",
        "code": None,
        "licence": "CC-BY-4.0",
        "dataset": dataset,
        "ipc": ipc,
        "saw": ("train images", "train labels"),
        "teacher": "ConvNet-3, trained on the same images" if number % 3 else None,
        "cost": Cost(gpu_hours=round(math.exp(dice.uniform(-2, 4)), 1), device="A100")
        if number % 4
        else None,
        "claimed": (Claim(accuracy=round(good + dice.gauss(0, 0.03), 3), source="table 2"),)
        if number % 5
        else (),
        "distilled": DistilledFile(path=folder / "set.safetensors", sha256="0" * 64, bytes=31400),
        "recipe": folder / "run.yaml",
    }
    return Submission(**{**fields, **changes})


def entry(
    number: int, folder: Path, track: Track = "own", findings: tuple[Finding, ...] = (), **about
) -> Entry:
    """Return entry `number`, with its controls."""
    dice = random.Random(f"{number} {track}")
    _, ipc, good, poor, classes, shape = BOARDS[number % len(BOARDS)]
    full, images = min(0.99, good + 0.1), classes * ipc
    syn = dice.uniform(poor - 0.02, good)
    labels = ("hard", "soft", "teacher")[number % 3]
    return Entry(
        submission=submission(number, folder, **about),
        track=track,
        student="convnet depth 3",
        labels=labels,
        measured=measured(dice, syn, poor, full),
        controls={name: measured(dice, poor + more, poor, full) for name, more in CONTROLS.items()},
        image_bytes=images * math.prod(shape) * (1 if number % 2 else 4),
        label_bytes=images * (classes * 4 if labels == "soft" else 1),
        teacher_bytes=1_280_000 if labels == "teacher" else 0,
        findings=findings,
        command=f"ddrank submission evaluate submissions/method-{number:03d} --track {track}",
    )


def entries(count: int, folder: Path) -> list[Entry]:
    """Return `count` submissions on both tracks, some with findings."""
    found = Finding(level="warning", check="real images", text="images[3] is nearly train image 118")
    stated = Finding(level="info", check="digest", text="the file is pinned by its digest")
    made = []
    for number in range(count):
        findings = (found,) * (number % 7 == 0) + (stated,) * (number % 3 == 0)
        made += [entry(number, folder, track, findings) for track in ("own", "fixed")]
    return made


def variants(of: Entry, numbers: dict[int, Variant], **changes) -> list[Entry]:
    """Return variants of an entry's set, each measured as the entry of that number is."""
    made = []
    for number, variant in numbers.items():
        one = entry(number, of.submission.folder, of.track)
        made.append(attrs.evolve(one, submission=of.submission, labels=of.labels, variant=variant, **changes))
    return made
